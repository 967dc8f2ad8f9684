"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

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
from te_trainer.files.atomic import atomic_folder, write_text
from te_trainer.files.records import damaged_run_file_as_input_error, read_run_file
from te_trainer.models import resolve_checkpoint
from te_trainer.models.bi_encoder import check_bi_encoder
from te_trainer.models.cross_encoder import check_cross_encoder
from te_trainer.models.lora import adapted_on_meta, parameter_counts
from te_trainer.runs.commits import commits_of, pin_models, pin_sets, set_commits_of
from te_trainer.runs.continuing import comparable, update_run_file
from te_trainer.runs.environment import library_versions

LOGGER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


def check_models(config: RunConfig) -> None:
    """Refuse models, training values and loggers that cannot be used.

    Raises:
        InputError: an unknown model, a checkpoint of the wrong kind, a tokenizer without padding, a wrong value.
    """
    check_training_values(config)
    pin_models(model_names(config), Path(config.output_dir))
    pin_sets(data_sources(config), Path(config.output_dir))
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


def gold_fingerprints(dev: GoldSet | None, tests: list[GoldSet]) -> dict[str, Any]:
    """What `run.yaml` says of the sets with gold scores: a hash of each one's rows, by role and name."""
    found = {"dev": [dev] if dev is not None else [], "test": tests}
    return {"gold": {role: {gold.name: gold.fingerprint() for gold in sets} for role, sets in found.items()}}


def refuse_changed_gold(found: dict[str, Any], root: Path) -> None:
    """Refuse to go on with gold scores that are not those a run began with.

    Raises:
        InputError: names the set.
    """
    begun = read_run_file(root).get("gold")
    if begun is None:  # runs of earlier versions
        return
    for role, sets in found["gold"].items():
        for name, digest in sets.items():
            with damaged_run_file_as_input_error(root):
                before = begun[role][name]
            if before != digest:
                raise InputError(
                    f"data.{role}: the rows of {name} have changed since the run in {root} began; name another "
                    "output_dir"
                )


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


def prepare_pool(
    config: RunConfig, root: Path, world_size: int, dev: GoldSet | None = None, tests: Sequence[GoldSet] = ()
) -> PoolManifest:
    """Build the pool in the output folder and write `run.yaml`, or find the pool there.

    `run.yaml` comes first: it makes the folder a run's, whenever the process is killed.

    Args:
        dev, tests: what the run is scored on, which may not change while it lasts.

    Raises:
        InputError: a source cannot be read, or a source, a model or a gold score has changed since the run began.
    """
    folder = root / "pool"
    gold = gold_fingerprints(dev, list(tests))
    if (root / "run.yaml").exists():
        refuse_changed_gold(gold, root)
    if folder.exists():
        pool, _ = PoolManifest.load(folder)
        refuse_changed(pool.sources, config.data.dir, root)
        if config.step0 is not None:
            sentences, _ = SentenceManifest.load(root / "sentences", delete=root / "pool")
            refuse_changed(sentences.sources, config.step0.data.dir or config.data.dir, root)
        _refuse_changed_models(config, root)
        update_run_file(root, config, _resolved(config, world_size), world_size)
        return pool
    with atomic_folder(folder) as place:
        pool = build_pool(
            config.data.pool,
            place,
            columns=config.data.columns,
            benchmark_folder=config.data.dir,
            max_pairs=config.data.max_pairs,
            extra=config.data.extra,
            extra_pairs=config.data.extra_pairs,
            seed=config.seed,
        )
        with step0_sentences(config, root, place, world_size) as step0:
            if (root / "run.yaml").exists():
                _refuse_other_texts(pool, step0, root)
                _refuse_changed_models(config, root)
                update_run_file(root, config, _resolved(config, world_size), world_size)
            else:
                write_run_file(config, root, pool, world_size, step0 | gold)
    return pool


def _refuse_other_texts(pool: PoolManifest, step0: dict[str, Any], root: Path) -> None:
    """Refuse a pool and sentences that were read again, where the run began with others."""
    begun = read_run_file(root, "pool", *step0)
    with damaged_run_file_as_input_error(root):
        same = begun["pool"]["fingerprint"] == pool.fingerprint
        same &= all(begun[key]["fingerprint"] == found["fingerprint"] for key, found in step0.items())
    if not same:
        raise InputError(f"data: the texts have changed since the run in {root} began; name another output_dir")


def _refuse_changed_models(config: RunConfig, root: Path) -> None:
    begun = read_run_file(root, "models")["models"]
    for name, kinds in model_fingerprints(config).items():
        for kind, found in kinds.items():
            with damaged_run_file_as_input_error(root):
                before = begun[name][kind]
            if found != before:
                raise InputError(
                    f"models: the weights of {name}'s {kind} have changed since the run in {root} began; name another "
                    "output_dir"
                )


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


def write_run_file(config: RunConfig, root: Path, pool: PoolManifest, world_size: int, more: dict[str, Any]) -> None:
    """Write `run.yaml`: what was configured, what it became, and what it stood on.

    Args:
        more: entries on step 0 and on gold scores.
    """
    content: dict[str, Any] = {
        "config": comparable(config),
        "processes": world_size,
        "resolved": _resolved(config, world_size)["resolved"],
        **more,
        "cycles": cycles_of(config),
        "versions": library_versions(),
        "pool": {"pairs": pool.num_rows, "fingerprint": pool.fingerprint},
        "models": model_fingerprints(config),
        **commits_of(model_names(config)),
        **set_commits_of(data_sources(config)),
    }
    write_text(root / "run.yaml", yaml.safe_dump(content, sort_keys=False))


def _resolved(config: RunConfig, world_size: int) -> dict[str, Any]:
    """What the sections that train mean, as entries of `run.yaml`."""
    of_models = {
        str(model.name): {kind: training_values(config, model, kind, world_size) for kind in kinds_of(config)}
        for model in config.models
    }
    return {"resolved": of_models} | ({} if config.step0 is None else {"step0": resolved_step0(config, world_size)})


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


def model_fingerprints(config: RunConfig) -> dict[str, dict[str, str]]:
    """Of each PLM, the fingerprints of the checkpoints that its encoders start from."""
    return {
        str(model.name): {
            kind.replace("-", "_"): resolve_checkpoint(start_of(model, kind)).fingerprint for kind in kinds_of(config)
        }
        for model in config.models
    }
