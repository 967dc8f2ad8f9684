"""Which arithmetic the hardware is fast at."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import torch

from te_trainer.config.types import PrecisionChoice
from te_trainer.distributed import device_type
from te_trainer.errors import InputError

Precision = Literal["float32", "bfloat16", "float16"]
SHORT_NAMES: dict[str, Precision] = {"bf16": "bfloat16", "fp16": "float16"}  # accelerate's and transformers'


def resolve_precision(wanted: PrecisionChoice = "auto", device: str | None = None) -> Precision:
    """`auto` becomes bfloat16 or float16 where the hardware has units for it, else float32.

    What `accelerate launch --mixed_precision` says goes before the hardware. A CPU without AVX-512-BF16 or AMX gets
    slower with bfloat16, not faster. Raises an InputError for what is neither.
    """
    if wanted != "auto":
        if wanted not in get_args(Precision):
            raise InputError(f"precision: '{wanted}' is none of auto, {', '.join(get_args(Precision))}")
        return wanted
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked in SHORT_NAMES:
        return SHORT_NAMES[asked]
    device = device or device_type()
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"
    # other accelerators say so in a function of this name, or, as Apple's, not at all
    supported = getattr(torch.get_device_module(device), "is_bf16_supported", None)
    return "bfloat16" if supported is not None and supported() else "float32"


def precision_of(training: Mapping[str, Any]) -> Precision:
    """What a training with these arguments computes in, `bf16` and `fp16` before `precision`."""
    return resolve_precision(
        next((name for key, name in SHORT_NAMES.items() if training.get(key)), training["precision"])
    )


@contextlib.contextmanager
def tf32(on: bool | None) -> Iterator[None]:
    """Whether a GPU rounds the factors of float32 products to TF32, for the whole process; None changes nothing.

    Afterwards it is as it was before, whoever has changed it meanwhile.
    """
    before = _fp32_precisions()
    if on is not None:
        # the older way, because torch refuses to compile where it says something else (pytorch/pytorch#166387)
        torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        if _fp32_precisions() != before:
            torch.set_float32_matmul_precision(before[0])
            for backend, value in zip(_fp32_backends(), before[1:], strict=True):
                backend.fp32_precision = value


def _fp32_precisions() -> list[str]:
    """What is set of float32 products, in torch's older way and then in its newer one."""
    newer: list[str] = [backend.fp32_precision for backend in _fp32_backends()]
    try:
        return [torch.get_float32_matmul_precision(), *newer]
    except RuntimeError:  # the two ways contradict each other
        return ["high" if newer[1] == "tf32" else "highest", *newer]


def _fp32_backends() -> list[Any]:
    backends: Any = torch.backends
    return [backends, backends.cuda.matmul, backends.mkldnn.matmul]


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Autocast to `precision` on `device`; nothing for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))
