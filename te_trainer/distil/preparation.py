"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from te_trainer.config.schema import RunConfig
from te_trainer.contrastive.preparation import read_sentences
from te_trainer.data import GoldSet, PoolManifest, SentenceManifest, build_pool
from te_trainer.distil.plan import DistillationPlan, data_sources, start_names
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.lora import adapted_on_meta, parameter_counts
from te_trainer.runs.checks import check_loggers, check_space, gold_fingerprints, refuse_changed_files
from te_trainer.runs.commits import hub_commits
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, RunManifest


def check_models(plan: DistillationPlan) -> None:
    """Refuse models and loggers that cannot be used.

    Raises:
        InputError: A checkpoint of the wrong kind, a tokenizer without padding, a length that a model does not have.
    """
    for model in plan.models.values():
        for kind, encoder in model.encoders.items():
            if kind == "cross-encoder":
                CrossEncoder.check(encoder.start, encoder.max_length, "cross_encoder.")
            else:
                BiEncoder.check(
                    encoder.start,
                    encoder.pooling,
                    max_length=encoder.max_length,
                    prompt=encoder.prompt,
                    section="bi_encoder.",
                )
            if plan.config.lora.rank:
                adapted_on_meta(encoder.start, kind, plan.config.lora)
        if model.step0 is not None:
            model.step0.check()
            pooling, trained = model.encoders["bi-encoder"].pooling, model.step0.section.pooling
            if pooling not in {None, trained}:
                raise InputError(
                    f"distillation.step0: contrastive.pooling is {trained}, but {model.name}'s pooling is {pooling}; "
                    "set both to the same"
                )
    check_loggers(plan.config.report_to)


def prepare_pool(manifest: RunManifest[RunConfig], dev: GoldSet | None = None, tests: Sequence[GoldSet] = ()) -> None:
    """Build the pool in the output folder and write `run.yaml`, or see that they are still what the run began with.

    `run.yaml` comes first: it makes the folder a run's, whenever the process is killed.

    Args:
        dev: Set that chooses checkpoints and cycles.
        tests: Sets that are reported on.

    Raises:
        InputError: A source cannot be read, or a source, a model or a gold score has changed since the run began.
    """
    config, plan = manifest.config, manifest.plan
    fixed = [*gold_fingerprints(dev, tests), *model_fingerprints(plan)]
    manifest.refuse_changes(fixed)
    layout = manifest.layout
    with (
        _read_pool(config, layout) as (pool, folder),
        read_step0_sentences(plan, layout.sentences, folder) as sentences,
    ):
        texts = [Fingerprint(("pool", "fingerprint"), pool.fingerprint, "data: the texts have")]
        entries: dict[str, Any] = {"pool": {"pairs": pool.num_rows}, "cycles": plan.cycles}
        if sentences is not None:
            texts.append(Fingerprint(("step0", "fingerprint"), sentences.fingerprint, "data: the texts have"))
            entries["step0"] = {"sentences": sentences.num_rows}
        entries |= hub_commits(start_names(config), data_sources(config))
        manifest.begin_or_continue([*texts, *fixed], **entries)


@contextlib.contextmanager
def _read_pool(config: RunConfig, layout: RunLayout) -> Iterator[tuple[PoolManifest, Path]]:
    """Give the pool and the folder that it lies in; a pool that is built is in its place when the block ends well."""
    data = config.data
    if layout.pool.exists():
        pool, _ = PoolManifest.load(layout.pool)
        refuse_changed_files(pool.sources, data.dir, layout.root)
        yield pool, layout.pool
        return
    with atomic_folder(layout.pool) as folder:
        pool = build_pool(
            data.pool,
            folder,
            columns=data.columns,
            benchmark_folder=data.dir,
            max_pairs=data.max_pairs,
            extra=data.extra,
            extra_pairs=data.extra_pairs,
            seed=config.seed,
        )
        yield pool, folder


@contextlib.contextmanager
def read_step0_sentences(plan: DistillationPlan, final: Path, pool: Path) -> Iterator[SentenceManifest | None]:
    """Give the sentences of step 0, if the run has one, as `read_sentences` does.

    Args:
        pool: Where the run's pool is at this moment; without sources of its own, step 0 takes its sentences.
    """
    config = plan.config
    if config.step0 is None:
        yield None
        return
    data = config.step0.data
    with read_sentences(data, final, data.dir or config.data.dir, config.seed, pool) as sentences:
        for model in plan.models.values():
            if model.step0 is not None:
                model.step0.check_batch(sentences.num_rows)
        yield sentences


def check_disk(plan: DistillationPlan, root: Path) -> None:
    """Refuse to begin where checkpoints and encoders will not fit.

    All weights are float32. A checkpoint holds them and AdamW's two moments, and three checkpoints lie there while the
    newest is written; with LoRA, only what is trained is in them. Beside them, each kind of encoder a PLM, of this
    cycle and of the best one, or of all cycles.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    kept = plan.cycles if plan.keeps_all_cycles else 2
    encoders, trained = 0, 0
    for model in plan.models.values():
        for kind, encoder in model.encoders.items():
            weights = 4 * encoder.start.empty_model(kind).num_parameters()
            encoders += (kept + 1 + (model.step0 is not None and kind == "bi-encoder")) * weights
            if plan.config.lora.rank:
                weights = 4 * parameter_counts(adapted_on_meta(encoder.start, kind, plan.config.lora))[0]
            trained = max(trained, weights)
    check_space(root, encoders + 3 * 3 * trained)


def model_fingerprints(plan: DistillationPlan) -> list[Fingerprint]:
    """Of each PLM, the fingerprints of the checkpoints that its encoders start from."""
    return [
        Fingerprint(
            ("models", model.name, encoder.section),
            encoder.start.fingerprint,
            f"models: the weights of {model.name}'s {encoder.section} have",
        )
        for model in plan.models.values()
        for encoder in model.encoders.values()
    ]
