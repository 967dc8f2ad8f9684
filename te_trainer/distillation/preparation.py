"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from te_trainer.config.schema import RunConfig
from te_trainer.contrastive.preparation import read_sentences
from te_trainer.data import GoldSet, PoolManifest, SentenceManifest, build_pool
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.lora import parameter_counts, put_adapters
from te_trainer.runs.checks import gold_fingerprints, refuse_changed_files
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, RunManifest


def check_models(plan: DistillationPlan) -> int:
    """Refuse models that cannot be used.

    Returns:
        Bytes that the run's encoders and checkpoints take. All weights are float32. A checkpoint holds them and AdamW's
        two moments, and three checkpoints lie there while the newest is written; with LoRA, only what is trained is in
        them. Beside them, each kind of encoder a PLM, of this cycle and of the best one, or of all cycles.

    Raises:
        InputError: A checkpoint of the wrong kind, a tokenizer without padding, a length that a model does not have.
    """
    lora, kept = plan.config.lora, plan.cycles if plan.keeps_all_cycles else 2
    encoders, trained = 0, 0
    for model in plan.models.values():
        for kind, encoder in model.encoders.items():
            start, length = encoder.start, encoder.max_length
            if kind == "cross-encoder":
                CrossEncoder.check(start, length, "cross_encoder.")
            else:
                prompt = encoder.prompt
                BiEncoder.check(start, encoder.pooling, max_length=length, prompt=prompt, section="bi_encoder.")
            empty = start.empty_model(kind)
            weights = 4 * empty.num_parameters()
            encoders += (kept + 1 + (model.step0 is not None and kind == "bi-encoder")) * weights
            if lora.rank:
                weights = 4 * parameter_counts(put_adapters(empty, kind, lora, start.name))[0]
            trained = max(trained, weights)
        if model.step0 is not None:
            model.step0.check()
            pooling, trained_pooling = model.encoders["bi-encoder"].pooling, model.step0.section.pooling
            if pooling not in {None, trained_pooling}:
                raise InputError(
                    f"distillation.step0: contrastive.pooling is {trained_pooling}, but {model.name}'s pooling is "
                    f"{pooling}; set both to the same"
                )
    return encoders + 3 * 3 * trained


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
    layout = manifest.layout
    with (
        _read_pool(config, layout) as (pool, folder),
        read_step0_sentences(plan, layout.sentences, folder) as sentences,
    ):
        texts = [Fingerprint(("pool", "fingerprint"), pool.fingerprint, "data: the texts have")]
        manifest.plan = plan = plan.fit(pool.num_rows, manifest.processes)
        entries: dict[str, Any] = {"pool": {"pairs": pool.num_rows}, "cycles": plan.cycles}
        if sentences is not None:
            texts.append(Fingerprint(("step0", "fingerprint"), sentences.fingerprint, "data: the texts have"))
            entries["step0"] = {"sentences": sentences.num_rows}
        fixed = [*gold_fingerprints(dev, tests), *model_fingerprints(plan)]
        manifest.begin_or_continue([*texts, *fixed], **entries, **plan.commits)


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
