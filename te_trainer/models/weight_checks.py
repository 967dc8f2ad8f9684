"""Whether a checkpoint's weights are those of the model of its configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from te_trainer.models.checkpoint_files import CheckpointFiles
from te_trainer.models.model_names import SMALL_FILES
from te_trainer.models.weights import ADAPTER_CONFIG

LFS_POINTER = b"version https://git-lfs"
# Of models' layers, what older versions of transformers saved although it follows from the configuration.
BUFFERS = re.compile(r"(inv_freq|position_ids|masked_bias|attn\.bias|attention\.bias|relative_position_index)$")
LAYER_LIST = re.compile(r"(.*?\.)\d+\.")  # what stands before the first number in a weight's name


def refuse_stand_ins(files: CheckpointFiles) -> None:
    """Refuse a folder that holds an adapter, a run or pointers of git-lfs in place of a model."""
    if (files.folder / ADAPTER_CONFIG).is_file():
        raise files.refusal(
            f"the folder holds a peft adapter ({ADAPTER_CONFIG}), not a model; merge it into its base model "
            "(merge_and_unload) and save that"
        )
    if (files.folder / "run.yaml").is_file() and not (files.folder / "config.json").is_file():
        patterns = ("*-encoder/config.json", "*/*-encoder/config.json")
        found = [path.parent for pattern in patterns for path in sorted(files.folder.glob(pattern))]
        example = f", such as {found[0]}" if found else ""
        raise files.refusal(f"the folder is a run's output folder, not a model; name an encoder in it{example}")
    # of weights in several formats, and of pictures and the like, people leave what they do not need on the server
    formats = (sorted(files.folder.glob(pattern)) for pattern in ("model*.safetensors", "pytorch_model*.bin"))
    small_files = [path for pattern in SMALL_FILES for path in sorted(files.folder.glob(pattern))]
    for path in [*small_files, *next(filter(None, formats), [])]:
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS_POINTER):
            raise files.refusal(f"{path.name} is a git-lfs pointer to the file, not the file; run git lfs pull")


def refuse_misfits(files: CheckpointFiles, model: PreTrainedModel, info: Mapping[str, Any], new_head: bool) -> None:
    """Refuse a model some of whose weights do not come from its checkpoint, or that lacks some of the checkpoint's.

    `info` is the `output_loading_info` of `from_pretrained`. A checkpoint may lack the pooler of a model without a
    head. With `new_head`, a cross-encoder begins at a plain PLM, which may lack the head and the pooler.
    """
    kind = type(model).__name__
    if mismatched := sorted(info["mismatched_keys"]):
        weight, *shapes = mismatched[0]
        if new_head and not weight.startswith(f"{model.base_model_prefix}."):
            raise files.refusal(
                f"it has a head of another task ({weight}) where a plain PLM or a cross-encoder with one logit is "
                "expected; name the plain PLM that it was made of"
            )
        saved, expected = (" x ".join(f"{size:,}" for size in shape) for shape in shapes)
        raise files.refusal(
            f"{weight} is {saved} in its file, but {expected} in a {kind} of its configuration; correct "
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
