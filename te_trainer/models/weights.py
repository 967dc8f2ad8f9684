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

from te_trainer.errors import InputError
from te_trainer.models.json_files import read_json
from te_trainer.models.locate import SMALL_FILES, WEIGHT_FILES

ADAPTER_CONFIG = "adapter_config.json"
LFS_POINTER = b"version https://git-lfs"
FEW_LAYERS = 64  # that are no reason to doubt a configuration, as in models whose layers share their weights
# Of models' layers, what older versions of transformers saved although it follows from the configuration.
BUFFERS = re.compile(r"(inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias|relative_position_index)$")

Shapes = dict[str, tuple[int, ...]]


def check_files(name: str, folder: str | Path) -> Shapes:
    """Refuse a checkpoint whose weights are not there, or cannot be read.

    Returns:
        the weights' shapes, as their files' headers tell them.

    Raises:
        InputError: names the file.
    """
    folder = Path(folder)
    file = next((file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if file is None:
        raise InputError(f"model {name}: the folder or repository holds no weights (model.safetensors)")
    files = _shards(name, folder, file) if file.endswith(".json") else [file]
    shapes: Shapes = {}
    for file in files:
        shapes |= _shapes(name, folder / file)
    return shapes


def refuse_stand_ins(name: str, folder: str | Path) -> None:
    """Refuse a folder that holds an adapter or pointers of git-lfs in place of a model.

    Raises:
        InputError: names the file, and says what to do.
    """
    if Path(folder, ADAPTER_CONFIG).is_file():
        raise InputError(
            f"model {name}: the folder holds a peft adapter ({ADAPTER_CONFIG}), not a model; merge it into its base "
            "model (merge_and_unload) and save that"
        )
    # of weights in several formats, and of pictures and the like, people leave what they do not need on the server
    read = [path for pattern in SMALL_FILES for path in sorted(Path(folder).glob(pattern))]
    weights = (Path(folder, file) for file in WEIGHT_FILES)
    for path in [*read, *islice(filter(Path.is_file, weights), 1)]:
        _refuse_pointer(name, path)


def check_weights(
    name: str, auto: Any, folder: str | Path, config: PretrainedConfig, new_head: bool, **arguments: Any
) -> PreTrainedModel:
    """Refuse a checkpoint whose weights are not those of the model that its configuration describes.

    Args:
        auto: the class that will load it, `AutoModel` or another one.
        new_head: whether the model gets a head that its checkpoint never had.
        arguments: for `auto.from_pretrained`.

    Returns:
        the model, on the device `meta`.

    Raises:
        InputError: names the file, or one of the weights.
    """
    shapes = check_files(name, folder)
    layers = getattr(config, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > max(FEW_LAYERS, len(shapes)):
        raise InputError(
            f"model {name}: num_hidden_layers in config.json is {layers:,}, but its file holds {len(shapes):,} "
            "weights; correct config.json, or copy the file again"
        )
    numbers = sum(map(prod, shapes.values()))
    for key in ("vocab_size", "hidden_size", "intermediate_size"):
        size = getattr(config, key, 0)
        if isinstance(size, int) and size > numbers:
            raise InputError(
                f"model {name}: {key} in config.json is {size:,}, but its file holds {numbers:,} numbers in all; "
                "correct config.json, or copy the file again"
            )
    try:
        model, info = auto.from_pretrained(
            folder,
            device_map="meta",
            dtype=torch.float32,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # models raise many kinds for configurations that cannot be
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"model {name}: its configuration and weights make no model ({reason})") from None
    refuse_misfits(name, model, info, new_head)
    return model


def refuse_misfits(name: str, model: PreTrainedModel, info: Mapping[str, Any], new_head: bool) -> None:
    """Refuse a model some of whose weights do not come from its checkpoint, or that lacks some of the checkpoint's.

    New may be a pooler, and a head where `new_head` says so.

    Args:
        info: what `from_pretrained(..., output_loading_info=True)` says.

    Raises:
        InputError: says how many weights, and names one.
    """
    kind = type(model).__name__
    if mismatched := sorted(info["mismatched_keys"]):
        weight, found, expected = mismatched[0]
        raise InputError(
            f"model {name}: {weight} is {_size(found)} in its file, but {_size(expected)} in a {kind} of its "
            "configuration; correct config.json, or copy the file again"
        )
    weights = list(model.state_dict())
    classifies = model.base_model is not model
    left_over = sorted(info["unexpected_keys"])
    missing = [
        key
        for key in weights
        if key in info["missing_keys"] and not _may_be_new(key, model.base_model_prefix, classifies, new_head)
    ]
    if missing:
        instead = f" (it holds {left_over[0]} and others that are not of this model)" if left_over else ""
        raise InputError(
            f"model {name}: its file lacks {len(missing):,} of the {len(weights):,} weights of a {kind}, {missing[0]} "
            f"among them{instead}; save the whole model with save_pretrained, or name another checkpoint"
        )
    prefix = f"{model.base_model_prefix}."
    layers = {found for key in weights if (found := _layers(key.removeprefix(prefix)))}
    extra = [key for key in left_over if _layers(key.removeprefix(prefix)) in layers and BUFFERS.search(key) is None]
    if extra:
        raise InputError(
            f"model {name}: its file holds {len(extra):,} weights that a {kind} of its configuration does not have, "
            f"{extra[0]} among them; correct config.json, or name another checkpoint"
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


def _may_be_new(key: str, prefix: str, classifies: bool, new_head: bool) -> bool:
    in_base = not classifies or key.startswith(f"{prefix}.")
    pooler = in_base and key.removeprefix(f"{prefix}.").startswith("pooler.")
    return (new_head and not in_base) or (pooler and (new_head or not classifies))


def _layers(key: str) -> str | None:
    """The list of layers that a weight belongs to: what stands before the first number in its name."""
    found = re.match(r"(.*?\.)\d+\.", key)
    return found and found[1]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _shards(name: str, folder: Path, file: str) -> list[str]:
    files = (read_json(name, folder, file, dict) or {}).get("weight_map")
    if not isinstance(files, dict) or not files or not all(isinstance(shard, str) for shard in files.values()):
        raise InputError(f"model {name}: {file} names no weight files (weight_map); copy it again")
    for shard in sorted(set(files.values())):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise InputError(f"model {name}: {file} names {shard}, which the folder does not hold; copy it")
    return sorted(set(files.values()))


def _refuse_pointer(name: str, path: Path) -> None:
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
        raise InputError(f"model {name}: {path.name} is a git-lfs pointer to the file, not the file; run git lfs pull")


def _shapes(name: str, path: Path) -> Shapes:
    _refuse_pointer(name, path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        weights = torch.load(path, map_location="meta", weights_only=True)
        return {key: tuple(weight.shape) for key, weight in weights.items()}
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(f"model {name}: {path.name} is broken ({reason}); copy it again") from None
    except Exception:  # unpickling what somebody else wrote raises anything
        raise InputError(
            f"model {name}: {path.name} is broken, or holds more than weights (a whole pickled module, which "
            "te_trainer does not load); copy it again, or save the model with save_pretrained"
        ) from None
