"""Contrastive training as the first stage of a run: its bi-encoders then start from what it makes of the plain PLMs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from te_trainer.config.schema import ModelConfig, RunConfig
from te_trainer.contrastive.stage import ContrastiveSettings, ContrastiveStage
from te_trainer.data import PoolManifest, SentenceManifest, build_sentences, sentences_of_pool
from te_trainer.distil.settings import stage_seed
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer


def check_step0(config: RunConfig) -> None:
    """Refuse PLMs and values that contrastive training cannot use.

    Raises:
        InputError: names the key or the model.
    """
    if config.step0 is None:
        return
    settings = step0_settings(config)
    for model in config.models:
        settings.check(model.bi_encoder)
        wanted, made = model.pooling or config.bi_encoder.pooling, settings.encoder["pooling"]
        if wanted not in {None, made}:
            raise InputError(
                f"distillation.step0: contrastive.pooling is {made}, but {model.name}'s pooling is {wanted}; set "
                "both to the same"
            )


def step0_settings(config: RunConfig) -> ContrastiveSettings:
    """What the file's section `contrastive` means; where it names no precision or prompt, the run's hold."""
    assert config.step0 is not None
    section = config.step0.contrastive
    prompt = config.bi_encoder.prompt if section.prompt is None else section.prompt
    precision = section.precision or config.distillation.precision
    return ContrastiveSettings(replace(section, prompt=prompt, precision=precision))


@contextlib.contextmanager
def step0_sentences(config: RunConfig, root: Path, pool_folder: Path, world_size: int) -> Iterator[dict[str, Any]]:
    """Read the sentences of step 0; they are in their place when the block ends well.

    Args:
        pool_folder: where the run's pool is at this moment; without sources of its own, step 0 takes its sentences.

    Returns:
        what `run.yaml` says of them; empty for a run without step 0.

    Raises:
        InputError: a source cannot be read, or there are fewer sentences than one batch holds.
    """
    if config.step0 is None:
        yield {}
        return
    data = config.step0.data
    drawn: dict[str, Any] = {"max_sentences": data.max_sentences, "seed": config.seed}
    with atomic_folder(root / "sentences") as place:
        if data.sentences:
            found = build_sentences(
                data.sentences,
                place,
                column=data.column,
                columns=data.columns,
                split=data.split,
                benchmark_folder=data.dir or config.data.dir,
                **drawn,
            )
        else:
            found = sentences_of_pool(PoolManifest.load(pool_folder)[1], place, **drawn)
        step0_settings(config).check_batch(found.num_rows, world_size)
        resolved = resolved_step0(config, world_size)
        yield {"step0": {**resolved, "sentences": found.num_rows, "fingerprint": found.fingerprint}}


def resolved_step0(config: RunConfig, world_size: int) -> dict[str, Any]:
    """What step 0's settings mean, as `run.yaml` holds them."""
    settings = step0_settings(config)
    return settings.training(world_size) | settings.encoder


def start_path(root: Path, name: str) -> Path:
    """Where step 0 puts a PLM's bi-encoder."""
    return root / "start" / name / "bi-encoder"


def started(config: RunConfig, root: Path, model: ModelConfig) -> ModelConfig:
    """A PLM whose bi-encoder starts from what step 0 made, once that is there."""
    path = start_path(root, str(model.name))
    made = path.exists() and path.with_name(f"{path.name}.training.json").exists()
    return replace(model, bi_encoder=str(path)) if config.step0 is not None and made else model


def step0_work(config: RunConfig, root: Path, pairs: int) -> float:
    """Passes over the pool, backward ones included, that one PLM's step 0 is worth; a sentence is read twice."""
    if config.step0 is None:
        return 0.0
    found, _ = SentenceManifest.load(root / "sentences", delete=root / "pool")
    return 3 * float(step0_settings(config).training(1)["num_train_epochs"]) * found.num_rows / pairs


def step0_stage(
    config: RunConfig, root: Path, model: ModelConfig, scorer: Scorer, progress: RunProgress
) -> ContrastiveStage:
    """The stage that makes a PLM's bi-encoder."""
    name = str(model.name)
    return ContrastiveStage(
        step0_settings(config),
        model.bi_encoder,
        start_path(root, name),
        scorer,
        progress,
        seed=stage_seed(config.seed, 0, "bi-encoder", [each.name for each in config.models].index(model.name)),
        ddp_timeout=config.ddp_timeout,
        report_to=config.report_to,
        run_name=f"{root.resolve().name}-start-{name}",
        group=root.resolve().name,
        log_folder=root / "logs" / "start" / name,
        title=f"step 0 {name}: contrastive training",
        by_dev=config.distillation.selection == "dev",
    )
