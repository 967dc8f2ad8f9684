"""Private names of other libraries: those that are used here, and a list of those that are used elsewhere.

Who raises an upper bound in `pyproject.toml` looks at each of them. Names of objects are used where the objects are:
`Trainer._push_from_checkpoint` (overridden) and `Trainer._finish_current_push` in trainers/publishing.py,
`Trainer._prepare_inputs` and `Trainer._hp_search_setup` (overridden), `_get_dataloader` and `_train_batch_size` in
trainers/base.py, with a model's `_hf_peft_config_loaded`, its `_is_accelerate_prepared` in
trainers/computation.py and `_no_split_modules` in trainers/sharding.py, `TrainingArguments._n_gpu` in
trainers/arguments.py, a configuration's `_name_or_path` in trainers/publishing.py. Of huggingface_hub's `utils._http`,
hub_errors.py reads limits with its function, and runs/quiet.py sets its logger. Of datasets, data/remote.py opens
addresses with `utils.file_utils.xopen`, and data/hub_sets.py asks whether a builder is
`packaged_modules.cache.cache.Cache`, which reads a set from the cache alone. Of torch, runs/training_arguments.py lists
the modes of `_inductor`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.integrations import deepspeed


def attention_of(config: PretrainedConfig) -> str | None:
    """Name of the attention that a model computes with; transformers has a public name for setting it alone."""
    name: str | None = config._attn_implementation
    return name


def set_attention(config: PretrainedConfig, name: str | None) -> None:
    """Set the attention of one configuration; the public `set_attn_implementation` sets those of all of a model."""
    config._attn_implementation = name


def reset_accelerator_state() -> None:
    """Reset what accelerate holds of the last Trainer, and not the process group; the public ways reset both."""
    AcceleratorState._reset_state(reset_partial_state=False)


def restore_linear() -> None:
    """Give torch its linear layers back, for which DeepSpeed leaves ZeRO-3's to the rest of the process."""
    zero3: Any = sys.modules.get("deepspeed.runtime.zero.partition_parameters")
    if zero3 is not None and nn.functional.linear is zero3.zero3_linear_wrap:
        nn.functional.linear = zero3.InsertPostInitMethodToModuleSubClasses.linear_bk


def spare_extension_of_inference() -> None:
    """Keep DeepSpeed on CPUs from building what its inference alone uses: that takes minutes, and a compiler."""
    with contextlib.suppress(ImportError):  # of which accelerate tells
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def name_barriers_no_device() -> None:
    """Let processes on CPUs wait for one another where torch is built for GPUs.

    accelerate names each barrier the number of a device, which torch then takes for a GPU's, whatever the group is.
    """
    torch.distributed.barrier = _barrier_without_device


def _barrier_without_device(*arguments: Any, device_ids: object = None, **others: Any) -> Any:
    return torch.distributed.distributed_c10d.barrier(*arguments, **others)


@contextlib.contextmanager
def outside_of_zero3() -> Iterator[None]:
    """Make models as without ZeRO-3, under which transformers cannot make one on the device `meta`."""
    held = deepspeed._hf_deepspeed_config_weak_ref
    config = None if held is None else held()
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)


def softmax_backward(gradient: Tensor, probabilities: Tensor) -> Tensor:
    """Gradient of a softmax over the last dimension, in one pass; what autograd calls itself."""
    backward: Any = torch._softmax_backward_data
    result: Tensor = backward(gradient, probabilities, -1, probabilities.dtype)
    return result


def forget_conversions(model: nn.Module) -> None:
    """Save a model's weights as they are; else transformers makes of them what it has made them from (float8)."""
    setattr(model, "_weight_conversions", None)  # noqa: B010 - its type does not know the name


def forget_unused_conversions(model: nn.Module) -> None:
    """Save weights under the names that they were read from, as without ZeRO-3.

    Under it transformers keeps all conversions that it knows, and would give layer norms TensorFlow's names.
    """
    if (conversions := getattr(model, "_weight_conversions", None)) is not None:
        setattr(model, "_weight_conversions", [each for each in conversions if each.was_used()])  # noqa: B010 - as above


def uncompile(module: nn.Module) -> None:
    """Take `module.compile()` back; torch has no public way."""
    module._compiled_call_impl = None


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, longest: int, dropout: float, scaling: float
) -> Tensor:
    """Flash attention of sentences one after another; its public form, `torch.nn.attention.varlen`, has no dropout.

    Args:
        query, key, value: Shape (tokens, heads, width).
        offsets: Where each sentence begins, and the number of tokens; int32, shape (sentences + 1,).
        longest: Tokens of the longest sentence.
    """
    forward: Any = torch.ops.aten._flash_attention_forward
    # the two flags: causal, and a mask to look at
    result: Tensor = forward(
        query, key, value, offsets, offsets, longest, longest, dropout, False, False, scale=scaling
    )[0]
    return result


def row_numbers(dataset: Dataset) -> np.ndarray:
    """The row of `dataset.data` that each row of a data set is, which `select` and `sort` change."""
    if dataset._indices is None:
        return np.arange(len(dataset))
    return np.asarray(dataset._indices.column(0), dtype=np.int64)
