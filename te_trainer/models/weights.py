"""What a checkpoint's weight files hold, and whether that is the model of its configuration; no weight is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from te_trainer.models.checkpoint_files import CheckpointFiles, first_line
from te_trainer.models.locate import SMALL_FILES, WEIGHT_FILES

ADAPTER_CONFIG = "adapter_config.json"
LFS_POINTER = b"version https://git-lfs"
FEW_LAYERS = 64  # that are no reason to doubt a configuration, as in models whose layers share their weights
# Of models' layers, what older versions of transformers saved although it follows from the configuration.
BUFFERS = re.compile(r"(inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias|relative_position_index)$")
LAYER_LIST = re.compile(r"(.*?\.)\d+\.")  # what stands before the first number in a weight's name

Shapes = dict[str, tuple[int, ...]]


def refuse_stand_ins(files: CheckpointFiles) -> None:
    """Refuse a folder that holds an adapter or pointers of git-lfs in place of a model.

    Raises:
        InputError: Names the file, and says what to do.
    """
    if (files.folder / ADAPTER_CONFIG).is_file():
        raise files.refusal(
            f"the folder holds a peft adapter ({ADAPTER_CONFIG}), not a model; merge it into its base model "
            "(merge_and_unload) and save that"
        )
    # of weights in several formats, and of pictures and the like, people leave what they do not need on the server
    read = [path for pattern in SMALL_FILES for path in sorted(files.folder.glob(pattern))]
    weights = (files.folder / file for file in WEIGHT_FILES)
    for path in [*read, *islice(filter(Path.is_file, weights), 1)]:
        _refuse_pointer(files, path)


def check_weight_files(files: CheckpointFiles, config: PretrainedConfig) -> None:
    """Refuse weight files that are missing or broken, and a configuration of more weights than they hold.

    Raises:
        InputError: Names the file or the key.
    """
    shapes = _read_shapes(files)
    numbers = sum(map(prod, shapes.values()))
    bounds = {"num_hidden_layers": (max(FEW_LAYERS, len(shapes)), f"{len(shapes):,} weights")}
    bounds |= dict.fromkeys(
        ("vocab_size", "hidden_size", "intermediate_size"), (numbers, f"{numbers:,} numbers in all")
    )
    for key, (most, content) in bounds.items():
        size = getattr(config, key, 0)
        if isinstance(size, int) and size > most:
            raise files.refusal(
                f"{key} in config.json is {size:,}, but its file holds {content}; correct config.json, or copy the "
                "file again"
            )


def refuse_misfits(files: CheckpointFiles, model: PreTrainedModel, info: Mapping[str, Any], new_head: bool) -> None:
    """Refuse a model some of whose weights do not come from its checkpoint, or that lacks some of the checkpoint's.

    New may be a pooler, and a head where `new_head` says so.

    Args:
        files: The folder of the weights.
        model: The model that was loaded.
        info: What `from_pretrained(..., output_loading_info=True)` says of it.
        new_head: Whether the model gets a head that its checkpoint never had.

    Raises:
        InputError: Says how many weights, and names one.
    """
    kind = type(model).__name__
    if mismatched := sorted(info["mismatched_keys"]):
        weight, saved, expected = mismatched[0]
        raise files.refusal(
            f"{weight} is {_size(saved)} in its file, but {_size(expected)} in a {kind} of its configuration; correct "
            "config.json, or copy the file again"
        )
    weights = list(model.state_dict())
    prefix = f"{model.base_model_prefix}."
    classifies = model.base_model is not model

    def may_be_new(key: str) -> bool:
        in_base = not classifies or key.startswith(prefix)
        pooler = in_base and key.removeprefix(prefix).startswith("pooler.")
        return (new_head and not in_base) or (pooler and (new_head or not classifies))

    def layer_list(key: str) -> str | None:
        match = LAYER_LIST.match(key.removeprefix(prefix))
        return match and match[1]

    left_over = sorted(info["unexpected_keys"])
    if missing := [key for key in weights if key in info["missing_keys"] and not may_be_new(key)]:
        instead = f" (it holds {left_over[0]} and others that are not of this model)" if left_over else ""
        raise files.refusal(
            f"its file lacks {len(missing):,} of the {len(weights):,} weights of a {kind}, {missing[0]} among them"
            f"{instead}; save the whole model with save_pretrained, or name another checkpoint"
        )
    layers = set(map(layer_list, weights)) - {None}
    if extra := [key for key in left_over if layer_list(key) in layers and BUFFERS.search(key) is None]:
        raise files.refusal(
            f"its file holds {len(extra):,} weights that a {kind} of its configuration does not have, {extra[0]} among "
            "them; correct config.json, or name another checkpoint"
        )


def add_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Add weights to those that `save_pretrained` has written into a folder."""
    index_file = folder / "model.safetensors.index.json"
    path = folder / "model.safetensors"
    if not weights or not (path.is_file() or index_file.is_file()):
        return  # of an adapter, or of a model in an engine's own format
    if path.is_file():
        partial = path.with_name(f"partial-{path.name}")
        save_file({**load_file(path), **weights}, partial, metadata={"format": "pt"})
        partial.replace(path)
        return
    shard = "model-pooler.safetensors"
    save_file(dict(weights), folder / shard, metadata={"format": "pt"})
    index = json.loads(index_file.read_text(encoding="utf-8"))
    index["metadata"]["total_size"] += sum(
        weight.nbytes for key, weight in weights.items() if key not in index["weight_map"]
    )
    index["weight_map"] |= dict.fromkeys(weights, shard)
    index_file.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _read_shapes(files: CheckpointFiles) -> Shapes:
    """Shapes of all weights, as the files' headers tell them."""
    file = next((file for file in WEIGHT_FILES if (files.folder / file).is_file()), None)
    if file is None:
        raise files.refusal("the folder or repository holds no weights (model.safetensors)")
    shapes: Shapes = {}
    for shard in _shards(files, file) if file.endswith(".json") else [file]:
        shapes |= _read_shard_shapes(files, files.folder / shard)
    return shapes


def _shards(files: CheckpointFiles, index: str) -> list[str]:
    shards = files.read_mapping(index, {}).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise files.refusal(f"{index} names no weight files (weight_map); copy it again")
    for shard in sorted(set(shards.values())):
        if Path(shard).name != shard or not (files.folder / shard).is_file():
            raise files.refusal(f"{index} names {shard}, which the folder does not hold; copy it")
    return sorted(set(shards.values()))


def _refuse_pointer(files: CheckpointFiles, path: Path) -> None:
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
        raise files.refusal(f"{path.name} is a git-lfs pointer to the file, not the file; run git lfs pull")


def _read_shard_shapes(files: CheckpointFiles, path: Path) -> Shapes:
    _refuse_pointer(files, path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        weights = torch.load(path, map_location="meta", weights_only=True)
        return {key: tuple(weight.shape) for key, weight in weights.items()}
    except (SafetensorError, OSError) as error:
        raise files.refusal(f"{path.name} is broken ({first_line(error)}); copy it again") from None
    except Exception:  # unpickling what somebody else wrote raises anything
        raise files.refusal(
            f"{path.name} is broken, or holds more than weights (a whole pickled module, which te_trainer does not "
            "load); copy it again, or save the model with save_pretrained"
        ) from None
