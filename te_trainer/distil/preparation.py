"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from te_trainer.config.schema import RunConfig
from te_trainer.data import GoldSet, PoolManifest, build_pool
from te_trainer.distil.settings import (
    check_training_values,
    cycles_of,
    keeps_all_cycles,
    kinds_of,
    max_length_of,
    start_of,
    training_values,
)
from te_trainer.distil.step0 import check_step0, resolved_step0, step0_sentences
from te_trainer.files.atomic import atomic_folder
from te_trainer.models import BiEncoder, CrossEncoder, resolve_checkpoint
from te_trainer.models.lora import adapted_on_meta, parameter_counts
from te_trainer.runs.checks import check_loggers, check_space, gold_fingerprints, refuse_changed_files
from te_trainer.runs.commits import Source, hub_commits, pin_commits
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, RunManifest


def check_models(config: RunConfig) -> None:
    """Refuse models, training values and loggers that cannot be used.

    Raises:
        InputError: an unknown model, a checkpoint of the wrong kind, a tokenizer without padding, a wrong value.
    """
    check_training_values(config)
    pin_commits(model_names(config), data_sources(config))
    for model in config.models:
        pooling = model.pooling or config.bi_encoder.pooling
        BiEncoder.check(
            model.bi_encoder,
            pooling,
            max_length=max_length_of(config, "bi-encoder"),
            prompt=config.bi_encoder.prompt,
            section="bi_encoder.",
        )
        if "cross-encoder" in kinds_of(config):
            CrossEncoder.check(str(model.cross_encoder), max_length_of(config, "cross-encoder"), "cross_encoder.")
        if config.lora.rank:
            for kind in kinds_of(config):
                adapted_on_meta(resolve_checkpoint(start_of(model, kind)), kind, config.lora)
    check_step0(config)
    check_loggers(config.report_to)


def prepare_pool(manifest: RunManifest[RunConfig], dev: GoldSet | None = None, tests: Sequence[GoldSet] = ()) -> None:
    """Build the pool in the output folder and write `run.yaml`, or see that they are still what the run began with.

    `run.yaml` comes first: it makes the folder a run's, whenever the process is killed.

    Args:
        dev: Set that chooses checkpoints and cycles.
        tests: Sets that are reported on.

    Raises:
        InputError: A source cannot be read, or a source, a model or a gold score has changed since the run began.
    """
    config = manifest.config
    fixed = [*gold_fingerprints(dev, tests), *model_fingerprints(config)]
    manifest.refuse_changes(fixed)
    layout = manifest.layout
    with (
        _read_pool(config, layout) as (pool, folder),
        step0_sentences(config, layout.sentences, folder, manifest.processes) as sentences,
    ):
        texts = [Fingerprint(("pool", "fingerprint"), pool.fingerprint, "data: the texts have")]
        entries: dict[str, Any] = {"pool": {"pairs": pool.num_rows}, "cycles": cycles_of(config)}
        if sentences is not None:
            texts.append(Fingerprint(("step0", "fingerprint"), sentences.fingerprint, "data: the texts have"))
            entries["step0"] = {"sentences": sentences.num_rows}
        entries |= hub_commits(model_names(config), data_sources(config))
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


def check_disk(config: RunConfig, root: Path) -> None:
    """Refuse to begin where checkpoints and encoders will not fit.

    All weights are float32. A checkpoint holds them and AdamW's two moments, and three checkpoints lie there while the
    newest is written; with LoRA, only what is trained is in them. Beside them, each kind of encoder a PLM, of this
    cycle and of the best one, or of all cycles.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    kinds = kinds_of(config)
    kept = cycles_of(config) if keeps_all_cycles(config) else 2
    encoders, trained = 0, 0
    for model in config.models:
        for kind in kinds:
            checkpoint = resolve_checkpoint(start_of(model, kind))
            weights = 4 * checkpoint.empty_model(kind).num_parameters()
            encoders += (kept + 1 + (config.step0 is not None and kind == "bi-encoder")) * weights
            if config.lora.rank:
                weights = 4 * parameter_counts(adapted_on_meta(checkpoint, kind, config.lora))[0]
            trained = max(trained, weights)
    check_space(root, encoders + 3 * 3 * trained)


def resolve_sections(config: RunConfig, processes: int) -> dict[str, Any]:
    """What the sections that train mean, as entries of `run.yaml`."""
    resolved = {
        str(model.name): {kind: training_values(config, model, kind, processes) for kind in kinds_of(config)}
        for model in config.models
    }
    return {"resolved": resolved} | ({} if config.step0 is None else {"step0": resolved_step0(config, processes)})


def model_names(config: RunConfig) -> list[str]:
    """The checkpoints that the encoders of a run start from."""
    return list(dict.fromkeys(start_of(model, kind) for model in config.models for kind in kinds_of(config)))


def data_sources(config: RunConfig) -> list[Source]:
    """What a run reads texts and gold scores from, each with the folder that benchmark sets would lie in."""
    data = config.data
    found = [(source, data.dir) for source in (*data.pool, *data.extra, *([data.dev] if data.dev else []), *data.test)]
    if config.step0 is not None:
        step0 = config.step0.data
        found += [(source, step0.dir or data.dir) for source in step0.sentences]
    return found


def model_fingerprints(config: RunConfig) -> list[Fingerprint]:
    """Of each PLM, the fingerprints of the checkpoints that its encoders start from."""
    return [
        Fingerprint(
            ("models", str(model.name), kind.replace("-", "_")),
            resolve_checkpoint(start_of(model, kind)).fingerprint,
            f"models: the weights of {model.name}'s {kind.replace('-', '_')} have",
        )
        for model in config.models
        for kind in kinds_of(config)
    ]
