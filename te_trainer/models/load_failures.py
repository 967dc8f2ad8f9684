"""What to say where transformers makes no configuration or no model of a checkpoint's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, PretrainedConfig

from te_trainer.errors import first_line

NO_MODEL = "no model in that folder or repository"
NO_CONFIGURATION = f"{NO_MODEL} (it holds no config.json); name one that save_pretrained has written"
# How errors begin where a file of PyTorch is none, is cut short, or is a pickle of other things.
BROKEN_PICKLE = ("Weights only load failed", "PytorchStreamReader", "EOFError")


def why_no_configuration(content: Mapping[str, Any], error: Exception) -> str:
    """What is wrong with the `content` of a `config.json`, and how to fix it."""
    family = content.get("model_type")
    if family is None and "odel type" in str(error).replace("_", " "):
        return f"{NO_MODEL} (config.json has no model_type); add it, or name another checkpoint"
    if family is not None and (not isinstance(family, str) or family not in CONFIG_MAPPING):
        return (
            f"model_type in config.json is {str(family)[:60]!r}, which transformers {transformers.__version__} does "
            "not know; start from another model, or install a version that knows it"
        )
    return f"its config.json makes no model ({first_line(error)}); correct the file, or copy it again"


def why_no_model(folder: Path, config: PretrainedConfig, error: Exception) -> str:
    """What is wrong with the weights in a folder, or with their configuration, and how to fix it.

    A lack of memory is no fault of theirs, and raised again.
    """
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        raise error
    if isinstance(error, PermissionError):
        return f"{Path(error.filename or folder).name} may not be read; change its permissions"
    reason = first_line(error)
    if reason.startswith("Error no file named"):
        return (
            "it has no weights for PyTorch, model.safetensors or pytorch_model.bin (those of TensorFlow, ONNX and GGUF "
            "are not read); name a checkpoint that has them"
        )
    if isinstance(error, FileNotFoundError):
        return f"{Path(reason.rpartition(': ')[2].strip(chr(39))).name} of its weights is missing; copy it again"
    if isinstance(error, SafetensorError):
        return f"{_broken_file(folder)} is damaged or cut short ({reason}); copy it again"
    if reason.startswith(BROKEN_PICKLE):  # torch goes on with how to load a pickle all the same
        return "a file of PyTorch is broken, or holds more than weights; save the model with save_pretrained"
    if isinstance(error, KeyError):
        keys = [key for key, value in config.to_dict().items() if [value] == list(error.args)]
        if keys:
            return f"{keys[0]} in config.json is {reason}, which transformers does not know; correct the file"
        reason = f"there is no {reason}"
    fix = "install what it needs" if isinstance(error, ImportError) else "correct config.json"
    return f"its configuration and weights make no model ({reason}); {fix}, or name another checkpoint"


def _broken_file(folder: Path) -> str:
    """The first of the files with weights that cannot be opened."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError:
            return path.name
    return "a file of its weights"
