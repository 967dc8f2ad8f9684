"""Step 0 (Trans-Encoder, section 2.1): contrastive training makes a bi-encoder of a plain PLM."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig

from te_trainer.config.defaults import CONTRASTIVE_ARGUMENTS
from te_trainer.config.schema import ContrastiveTrainingConfig
from te_trainer.data import SentenceManifest
from te_trainer.distributed import on_main_process, process_state
from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.models import BiEncoder, resolve_checkpoint
from te_trainer.runs.checks import check_section
from te_trainer.runs.layout import truncation_record
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer, describe
from te_trainer.runs.training import Training
from te_trainer.runs.truncation import count_truncation, read_truncations


@dataclass(frozen=True)
class ContrastiveSettings:
    """What a section `contrastive` means.

    Args:
        section: The keys of the section.
    """

    section: ContrastiveTrainingConfig

    def training(self, world_size: int) -> dict[str, Any]:
        """Keyword arguments of the training arguments. The authors' batch size is divided among the ranks."""
        section = self.section
        values = dict(CONTRASTIVE_ARGUMENTS[section.method])
        values["per_device_train_batch_size"] = max(1, values["per_device_train_batch_size"] // world_size)
        values |= {"precision": section.precision or "auto"} | section.training
        if values.get("bf16") is False or values.get("fp16") is False:
            values["precision"] = "float32"
        # An epoch may take hours; what a kill may lose does not grow with it.
        values |= {"loss": "info_nce", "save_strategy": None, "save_steps": values["eval_steps"]}
        return values | {name: getattr(section, name) for name in ("temperature", "span", "mlp_head", "both_views")}

    @property
    def encoder(self) -> dict[str, Any]:
        """Pooling, length and prompt of the encoder; no prompt is what the checkpoint says."""
        return {name: getattr(self.section, name) for name in ("pooling", "max_length", "prompt")}

    def reads(self, model: str) -> tuple[int, str]:
        """How many tokens of a sentence are read, and the prompt in front of it."""
        prompt = self.encoder["prompt"]
        return int(self.encoder["max_length"]), resolve_checkpoint(model).layout.prompt if prompt is None else prompt

    def check(self, model: str) -> None:
        """Refuse what cannot be trained.

        Raises:
            InputError: a wrong value, or a model that cannot start a bi-encoder, or that makes no two views.
        """
        check_section("contrastive", self.section)
        checkpoint = resolve_checkpoint(model)
        BiEncoder.check(
            checkpoint,
            self.encoder["pooling"],
            max_length=self.encoder["max_length"],
            prompt=self.encoder["prompt"],
            section="contrastive.",
        )
        if checkpoint.is_decoder and self.encoder["pooling"] == "cls":
            raise InputError(
                f"model {model}: a decoder's first token sees no other; set contrastive.pooling to last, and "
                "mlp_head to false"
            )
        if self.section.span:
            if checkpoint.tokenizer.mask_token is None:
                raise InputError(f"model {model}: its tokenizer has no mask token; set contrastive.span to 0")
        elif not has_dropout(checkpoint.config):
            raise InputError(
                f"model {model}: it has no dropout, so that both views of a sentence would be the same; set "
                "contrastive.span, e.g. to 5"
            )

    def check_batch(self, sentences: int, world_size: int) -> None:
        """Refuse fewer sentences than one batch over all ranks holds.

        Raises:
            InputError: gives both numbers.
        """
        batch = self.training(world_size)["per_device_train_batch_size"] * world_size
        if sentences < batch:
            raise InputError(
                f"data.sentences: {sentences} distinct sentences do not fill one batch of {batch}; give more, or lower "
                "contrastive.per_device_train_batch_size"
            )


def has_dropout(config: PretrainedConfig) -> bool:
    """Whether a model of this configuration drops anything while it trains."""
    with torch.device("meta"):
        modules = AutoModel.from_config(config).modules()
    dropped = any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules)
    return dropped or getattr(config, "attention_dropout", 0.0) > 0


def contrastive_training(
    settings: ContrastiveSettings, model: str, *, report_to: list[str], ddp_timeout: int, **of_run: Any
) -> Training:
    """The training that makes a bi-encoder of a plain PLM.

    Args:
        settings: How to train.
        model: The plain PLM.
        report_to: Loggers.
        ddp_timeout: Seconds that processes wait for one another.
        of_run: The other arguments of `Training`.
    """
    values = settings.training(process_state().num_processes)
    return Training(
        kind="bi-encoder",
        load=partial(BiEncoder.from_pretrained, model, **settings.encoder),
        values={"report_to": report_to or "none", "ddp_timeout": ddp_timeout} | values,
        section="contrastive",
        **of_run,
    )


def score_once(
    settings: ContrastiveSettings, model: str, title: str, record: Path, scorer: Scorer, progress: RunProgress
) -> None:
    """Score a bi-encoder, unless its record is there."""
    if record.exists():
        return
    entry, _ = scorer.score(BiEncoder.from_pretrained(model, **settings.encoder))
    on_main_process(lambda: write_text(record, json.dumps(entry, indent=2) + "\n"))
    if entry["scores"]:
        progress.say(f"{title}: {describe(entry['scores'])}")


def count_contrastive_truncation(settings: ContrastiveSettings, model: str, folder: Path, seed: int) -> None:
    """Count what contrastive training cuts of its sentences, unless that is known.

    Args:
        folder: Folder of the sentences.
    """
    file = truncation_record(folder)
    if not read_truncations(file):
        _, sentences = SentenceManifest.load(folder)
        tokenizer = resolve_checkpoint(model).tokenizer
        count = count_truncation(sentences, "bi-encoder", tokenizer, *settings.reads(model), seed)
        write_text(file, json.dumps({"bi-encoder": count}, indent=2) + "\n")
