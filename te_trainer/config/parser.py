"""From a command line to a `RunConfig`: YAML file, dotted overrides, `--help`, and one sentence for each mistake."""

from __future__ import annotations

import difflib
import itertools
import math
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Any, Literal

import docstring_parser
import yaml
from jsonargparse import ArgumentParser, Namespace

from te_trainer.config.defaults import TRAINER_DEFAULTS, paper_arguments
from te_trainer.config.flat import flat
from te_trainer.config.schema import DataConfig, DistillationConfig, LoraConfig, ModelConfig, Pooling, RunConfig
from te_trainer.config.trainer_keys import MANAGED, trainer_keys
from te_trainer.errors import InputError

# Keys of a section beside those of TrainingArguments: name, type, default, help.
OWN_KEYS: dict[str, list[tuple[str, Any, Any, str]]] = {
    "bi_encoder": [
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
        ("max_length", int, 64, "Tokens of a pair beyond this are cut."),
        ("loss", Literal["bce", "mse"], "bce", "bce is the paper's (Eq. 2); mse is its ablation (Table 8)."),
        ("both_orders", bool, True, "Train on (s1, s2) and (s2, s1); off for asymmetric tasks such as QNLI."),
    ],
}


# What a run's folder and its results hold beside the PLMs.
TAKEN = {"", ".", "..", "pool", "start", "logs", "agreement", "ensemble"}


def parse(argv: Sequence[str] | None = None) -> RunConfig:
    """Parse a command line.

    Raises:
        InputError: an unknown key (with the nearest known one), a value of the wrong type, a missing section or file.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for path in _config_files(arguments):
        _check_file(path)
    parser = _parser()
    try:
        namespace = parser.parse_args(arguments)
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(_sentence(str(error))) from None
    return _run_config(namespace)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="trans_encoder.py",
        description="Trans-Encoder: from unlabelled sentence pairs to a bi-encoder and a cross-encoder.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with the keys below.")
    parser.add_argument(
        "--models",
        type=list[ModelConfig | str] | str,
        default=[],
        help=f"The PLMs: a name, or a list of names or of mappings. {_model_help()}",
    )
    parser.add_argument("--output_dir", type=str, default="runs/trans-encoder", help="Where everything is written.")
    parser.add_argument("--seed", type=int, default=2021, help="Seed of everything random.")
    parser.add_argument(
        "--report_to",
        type=list[str] | str,
        default=[],
        help="Loggers: tensorboard, wandb, trackio. One run a stage, grouped by output folder.",
    )
    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(DistillationConfig, "distillation")
    parser.add_class_arguments(_section("bi_encoder"), "bi_encoder")
    parser.add_class_arguments(_section("cross_encoder"), "cross_encoder")
    parser.add_class_arguments(LoraConfig, "lora")
    return parser


def _section(name: str) -> type:
    """A dataclass with a section's keys, all optional, so that what the user gave can be told from defaults."""
    paper = paper_arguments("bi-encoder" if name == "bi_encoder" else "cross-encoder", "sts")
    ours = TRAINER_DEFAULTS | paper
    keys: list[Any] = []
    lines = [f"Training of the {name.replace('_', '-')}s, with any key of transformers.TrainingArguments.", "", "Args:"]
    for key, kind, default, text in OWN_KEYS[name]:
        keys.append((key, kind | None, field(default=None)))
        lines.append(f"    {key}: {text}" + ("" if default is None else f" Default: {default}."))
    for trainer_key in trainer_keys().values():
        default = ours.get(trainer_key.name, trainer_key.default)
        origin = " (the paper's, for task sts and size base)" if trainer_key.name in paper else ""
        keys.append((trainer_key.name, trainer_key.type, field(default=None)))
        lines.append(f"    {trainer_key.name}: {trainer_key.help} Default: {default}{origin}.")
    section = make_dataclass("".join(part.title() for part in name.split("_")) + "Section", keys)
    section.__doc__ = "\n".join(lines)
    return section


def _run_config(namespace: Namespace) -> RunConfig:
    values = namespace.as_dict()
    for section in ("data", "distillation", "bi_encoder", "cross_encoder", "lora"):
        if not isinstance(values[section], dict):
            raise InputError(f"{section}: expected a section of keys and values, got '{values[section]}'")
    for key in ("pool", "extra", "test"):
        values["data"][key] = _list(values["data"][key])
    config = RunConfig(
        models=[
            ModelConfig(bi_encoder=_model_name(entry)) if isinstance(entry, str) else ModelConfig(**entry)
            for entry in _list(values["models"])
        ],
        data=DataConfig(**values["data"]),
        distillation=DistillationConfig(**values["distillation"]),
        bi_encoder=_given(values["bi_encoder"]),
        cross_encoder=_given(values["cross_encoder"]),
        lora=LoraConfig(**values["lora"]),
        report_to=_list(values["report_to"]),
        output_dir=values["output_dir"],
        seed=values["seed"],
    )
    _check(config)
    return config


def _list(value: Any) -> list[Any]:
    """One entry may stand for a list of one."""
    return value if isinstance(value, list) else [value]


def _model_name(entry: str) -> str:
    if entry.strip()[:1] in {"[", "{", ""}:
        known = [item.name for item in fields(ModelConfig)]
        for mapping in _mappings(entry):
            for key in mapping.keys() - set(known):
                raise InputError(_nearest(f"models: unknown key '{key}'", str(key), known))
        raise InputError(
            f"models: '{entry}' is neither a model's name nor a list of entries; check brackets and spaces"
        )
    return entry


def _mappings(entry: str) -> list[dict[Any, Any]]:
    """The mappings in a list that was written on the command line."""
    try:
        return [item for item in _list(yaml.safe_load(entry)) if isinstance(item, dict)]
    except yaml.YAMLError:
        return []


def _given(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value is not None}


def _check(config: RunConfig) -> None:
    """Refuse what each value alone allows and all of them together do not."""
    if not config.models:
        raise InputError("models is empty: name at least one model, e.g. --models '[bert-base-uncased]'")
    if not config.data.pool:
        raise InputError(
            "data.pool is empty: name at least one source of sentence pairs, e.g. --data.pool '[pairs.tsv]'"
        )
    names = [model.name for model in config.models]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"models: two entries are named '{name}'; give each a name of its own")
        taken = name in TAKEN or str(name).startswith("cycle-")
        if taken or Path(str(name)).name != name:
            raise InputError(f"models: '{name}' cannot name a model's folder; give another name")
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
    if not 0 <= config.seed < 2**31:
        raise InputError(f"seed: expected a number from 0 to {2**31 - 1}, got {config.seed}")
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
    for key, value in positive.items():
        if value is not None and value < 1:
            raise InputError(f"{key}: expected a number of 1 or more, got {value}")
    if not 0 <= config.lora.dropout < 1:
        raise InputError(f"lora.dropout: expected a number from 0 to below 1, got {config.lora.dropout}")
    known = {"tensorboard", "wandb", "trackio"}
    for logger in config.report_to:
        if logger not in known:
            raise InputError(f"report_to: unknown logger '{logger}'; known are {', '.join(sorted(known))}")


# ---------------------------------------------------------------- mistakes

NEVER_EMPTY = {"models", "output_dir", "seed", "data.pool"}


def _config_files(arguments: list[str]) -> list[Path]:
    """The files that a command line names with --config."""
    following = itertools.pairwise(arguments)
    return [Path(value) for argument, value in following if argument == "--config"] + [
        Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("--config=")
    ]


def _check_file(path: Path) -> None:
    """Refuse a configuration file that is none, by its name."""
    if not path.exists():
        raise InputError(f"--config: the file {path} does not exist")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--config: {path} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "broken"
        raise InputError(f"--config: {path}{where} is not YAML ({problem}); mend the file") from None
    if not isinstance(content, dict):
        raise InputError(f"--config: {path} holds no sections; write keys and values such as 'models: [...]'")
    for key, value in flat(content).items():
        if value is None and (key in NEVER_EMPTY or "." not in key):
            raise InputError(f"{key} is empty in {path}; give a value, or remove the line")


def _model_help() -> str:
    """What an entry of `models` may hold, from its docstring."""
    parameters = docstring_parser.parse(ModelConfig.__doc__ or "").params
    return " ".join(f"{key.arg_name}: {' '.join((key.description or '').split())}" for key in parameters)


def known_keys() -> list[str]:
    """Every dotted key, for `--help`'s sake and for suggestions."""
    keys = ["models", "output_dir", "seed", "report_to", "config"]
    keys += [f"data.{item.name}" for item in fields(DataConfig)]
    keys += [f"distillation.{item.name}" for item in fields(DistillationConfig)]
    keys += [f"lora.{item.name}" for item in fields(LoraConfig)]
    for section, own in OWN_KEYS.items():
        keys += [f"{section}.{name}" for name in [key[0] for key in own] + list(trainer_keys())]
    return keys


def _sentence(message: str) -> str:
    """One sentence out of the parser's report."""
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown(f"{match[1]}.{match[2]}")
    if match := re.search(r"Option '([\w.]+)' is not accepted", message):
        if "ModelConfig" in message:
            return _nearest(f"models: unknown key '{match[1]}'", match[1], [item.name for item in fields(ModelConfig)])
        return _unknown(match[1])
    if match := re.search(r"[Uu]nrecognized arguments: (.+)", message):
        first = match[1].split()[0]
        if not first.startswith("--"):
            return f"unexpected argument '{first}': write --section.key value"
        return _unknown(first.removeprefix("--").split("=")[0])
    if "ModelConfig" in message and (match := re.search(r"required[^']*'?(bi_encoder)", message)):
        return "models: an entry lacks its key 'bi_encoder'"
    if match := re.search(r'Parser key "([\w.]+)"', message):
        expected = re.findall(r"Expected an? (?:<class '(\w+)'>|(.+?))(?:\.|$| but)", message, re.MULTILINE)
        kinds = dict.fromkeys((one or other).strip() for one, other in expected)
        kinds.pop("NoneType", None)
        if literal := re.search(r"Literal\[(.+?)\]", message):
            kinds = dict.fromkeys(["one of " + literal[1].replace("'", "")])
        given = re.search(r"(?:Given value|Got value): (.*)", message)
        wanted = " or ".join(kinds) or "another value"
        return f"{match[1]}: expected {wanted}" + (f", got '{given[1].strip()}'" if given else "")
    return " ".join(message.split())


def _unknown(key: str) -> str:
    section, _, name = key.rpartition(".")
    if section in OWN_KEYS and (name in MANAGED or name.startswith("hub_")):
        return f"{key} cannot be set: {MANAGED.get(name, 'the run publishes at its end, not from a stage')}"
    return _nearest(f"unknown key '{key}'", key, known_keys())


def _nearest(what: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(key.rpartition(".")[2], tails, n=1)]
    return f"{what}; did you mean '{close[0]}'?" if close else f"{what}; --help lists the known ones"
