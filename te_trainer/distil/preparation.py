"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from te_trainer.config.names import check_set_names
from te_trainer.config.schema import ContrastiveDataConfig, DataConfig, RunConfig, Task
from te_trainer.data import GoldSet, PoolManifest, SentenceManifest, SourceCount, build_pool, load_gold
from te_trainer.data.digests import file_digest
from te_trainer.data.readers import source_file
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
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.models import resolve_checkpoint
from te_trainer.models.bi_encoder import check_bi_encoder
from te_trainer.models.cross_encoder import check_cross_encoder
from te_trainer.models.lora import adapted_on_meta, parameter_counts
from te_trainer.runs.commits import hub_commits, pin_commits
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, Manifest

LOGGER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def check_models(config: RunConfig) -> None:
    """Refuse models, training values and loggers that cannot be used.

    Raises:
        InputError: an unknown model, a checkpoint of the wrong kind, a tokenizer without padding, a wrong value.
    """
    check_training_values(config)
    pin_commits(model_names(config), data_sources(config))
    for model in config.models:
        pooling = model.pooling or config.bi_encoder.pooling
        check_bi_encoder(
            model.bi_encoder,
            pooling,
            key="bi_encoder.pooling",
            max_length=max_length_of(config, "bi-encoder"),
            length_key="bi_encoder.max_length",
            prompt=config.bi_encoder.prompt,
        )
        if "cross-encoder" in kinds_of(config):
            check_cross_encoder(
                str(model.cross_encoder), max_length_of(config, "cross-encoder"), "cross_encoder.max_length"
            )
        if config.lora.rank:
            for kind in kinds_of(config):
                adapted_on_meta(resolve_checkpoint(start_of(model, kind)), kind, config.lora)
    check_step0(config)
    check_loggers(config.report_to)


def check_loggers(loggers: Sequence[str]) -> None:
    """Refuse loggers that are not installed.

    Raises:
        InputError: names the package.
    """
    for logger in loggers:
        if importlib.util.find_spec(LOGGER_PACKAGES[logger]) is None:
            raise InputError(f"report_to: {logger} is not installed; pip install {LOGGER_PACKAGES[logger]}")


def load_gold_sets(
    data: DataConfig | ContrastiveDataConfig, task: Task = "sts"
) -> tuple[GoldSet | None, list[GoldSet]]:
    """The dev set and the test sets.

    Raises:
        InputError: a set cannot be read or its scores cannot rank, or a set has a name that it cannot have.
    """
    if data.dir is not None and not Path(data.dir).is_dir():
        raise InputError(f"data.dir: {data.dir} is no folder")
    dev = load_gold(data.dev, "dev", data.columns, data.dir) if data.dev else None
    tests = [load_gold(source, "test", data.columns, data.dir) for source in data.test]
    check_set_names([gold.name for gold in [dev] if gold is not None], "data.dev", taken=())
    check_set_names([gold.name for gold in tests], "data.test")
    if task == "binary":
        for gold in [*([dev] if dev else []), *tests]:
            if not set(gold.scores) <= {0.0, 1.0}:
                raise InputError(
                    f"{gold.name}: distillation.task is 'binary', but gold scores other than 0 and 1 are in it"
                )
    return dev, tests


def gold_fingerprints(dev: GoldSet | None, tests: Sequence[GoldSet]) -> list[Fingerprint]:
    """A hash of the rows of each set with gold scores."""
    sets = [*([("dev", dev)] if dev is not None else []), *(("test", gold) for gold in tests)]
    return [
        Fingerprint(("gold", role, gold.name), gold.fingerprint(), f"data.{role}: the rows of {gold.name} have")
        for role, gold in sets
    ]


def describe_gold(dev: GoldSet | None, tests: list[GoldSet]) -> list[str]:
    """The sets' sizes, a line each, to print before work starts."""
    named = [("dev", dev)] * (dev is not None) + [("test", gold) for gold in tests]
    return [
        line
        for role, gold in named
        if gold is not None
        for line in (
            f"{role}: {gold.name}: {len(gold):,} pairs with gold scores, {gold.unscored:,} without dropped",
            *(f"{role}: {note}" for note in gold.notes),
        )
    ]


def prepare_pool(manifest: Manifest[RunConfig], dev: GoldSet | None = None, tests: Sequence[GoldSet] = ()) -> None:
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
    with _texts(config, manifest.layout, manifest.processes) as (pool, sentences):
        texts = [Fingerprint(("pool", "fingerprint"), pool.fingerprint, "data: the texts have")]
        entries: dict[str, Any] = {"pool": {"pairs": pool.num_rows}, "cycles": cycles_of(config)}
        if sentences is not None:
            texts.append(Fingerprint(("step0", "fingerprint"), sentences.fingerprint, "data: the texts have"))
            entries["step0"] = {"sentences": sentences.num_rows}
        entries |= hub_commits(model_names(config), data_sources(config))
        manifest.begin_or_continue([*texts, *fixed], **entries)


@contextlib.contextmanager
def _texts(
    config: RunConfig, layout: RunLayout, processes: int
) -> Iterator[tuple[PoolManifest, SentenceManifest | None]]:
    """Give the pool, and the sentences of step 0; what is built is in its place when the block ends well."""
    root, data = layout.root, config.data
    if layout.pool.exists():
        pool, sentences = PoolManifest.load(layout.pool)[0], None
        refuse_changed(pool.sources, data.dir, root)
        if config.step0 is not None:
            sentences, _ = SentenceManifest.load(layout.sentences, delete=layout.pool)
            refuse_changed(sentences.sources, config.step0.data.dir or data.dir, root)
        yield pool, sentences
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
        with step0_sentences(config, layout.sentences, folder, processes) as sentences:
            yield pool, sentences


def refuse_changed(sources: Sequence[SourceCount], folder: str | None, root: Path) -> None:
    """Refuse to go on with files that are not those a run began with.

    Raises:
        InputError: names the file.
    """
    for count in sources:
        file = source_file(count.source, folder)
        if file is not None and file_digest(file) != count.sha256:
            raise InputError(f"{file}: the file has changed since the run in {root} began; name another output_dir")


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


def check_space(root: Path, needed: int) -> None:
    """Refuse to begin where so many bytes are not free.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    place = next(path for path in [root.absolute(), *root.absolute().parents] if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"output_dir: {root} needs about {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; make room, or name "
            "a folder on another disk"
        )


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


def data_sources(config: RunConfig) -> list[tuple[str, str | None]]:
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
