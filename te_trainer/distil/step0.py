"""Contrastive training as the first stage of a run: its bi-encoders then start from what it makes of the plain PLMs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from te_trainer.config.schema import RunConfig
from te_trainer.contrastive.preparation import read_sentences
from te_trainer.contrastive.stage import ContrastiveSettings
from te_trainer.data import SentenceManifest
from te_trainer.errors import InputError


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
def step0_sentences(
    config: RunConfig, final: Path, pool_folder: Path, processes: int
) -> Iterator[SentenceManifest | None]:
    """Give the sentences of step 0, if the run has one, as `read_sentences` does.

    Args:
        pool_folder: Where the run's pool is at this moment; without sources of its own, step 0 takes its sentences.

    Raises:
        InputError: A source cannot be read or has changed, or there are fewer sentences than one batch holds.
    """
    if config.step0 is None:
        yield None
        return
    data = config.step0.data
    with read_sentences(data, final, data.dir or config.data.dir, config.seed, pool_folder) as sentences:
        step0_settings(config).check_batch(sentences.num_rows, processes)
        yield sentences


def resolved_step0(config: RunConfig, world_size: int) -> dict[str, Any]:
    """What step 0's settings mean, as `run.yaml` holds them."""
    settings = step0_settings(config)
    return settings.training(world_size) | settings.encoder
