"""Weights that are added to saved ones, and those of a repository whose place saved ones take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from te_trainer.files.atomic import atomic_file

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")
# What transformers and peft look for in a folder, and save there, whole or in shards.
WEIGHTS = re.compile(
    r"(model|pytorch_model)((-\d+-of-\d+)?\.(safetensors|bin)|\.(safetensors|bin)\.index\.json)|"
    + "|".join(map(re.escape, ADAPTER_FILES)),
    re.ASCII,
)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Save a model."""
    remove_adapter(folder)
    model.save_pretrained(folder)


def remove_adapter(folder: Path) -> None:
    """Remove an adapter, which would be put on the weights that are saved in the folder by whoever loads them."""
    for file in ADAPTER_FILES:
        (folder / file).unlink(missing_ok=True)


def replaced_weights(folder: Path, present: Iterable[str], beside: str | None = None) -> list[str]:
    """Files of a repository that an upload takes the place of: a loader would take them instead of the new weights.

    Args:
        folder: What is uploaded.
        present: Paths of the repository's files.
        beside: A folder beside weights that is replaced with them.
    """
    uploaded = {PurePosixPath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    replaced = {path.parent for path in uploaded if WEIGHTS.fullmatch(path.name)}
    if beside is not None:
        replaced |= {parent / beside for parent in replaced}
    there = map(PurePosixPath, present)
    return sorted(
        str(path) for path in there if WEIGHTS.fullmatch(path.name) and path.parent in replaced and path not in uploaded
    )


def add_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Add weights to those that `save_pretrained` has written into a folder."""
    path = folder / "model.safetensors"
    # an adapter and an engine's own format have no such file; shards begin at 50 GB, which no model with a pooler has
    if weights and path.is_file():
        with atomic_file(path) as partial:
            save_file({**load_file(path), **weights}, partial, metadata={"format": "pt"})
