"""Step 0 (Trans-Encoder, section 2.1): contrastive training makes a bi-encoder of a plain PLM."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModel, PretrainedConfig

from te_trainer.config.defaults import CONTRASTIVE_ARGUMENTS
from te_trainer.config.schema import ContrastiveTrainingConfig
from te_trainer.distil.settings import check_section
from te_trainer.distributed import process_state
from te_trainer.errors import DivergedError, InputError
from te_trainer.files.atomic import write_text
from te_trainer.files.records import read_json
from te_trainer.models import BiEncoder, resolve_checkpoint
from te_trainer.models.bi_encoder import check_bi_encoder
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.saved import check_encoder_files
from te_trainer.runs.scoring import Scorer, describe
from te_trainer.runs.training import Training


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

    def check(self, model: str) -> None:
        """Refuse what cannot be trained.

        Raises:
            InputError: a wrong value, or a model that cannot start a bi-encoder, or that makes no two views.
        """
        check_section("contrastive", self.section)
        checkpoint = resolve_checkpoint(model)
        check_bi_encoder(
            checkpoint,
            self.encoder["pooling"],
            key="contrastive.pooling",
            max_length=self.encoder["max_length"],
            length_key="contrastive.max_length",
            prompt=self.encoder["prompt"],
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


@dataclass
class ContrastiveStage:
    """One PLM's contrastive training and its scores; each is done once, and its result lies on the disk.

    Args:
        settings: how to train.
        model: the plain PLM.
        folder: where the bi-encoder goes.
        scorer: its dev set chooses the checkpoint if `by_dev`, else the last one is kept.
        title: of the stage, for people.
    """

    settings: ContrastiveSettings
    model: str
    folder: Path
    scorer: Scorer
    progress: RunProgress
    seed: int
    ddp_timeout: int
    report_to: list[str]
    run_name: str
    group: str
    log_folder: Path
    title: str = "contrastive training"
    by_dev: bool = True

    def run(self, sentences: Dataset, work: float) -> None:
        """Train, if it is not done.

        Args:
            sentences: columns `sentence1` and `sentence2`.
            work: of the whole training, for the display.
        """
        training = self._training()
        if training.is_done:
            self.progress.skip(work)
            return
        self.progress.begin(self.title, work, training.share_done())
        try:
            training.run("bi-encoder", lambda: self._load(self.model), sentences)
        except DivergedError as error:
            raise DivergedError(f"{self.title}: {error}") from None
        self.progress.end()

    def score(self, path: str, title: str, record: Path) -> None:
        """Score the plain PLM or the trained encoder, if it is not done."""
        if record.exists():
            return
        if Path(path) == self.folder:
            then = "the same command trains the encoder again"
            check_encoder_files(self.folder, delete=f"the folder {self.folder}", then=then)
        began = time.monotonic()
        scores = self.scorer.scores(self.scorer.predict(self._load(path)))
        entry = {"scores": scores, "seconds": round(time.monotonic() - began, 3)}
        state = process_state()
        if state.is_main_process:
            write_text(record, json.dumps(entry, indent=2) + "\n")
        state.wait_for_everyone()
        if scores:
            self.progress.say(f"{title}: {describe(scores)}")

    @property
    def record(self) -> dict[str, Any]:
        """Steps, seconds (over all processes that worked on it), last loss, tokens and dev curve of the training."""
        then = "the same command trains the encoder again"
        return read_json(self._training().record, "steps", "seconds", then=then)

    def _load(self, path: str) -> BiEncoder:
        return BiEncoder.from_pretrained(path, **self.settings.encoder)

    def _training(self) -> Training:
        values = self.settings.training(process_state().num_processes)
        return Training(
            folder=self.folder,
            values={"report_to": self.report_to or "none", "ddp_timeout": self.ddp_timeout, **values},
            dev=self.scorer.dev if self.by_dev else None,
            metric=self.scorer.metric,
            seed=self.seed,
            progress=self.progress,
            run_name=self.run_name,
            group=self.group,
            log_folder=self.log_folder,
            section="contrastive",
        )
