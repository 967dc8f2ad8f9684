"""From the main job's command line to a `RunConfig`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

import docstring_parser
import yaml

from te_trainer.config.contrastive import parse_step0
from te_trainer.config.defaults import TRAINER_DEFAULTS, paper_arguments
from te_trainer.config.names import check_model_names, check_path
from te_trainer.config.parsing import (
    DDP_TIMEOUT_KEY,
    Form,
    Key,
    TrainingSection,
    check_ddp_timeout,
    check_positive,
    check_seed_and_loggers,
    given,
    listed,
    nearest,
    read,
)
from te_trainer.config.push import check_hub_section
from te_trainer.config.schema import (
    DataConfig,
    DistillationConfig,
    HubConfig,
    LoraConfig,
    ModelConfig,
    Pooling,
    RunConfig,
)
from te_trainer.config.yaml_text import load_yaml
from te_trainer.errors import InputError

SAMPLING: Key = (
    "train_sampling_strategy",
    Literal["auto", "random", "group_by_length"],
    "auto",
    "How pairs become batches; auto is random, as in the paper, but on a CPU for models that compute padding.",
)
OFFICIAL_ADAMW: Key = (
    "official_adamw",
    bool,
    False,
    "AdamW as the official code has it (transformers 4.9): an epsilon of 1e-6, added before the bias correction, which "
    "damps early steps. torch's is 1e-8, added after it. The recipes of the paper's rows set it.",
)
# Keys of a section beside those of TrainingArguments: name, type, default, help.
OWN_KEYS: dict[str, list[Key]] = {
    "bi_encoder": [
        SAMPLING,
        OFFICIAL_ADAMW,
        (
            "pooling",
            Pooling | None,
            None,
            "How a sentence's token vectors become one. Default: what the checkpoint says, else last for decoders and "
            "cls for encoders.",
        ),
        ("prompt", str | None, None, "Text in front of every sentence, for PLMs that want one."),
        (
            "loss",
            Literal["mse", "bce"],
            "mse",
            "mse is the paper's (Eq. 3); bce is its ablation (Table 8).",
        ),
        ("max_length", int, 32, "Tokens of a sentence beyond this are cut."),
    ],
    "cross_encoder": [
        SAMPLING,
        OFFICIAL_ADAMW,
        ("max_length", int, 64, "Tokens of a pair beyond this are cut."),
        ("loss", Literal["bce", "mse"], "bce", "bce is the paper's (Eq. 2); mse is its ablation (Table 8)."),
        ("both_orders", bool, True, "Train on (s1, s2) and (s2, s1); off for asymmetric tasks such as QNLI."),
    ],
}


def parse(argv: Sequence[str] | None = None) -> RunConfig:
    """Parse a command line.

    Raises:
        InputError: an unknown key (with the nearest known one), a value of the wrong type, a missing section or file.
    """
    return _run_config(read(_form(), argv))


def _form() -> Form:
    return Form(
        prog="trans_encoder.py",
        description="Trans-Encoder: from unlabelled sentence pairs to a bi-encoder and a cross-encoder.",
        keys=[
            (
                "models",
                list[ModelConfig | str] | str,
                [],
                f"The PLMs: a name, or a list of names or of mappings. {_model_help()}",
            ),
            ("output_dir", str, "runs/trans-encoder", "Where everything is written."),
            ("seed", int, 2021, "Seed of everything random."),
            (
                "report_to",
                list[str] | str,
                [],
                "Loggers: tensorboard, wandb, trackio. One run a stage, grouped by output folder.",
            ),
            DDP_TIMEOUT_KEY,
        ],
        sections={"data": DataConfig, "distillation": DistillationConfig, "lora": LoraConfig, "hub": HubConfig},
        trainings={name: _training(name) for name in OWN_KEYS},
        never_empty=frozenset({"models", "output_dir", "seed", "data.pool"}),
        entry=ModelConfig,
    )


def _training(name: str) -> TrainingSection:
    paper = paper_arguments("bi-encoder" if name == "bi_encoder" else "cross-encoder", "sts")
    return TrainingSection(
        title=f"the {name.replace('_', '-')}s",
        own=OWN_KEYS[name],
        defaults=TRAINER_DEFAULTS | paper,
        origin=dict.fromkeys(paper, " (the paper's, for task sts and size base)"),
    )


def _run_config(values: dict[str, Any]) -> RunConfig:
    for key in ("pool", "extra", "test"):
        values["data"][key] = listed(values["data"][key])
    config = RunConfig(
        models=[
            ModelConfig(bi_encoder=_model_name(entry)) if isinstance(entry, str) else ModelConfig(**entry)
            for entry in listed(values["models"])
        ],
        data=DataConfig(**values["data"]),
        distillation=DistillationConfig(**values["distillation"]),
        bi_encoder=given(values["bi_encoder"]),
        cross_encoder=given(values["cross_encoder"]),
        lora=LoraConfig(**values["lora"]),
        hub=HubConfig(**values["hub"]),
        report_to=listed(values["report_to"]),
        output_dir=values["output_dir"],
        seed=values["seed"],
        ddp_timeout=values["ddp_timeout"],
        step0=parse_step0(values["distillation"]["step0"]) if values["distillation"]["step0"] else None,
    )
    _check(config)
    return config


def _model_name(entry: str) -> str:
    if entry.strip()[:1] in {"[", "{", ""}:
        known = [item.name for item in fields(ModelConfig)]
        for mapping in _mappings(entry):
            for key in mapping.keys() - set(known):
                raise InputError(nearest(f"models: unknown key '{key}'", str(key), known))
        raise InputError(
            f"models: '{entry}' is neither a model's name nor a list of entries; check brackets and spaces"
        )
    return entry


def _mappings(entry: str) -> list[dict[Any, Any]]:
    """The mappings in a list that was written on the command line."""
    try:
        return [item for item in listed(load_yaml(entry)) if isinstance(item, dict)]
    except yaml.YAMLError:
        return []


def _check(config: RunConfig) -> None:
    """Refuse what each value alone allows and all of them together do not."""
    if not config.models:
        raise InputError("models is empty: name at least one model, e.g. --models '[bert-base-uncased]'")
    if not config.data.pool:
        raise InputError(
            "data.pool is empty: name at least one source of sentence pairs, e.g. --data.pool '[pairs.tsv]'"
        )
    check_model_names([str(model.name) for model in config.models])
    check_path(config.output_dir, "output_dir")
    unknown = set(config.data.columns) - {"sentence1", "sentence2", "score"}
    if unknown:
        raise InputError(
            f"data.columns: unknown key '{sorted(unknown)[0]}'; it maps sentence1, sentence2 and score to column names"
        )
    if config.distillation.selection == "dev" and config.data.dev is None:
        raise InputError(
            "distillation.selection is 'dev' but data.dev names no set with gold scores; give one, or set "
            "distillation.selection to 'last' or 'agreement'"
        )
    how = config.distillation.combine
    for model in config.models:
        if model.weight is not None and how != "weighted":
            raise InputError(
                f"models: '{model.name}' has a weight, but distillation.combine is '{how}'; set it to 'weighted', or "
                "remove the weight"
            )
        if model.weight is not None and not 0 < model.weight < math.inf:
            raise InputError(f"models: the weight of '{model.name}' must be above 0, got {model.weight:g}")
    if config.data.extra_pairs is not None and not config.data.extra:
        raise InputError("data.extra_pairs is given but data.extra names no source; name one, or remove the key")
    check_hub_section(config.hub)
    if config.hub.branch_per_cycle and not config.distillation.keep_cycles:
        raise InputError(
            "hub.branch_per_cycle is given but only the best encoders are kept; set distillation.keep_cycles to true"
        )
    check_seed_and_loggers(config.seed, config.report_to)
    check_ddp_timeout(config.ddp_timeout)
    positive = {
        "data.max_pairs": config.data.max_pairs,
        "data.extra_pairs": config.data.extra_pairs,
        "lora.rank": config.lora.rank,
        "lora.alpha": config.lora.alpha,
        "distillation.cycles": config.distillation.cycles,
        "distillation.batch_tokens": config.distillation.batch_tokens,
        "bi_encoder.max_length": config.bi_encoder.get("max_length"),
        "cross_encoder.max_length": config.cross_encoder.get("max_length"),
    }
    check_positive(positive)
    if not 0 <= config.lora.dropout < 1:
        raise InputError(f"lora.dropout: expected a number from 0 to below 1, got {config.lora.dropout}")


def _model_help() -> str:
    """What an entry of `models` may hold, from its docstring."""
    parameters = docstring_parser.parse(ModelConfig.__doc__ or "").params
    return " ".join(f"{key.arg_name}: {' '.join((key.description or '').split())}" for key in parameters)
