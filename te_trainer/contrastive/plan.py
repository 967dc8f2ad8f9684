"""What a section `contrastive` means for a plain PLM, worked out once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig

from te_trainer.config.defaults import CONTRASTIVE_ARGUMENTS
from te_trainer.config.schema import ContrastiveConfig, ContrastiveTrainingConfig, RunConfig
from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, Checkpoint, resolve_checkpoint
from te_trainer.models.attention import check_attention
from te_trainer.models.precision import precision_of
from te_trainer.models.sentence_files import saved_pooling
from te_trainer.models.tokenizer import refuse_lost_ids
from te_trainer.runs.checks import check_section
from te_trainer.runs.commits import ReadSource, pin_commits
from te_trainer.runs.memory import describe_training_memory
from te_trainer.runs.training import Training
from te_trainer.runs.training_arguments import check_checkpointing, run_arguments

TRAINER_KEYS = ("temperature", "span", "mlp_head", "both_views")  # of the section, and of the training arguments
ENCODER_KEYS = ("pooling", "max_length", "prompt", "attn_implementation")


@dataclass(frozen=True)
class ContrastivePlan:
    """How contrastive training makes a bi-encoder of a plain PLM."""

    start: Checkpoint  # of the PLM
    section: ContrastiveTrainingConfig  # in which `precision` and `prompt` may be a run's, `pooling` the PLM's
    processes: int
    training: dict[str, Any]  # keyword arguments of the training arguments

    @property
    def encoder(self) -> dict[str, Any]:
        """Keyword arguments that load the encoder; the prompt None is what the checkpoint says."""
        return {name: getattr(self.section, name) for name in ENCODER_KEYS}

    @property
    def prompt_text(self) -> str:
        """Text in front of every sentence."""
        return self.start.layout.prompt if self.section.prompt is None else self.section.prompt

    @property
    def resolved(self) -> dict[str, Any]:
        """What `run.yaml` says of the training of contrastive training alone."""
        return {"resolved": self.training | self.encoder}

    def describe(self, title: str, sentences: int) -> list[str]:
        """How long the training on so many sentences is, and what memory it takes."""
        training, length = self.training, self.section.max_length
        batch = training["per_device_train_batch_size"]
        together = batch * self.processes * (training["gradient_accumulation_steps"] or 1)
        steps, epochs = training.get("max_steps", -1), float(training["num_train_epochs"])
        passes = f", {epochs:g} epoch{'s' * (epochs != 1)}" if steps <= 0 else ""
        steps = steps if steps > 0 else math.ceil(sentences * epochs / together)
        return [
            f"{title}: about {steps:,} steps of {together} sentences{passes}, learning rate "
            f"{training['learning_rate']:g}, {precision_of(training)}",
            describe_training_memory(title, self.start, "bi-encoder", batch, length),
        ]

    def check(self) -> None:
        """Refuse what cannot be trained."""
        section, model = self.section, self.start.name
        BiEncoder.check(
            self.start, section.pooling, max_length=section.max_length, prompt=section.prompt, section="contrastive."
        )
        if section.mlp_head and section.pooling != "cls":
            raise InputError(
                f"contrastive.mlp_head: the head stands on [CLS], but contrastive.pooling (by default what model "
                f"{model} says) is {section.pooling}; set contrastive.mlp_head to false, or contrastive.pooling to cls"
            )
        refuse_lost_ids(self.start.tokenizer, model)
        empty = self.start.empty_model("bi-encoder")
        check_attention(empty, section.attn_implementation, "contrastive.attn_implementation", trains=True)
        check_checkpointing(empty, model, "contrastive", self.training)
        if self.start.is_decoder and section.pooling == "cls":
            raise InputError(
                f"model {model}: a decoder's first token sees no other; set contrastive.pooling to last, and "
                "mlp_head to false"
            )
        drops, masks = has_dropout(self.start.config), self.start.tokenizer.mask_token is not None
        if not drops and not masks:
            raise InputError(
                f"model {model}: it has no dropout and its tokenizer no mask token, so that both views of a sentence "
                "would be the same; set its dropout in config.json, e.g. to 0.1, or start from another model"
            )
        if section.span and not masks:
            raise InputError(f"model {model}: its tokenizer has no mask token; set contrastive.span to 0")
        if not section.span and not drops:
            raise InputError(
                f"model {model}: it has no dropout, so that both views of a sentence would be the same; set "
                "contrastive.span, e.g. to 5"
            )

    def check_batch(self, sentences: int) -> None:
        """Refuse fewer sentences than one batch over all processes holds, or one step where the rest is left out."""
        batch = self.training["per_device_train_batch_size"] * self.processes
        if batch < 2:
            raise InputError(
                "contrastive.per_device_train_batch_size: a sentence alone in its batch has none to differ from; set 2"
            )
        step = batch * (self.training["gradient_accumulation_steps"] or 1)
        if self.training.get("dataloader_drop_last") and batch <= sentences < step:
            raise InputError(
                f"contrastive.dataloader_drop_last: a step takes {step:,} sentences, and there are {sentences:,}; set "
                "it to false, or lower contrastive.gradient_accumulation_steps"
            )
        if sentences < batch:
            raise InputError(
                f"data.sentences: {sentences} distinct sentences do not fill one batch of {batch}; give more, or lower "
                "contrastive.per_device_train_batch_size"
            )


def plan_contrastive(model: str, section: ContrastiveTrainingConfig, processes: int) -> ContrastivePlan:
    """Work out how one PLM is trained; the Hub's names must mean a commit by now."""
    check_section("contrastive", section)
    start, training = resolve_checkpoint(model), contrastive_arguments(section, processes)
    pooling = section.pooling or saved_pooling(start.files, start.layout, "contrastive.") or "cls"
    return ContrastivePlan(start, replace(section, pooling=pooling), processes, training)


def contrastive_training(plan: ContrastivePlan, config: ContrastiveConfig | RunConfig, **of_run: Any) -> Training:
    """The training that makes a bi-encoder of a plain PLM in a run of a configuration."""
    return Training(
        kind="bi-encoder",
        load=partial(BiEncoder.from_pretrained, plan.start.name, **plan.encoder),
        values=run_arguments(config) | plan.training,
        section="contrastive",
        **of_run,
    )


def contrastive_arguments(section: ContrastiveTrainingConfig, processes: int) -> dict[str, Any]:
    """Keyword arguments of the training arguments; the authors' batch size is divided among the processes."""
    values = dict(CONTRASTIVE_ARGUMENTS[section.method])
    batch = max(1, values["per_device_train_batch_size"] // processes)
    values |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1}
    values |= {"precision": section.precision or "auto"} | section.training
    if values.get("bf16") is False or values.get("fp16") is False:
        values["precision"] = "float32"
    # where the clock does not decide, an epoch may take hours; what a kill may lose does not grow with it
    values |= {"loss": "info_nce", "save_strategy": None, "save_steps": values["eval_steps"]}
    return values | {name: getattr(section, name) for name in TRAINER_KEYS}


def make_plan(config: ContrastiveConfig, processes: int) -> ContrastivePlan:
    """Work out what a configuration means, and let the Hub's names mean the same commit on all ranks."""
    check_section("contrastive", config.contrastive)
    pin_commits([config.model], data_sources(config))
    return plan_contrastive(config.model, config.contrastive, processes)


def data_sources(config: ContrastiveConfig) -> list[ReadSource]:
    """What a run reads sentences and gold scores from, each with the folder that benchmark sets would lie in."""
    data = config.data
    return [(source, data.dir) for source in (*data.sentences, data.dev, *data.test)]


def has_dropout(config: PretrainedConfig) -> bool:
    """Whether a model of this configuration drops anything while it trains."""
    with torch.device("meta"):
        modules = AutoModel.from_config(config).modules()
    return any(_drops(module) for module in modules)


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return module.p > 0
    # attention and some models' layers call functions of torch with a probability of their own
    return any("drop" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items())
