"""What a configuration of the main job means, worked out once: which encoders start where, what they read, how they
train."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from te_trainer.config.defaults import (
    CYCLES,
    CYCLES_OF_MINED_PAIRS,
    CYCLES_WITHOUT_GOLD,
    PAPER_HIDDEN_SIZE,
    PAPER_LAYERS,
    fitted_epochs,
    fitted_learning_rate,
    paper_arguments,
    raised_learning_rate,
)
from te_trainer.config.schema import ModelConfig, RunConfig
from te_trainer.config.types import KINDS, Kind, Pooling, Size, Students, section_of
from te_trainer.contrastive.plan import ContrastivePlan, plan_contrastive
from te_trainer.distillation.combine import combine
from te_trainer.distillation.health import held_out_pairs
from te_trainer.errors import InputError
from te_trainer.models import Checkpoint, resolve_checkpoint
from te_trainer.models.precision import Precision, precision_of, resolve_precision
from te_trainer.runs.checks import check_section
from te_trainer.runs.commits import ReadSource, pin_commits

Selector = Literal["dev", "last", "agreement", "health"]

# Teacher and student of each half of a cycle.
HALF_CYCLES: dict[Students, tuple[tuple[Kind, Kind], ...]] = {
    "both": (("bi-encoder", "cross-encoder"), ("cross-encoder", "bi-encoder")),
    "bi-encoder": (("bi-encoder", "bi-encoder"),),
}

HELD_OUT = 0.03  # part of the pool, by default
# Pools whose students were both better than a start that has seen no label: docs/selection.md. They hold at least so
# many pairs, given ones, or mined ones of these sources; neighbours are the start's own choice, and spoil students.
LEAST_TO_TRUST = 4000
TRUSTED_SOURCES = {"bm25", "random"}
MOST_MINED = 50_000  # pairs, by default; more than the paper's largest pool
# A pool of fewer pairs is learnt together with random pairs of its sentences, in a longer training: docs/results.md.
GROWS_AT_ONCE, GROWN_LENGTH = 500, 3
LARGE = 1024  # hidden size from which on a PLM is one of the paper's large ones
TRAINER_KEYS = ("loss", "both_orders", "train_sampling_strategy", "official_adamw")  # of a section and of its trainer


@dataclass(frozen=True)
class EncoderPlan:
    """One PLM's encoders of a kind."""

    kind: Kind
    start: Checkpoint
    max_length: int  # tokens after which a sentence or a pair is cut
    training: dict[str, Any]  # keyword arguments of the training arguments
    pooling: Pooling | None = None  # of bi-encoders; None for what the checkpoint says, as of the prompt
    prompt: str | None = None
    attn_implementation: str | None = None
    grows: bool = False  # whether its first training learns random pairs of the pool's sentences, too

    @property
    def section(self) -> str:
        """The section of the configuration that trains these encoders."""
        return section_of(self.kind)

    @property
    def length_key(self) -> str:
        """The key that says how long a training is; `max_steps` goes before epochs."""
        return "max_steps" if self.training.get("max_steps", -1) > 0 else "num_train_epochs"

    @property
    def prompt_text(self) -> str:
        """Text in front of every sentence; none in front of a cross-encoder's pairs."""
        if self.kind == "cross-encoder":
            return ""
        return self.start.layout.prompt if self.prompt is None else self.prompt


@dataclass(frozen=True)
class ModelPlan:
    """One PLM: its name, the weight of its labels, its encoders, and the step 0 that makes its bi-encoder."""

    name: str
    weight: float
    encoders: dict[Kind, EncoderPlan]
    step0: ContrastivePlan | None


@dataclass(frozen=True)
class DistillationPlan:
    """A whole run."""

    config: RunConfig
    models: dict[str, ModelPlan]  # by their names, in the configuration's order
    kinds: tuple[Kind, ...]  # of encoders that a cycle trains
    cycles: int
    precision: Precision  # of labelling
    commits: dict[str, dict[str, str]]  # of the Hub's models and data sets, by name
    selector: Selector  # chooses the cycle that is kept; with `health`, a student that has not learnt ends the cycles
    may_keep_start: bool  # the start may be kept although students have learnt
    held_out: float  # part of the pool that no training sees
    keeps_all_cycles: bool  # until the run ends: `agreement` chooses when it has seen them all

    @property
    def resolved(self) -> dict[str, Any]:
        """What `run.yaml` says of the trainings: cycles, their arguments by PLM and kind, and those of step 0."""
        by_model = {
            name: {kind: encoder.training for kind, encoder in model.encoders.items()}
            for name, model in self.models.items()
        }
        step0 = next(iter(self.models.values())).step0
        entries = {"cycles": self.cycles, "resolved": by_model}
        return entries | ({} if step0 is None else {"step0": step0.training | step0.encoder})

    @property
    def half_cycles(self) -> tuple[tuple[Kind, Kind], ...]:
        """Teacher and student of each half of a cycle."""
        return HALF_CYCLES[self.config.distillation.students]

    @property
    def labelling(self) -> dict[str, Any]:
        """Arguments that all functions of labelling take."""
        return {"precision": self.precision, "batch_tokens": self.config.distillation.batch_tokens}

    def combine(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """Make one set of labels of all PLMs', as `distillation.combine` says; the paper takes the mean (2.4)."""
        return combine(labels, self.config.distillation.combine, [model.weight for model in self.models.values()])

    def describe(self, pairs: int, processes: int) -> list[str]:
        """How long the trainings are, a line for each kind of encoder of each PLM."""
        lines = []
        for name, model in self.models.items():
            for kind, encoder in sorted(model.encoders.items(), reverse=True):
                training = encoder.training
                batch, epochs = batch_size(training, processes), float(training["num_train_epochs"])
                steps = _steps(training, pairs, processes)
                length = f"{steps:,} steps of {batch} pairs"
                if encoder.grows:
                    length = f"about {length} of the pool and random ones of its sentences"
                elif encoder.length_key == "num_train_epochs":
                    length = f"about {length}, {epochs:g} epoch{'s' * (epochs != 1)}"
                how = f"learning rate {training['learning_rate']:g}, {precision_of(training)}"
                lines.append(f"{name}: each of {self.cycles} {kind}s: {length}, {how}")
        return lines

    def describe_unused(self) -> list[str]:
        """Which of the models that are named no encoder starts from."""
        return [
            f"{model.name}: with distillation.init: sequential cross-encoders start from the bi-encoders' weights; "
            f"models.cross_encoder, {model.cross_encoder}, is not used"
            for model in self.config.models
            if starts_from_teachers(self.config) and model.cross_encoder != model.bi_encoder
        ]

    def pairs_to_mine(self, sentences: int) -> int:
        """How many pairs are mined of so many sentences."""
        return self.config.mining.pairs or min(2 * sentences, MOST_MINED)

    def anchors(self, sentences: int) -> int:
        """How many of so many sentences look for partners: as many as pairs are mined."""
        return min(self.pairs_to_mine(sentences), sentences)

    def fit(self, pairs: int, processes: int) -> DistillationPlan:
        """The plan for a pool of so many pairs; to fit it twice changes nothing.

        Cross-encoders learn from a small one for more epochs and in larger steps; where health decides, from a very
        small one random pairs of its sentences, too. Without gold, the students of a large one are kept where all
        starts are plain PLMs after step 0.
        """
        plan = self._fit_cross_encoders(pairs, processes)
        steps0 = [model.step0 for model in self.models.values()]
        have_seen_no_label = all(step0 is not None and not step0.start.layout.modules for step0 in steps0)
        may_trust = have_seen_no_label and pairs >= LEAST_TO_TRUST and self._are_pairs_trusted
        if self.selector == "health" and self.kinds == KINDS and may_trust:
            return replace(plan, may_keep_start=False)
        return plan

    @property
    def _are_pairs_trusted(self) -> bool:
        """Whether the pairs are given, or all mined by sources whose pairs were good for both kinds of students."""
        has_documents = self.config.data.document is not None
        sources = {source for source in self.config.mining.sources if source != "document" or has_documents}
        return not self.config.mines or (self.config.mines_all and sources == TRUSTED_SOURCES)

    def check_batches(self, pairs: int, processes: int) -> None:
        """Refuse to leave out what fills no step where a pool of so many pairs does not fill one."""
        learnt = pairs - held_out_pairs(pairs, self.held_out)
        for model in self.models.values():
            for encoder in model.encoders.values():
                training = encoder.training
                read, step = pairs_read(training, learnt), batch_size(training, processes)
                if training.get("dataloader_drop_last") and read < step and not encoder.grows:
                    raise InputError(
                        f"{encoder.section}.dataloader_drop_last: a step takes {step:,} pairs, and there are {read:,}; "
                        f"set it to false, or lower {encoder.section}.per_device_train_batch_size"
                    )

    def _fit_cross_encoders(self, pairs: int, processes: int) -> DistillationPlan:
        given, grows = self.config.cross_encoder.training.keys(), False
        paper, models = paper_arguments("cross-encoder", self.config.distillation.task), dict(self.models)
        for name, model in models.items():
            if encoder := model.encoders.get("cross-encoder"):
                training = dict(encoder.training)
                if not {"num_train_epochs", "max_steps"} & given:
                    read, batch = pairs_read(training, pairs), batch_size(training, processes)
                    training["num_train_epochs"] = fitted_epochs(paper["num_train_epochs"], read, batch)
                    grows = self.selector == "health" and not self.config.mines and pairs < GROWS_AT_ONCE
                    if grows:
                        training["num_train_epochs"] *= GROWN_LENGTH
                if "learning_rate" not in given:
                    size, steps = _hidden_size(encoder.start), _steps(training, pairs, processes)
                    rate = fitted_learning_rate(paper["learning_rate"], size)
                    layers = int(getattr(encoder.start.config, "num_hidden_layers", PAPER_LAYERS))
                    training["learning_rate"] = raised_learning_rate(rate, size, layers, steps)
                fitted = replace(encoder, training=training, grows=grows)
                models[name] = replace(model, encoders=model.encoders | {"cross-encoder": fitted})
        return replace(self, models=models)


def make_plan(config: RunConfig, processes: int) -> DistillationPlan:
    """Work out what a configuration means, and let the Hub's names mean the same commits on all ranks.

    Raises:
        InputError: There is no such model, or a training key has a value that it cannot have.
    """
    check_section("bi_encoder", config.bi_encoder)
    check_section("cross_encoder", config.cross_encoder)
    starts = [getattr(model, section_of(kind)) for model in config.models for kind in trained_kinds(config)]
    commits = pin_commits(starts, data_sources(config))
    distillation = config.distillation
    is_auto = distillation.selection == "auto"
    automatic: Selector = "dev" if config.data.dev else "health"
    selector = automatic if distillation.selection == "auto" else distillation.selection
    by_health = selector == "health"
    without_gold = CYCLES_OF_MINED_PAIRS if config.mines_all else CYCLES_WITHOUT_GOLD
    return DistillationPlan(
        config=config,
        selector=selector,
        may_keep_start=is_auto,
        held_out=HELD_OUT * (is_auto or by_health) if distillation.held_out is None else distillation.held_out,
        models={model.name: _plan_model(config, model, processes) for model in config.models},
        kinds=trained_kinds(config),
        cycles=distillation.cycles or (without_gold if by_health else CYCLES[distillation.task]),
        precision=resolve_precision(distillation.precision),
        commits=commits,
        keeps_all_cycles=distillation.keep_cycles or distillation.selection == "agreement",
    )


def trained_kinds(config: RunConfig) -> tuple[Kind, ...]:
    """Kinds of encoders that a cycle trains."""
    return KINDS if config.distillation.students == "both" else ("bi-encoder",)


def starts_from_teachers(config: RunConfig) -> bool:
    """Whether cross-encoders are trained that start from bi-encoders' weights, and not from a model's of their own."""
    return config.distillation.init == "sequential" and config.distillation.students == "both"


def data_sources(config: RunConfig) -> list[ReadSource]:
    """What a run reads texts and gold scores from, each with the folder that benchmark sets would lie in."""
    data = config.data
    sources = [*data.pool, *data.sentences, *data.extra, data.dev, *data.test]
    found: list[ReadSource] = [(source, data.dir) for source in sources]
    if config.step0 is not None:
        found += [(source, config.step0.data.dir or data.dir) for source in config.step0.data.sentences]
    return found


def _plan_model(config: RunConfig, model: ModelConfig, processes: int) -> ModelPlan:
    size = config.distillation.size
    if size == "auto":
        size = "large" if _hidden_size(resolve_checkpoint(model.bi_encoder)) >= LARGE else "base"
    step0 = None
    if config.step0 is not None:
        section = config.step0.contrastive
        # where its file names none, the run's hold
        named: dict[str, Any] = {
            "prompt": config.bi_encoder.prompt if section.prompt is None else section.prompt,
            "precision": section.precision or config.distillation.precision,
            "attn_implementation": section.attn_implementation or config.bi_encoder.attn_implementation,
        }
        step0 = plan_contrastive(model.bi_encoder, replace(section, **named), processes)
    encoders = {kind: _plan_encoder(config, model, kind, size, processes) for kind in trained_kinds(config)}
    if step0 is not None and config.bi_encoder.prompt is None:
        # the bi-encoder that step 0 makes is saved with its prompt
        encoders["bi-encoder"] = replace(encoders["bi-encoder"], prompt=step0.prompt_text)
    return ModelPlan(model.name, 1.0 if model.weight is None else model.weight, encoders, step0)


def _plan_encoder(config: RunConfig, model: ModelConfig, kind: Kind, size: Size, processes: int) -> EncoderPlan:
    section = getattr(config, section_of(kind))
    start = resolve_checkpoint(getattr(model, "bi_encoder" if starts_from_teachers(config) else section_of(kind)))
    training = paper_arguments(kind, config.distillation.task, size)
    if kind == "cross-encoder":
        training["learning_rate"] = fitted_learning_rate(training["learning_rate"], _hidden_size(start))
    batch = max(1, training["per_device_train_batch_size"] // processes)
    training |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 1}
    is_float32 = section.training.get("bf16") is False or section.training.get("fp16") is False
    training["precision"] = "float32" if is_float32 else config.distillation.precision
    training |= {name: getattr(section, name) for name in TRAINER_KEYS if hasattr(section, name)}
    training |= section.training
    plan = EncoderPlan(kind, start, section.max_length, training, attn_implementation=section.attn_implementation)
    if kind == "cross-encoder":
        return plan
    return replace(plan, pooling=model.pooling or config.bi_encoder.pooling, prompt=config.bi_encoder.prompt)


def batch_size(training: dict[str, Any], processes: int) -> int:
    """Pairs of an optimiser step, of all processes."""
    return int(processes * training["per_device_train_batch_size"] * (training["gradient_accumulation_steps"] or 1))


def pairs_read(training: dict[str, Any], pairs: int) -> int:
    """Pairs that an epoch goes through."""
    return pairs * (2 if training.get("both_orders") else 1)


def _steps(training: dict[str, Any], pairs: int, processes: int) -> int:
    """Optimiser steps of a training on so many pairs."""
    batches = -(-pairs_read(training, pairs) // batch_size(training, processes))
    steps = training.get("max_steps", -1)
    return int(steps) if steps > 0 else math.ceil(batches * float(training["num_train_epochs"]))


def _hidden_size(checkpoint: Checkpoint) -> int:
    return int(getattr(checkpoint.config, "hidden_size", PAPER_HIDDEN_SIZE))
