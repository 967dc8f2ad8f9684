"""Which encoder of a finished run is for what, where the run's folder is named as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from te_trainer.config.types import Kind
from te_trainer.errors import InputError
from te_trainer.runs.finished import finished_results
from te_trainer.runs.layout import RunLayout

Use = Literal["pairs", "sentences", "rerank"]  # what an encoder of a run is for


def choose_encoder(folder: Path, use: Use, key: str) -> tuple[Path, str]:
    """The folder of the encoder of a finished run that is for a use, and why it was chosen.

    Sentences are searched with the bi-encoder, and a cross-encoder orders what was found. Pairs are scored by the
    cross-encoder if it is as good as the start (`is_as_good_as_start`), else by the bi-encoder. `key` is what names the
    run's folder in the configuration.

    Raises:
        InputError: The run is not finished, has several PLMs, or kept no such encoder.
    """
    layout = RunLayout(folder)
    results = finished_results(folder, key)
    if "cycles" not in results:
        if use != "rerank" and (layout.contrastive_encoder / "config.json").is_file():
            return layout.contrastive_encoder, "it is the run's only encoder"
        raise InputError(f"{key}: {folder} holds no run with such an encoder; name a model")
    names = [name for name in results["final"] if name != "ensemble"]
    if len(names) > 1:
        folders = ", ".join(str(folder / name) for name in names)
        raise InputError(f"{key}: the run in {folder} has several models; name an encoder of {folders}")
    kept = results["final"][names[0]]
    kind, why = _kind_for(use, kept)
    if kind not in kept:
        raise InputError(f"{key}: the run in {folder} kept no {kind}; name another model")
    return layout.kept_encoder(names[0], kind), why


def _kind_for(use: Use, kept: dict[Kind, dict[str, bool]]) -> tuple[Kind, str]:
    """Which encoder of those that were kept is for this use, and why."""
    if use == "sentences":
        return "bi-encoder", "it has vectors to search by"
    if "cross-encoder" not in kept:
        return ("cross-encoder" if use == "rerank" else "bi-encoder"), "the run kept no cross-encoder"
    if kept["cross-encoder"]["as_good_as_start"]:
        return "cross-encoder", "it is as good as the start"
    if use == "rerank":
        return "cross-encoder", "it is the only one, though not known to be as good as the start"
    return "bi-encoder", "the cross-encoder is not known to be as good as the start"
