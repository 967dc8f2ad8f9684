"""Arithmetic is chosen by the hardware, unless someone says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from te_trainer.errors import InputError
from te_trainer.models.precision import Precision, autocast, resolve_precision, tf32
from te_trainer.trainers import CrossEncoderTrainingArguments, arguments

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with nothing but an old CPU, for the tests to add to."""
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    return monkeypatch


@pytest.mark.parametrize("unit", ["avx512_f", "avx512_bf16", "amx_bf16"])
def test_a_cpu_with_units_for_bfloat16_uses_them(machine: pytest.MonkeyPatch, unit: str) -> None:
    assert resolve_precision() == "float32"
    machine.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False, unit: True})
    assert resolve_precision() == ("float32" if unit == "avx512_f" else "bfloat16")


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_the_half_precision_it_has(
    machine: pytest.MonkeyPatch, supported: bool, expected: Precision
) -> None:
    # Every GPU can emulate bfloat16, slowly; that is not having it.
    machine.delenv("ACCELERATE_USE_CPU")
    machine.setattr(torch.accelerator, "current_accelerator", lambda check_available=True: torch.device("cuda"))
    machine.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported or bool(including_emulation)
    )
    assert resolve_precision() == expected


@pytest.mark.parametrize("native", [True, False])
def test_other_accelerators_say_themselves_whether_they_have_bfloat16(
    machine: pytest.MonkeyPatch, native: bool
) -> None:
    machine.setattr(torch.xpu, "is_bf16_supported", lambda: native)
    machine.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not native})
    assert resolve_precision("auto", "xpu") == ("bfloat16" if native else "float32")
    assert resolve_precision("auto", "mps") == "float32"


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux only")
def test_this_machines_cpu_is_known_for_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    fast = "avx512_bf16" in flags or "amx_bf16" in flags
    assert resolve_precision() == ("bfloat16" if fast else "float32")


@pytest.mark.parametrize(("launched", "expected"), [("bf16", "bfloat16"), ("fp16", "float16"), ("no", "float32")])
def test_what_accelerate_was_told_goes_before_the_hardware(
    machine: pytest.MonkeyPatch, launched: str, expected: Precision
) -> None:
    machine.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_what_the_user_wants_goes_before_all(machine: pytest.MonkeyPatch, wanted: Precision) -> None:
    machine.setenv("ACCELERATE_MIXED_PRECISION", "bf16" if wanted != "bfloat16" else "fp16")
    assert resolve_precision(wanted) == wanted


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_products_are_computed_in_the_precision_asked_for(precision: Precision) -> None:
    matrix = torch.ones(4, 4)
    with autocast(CPU, precision):
        assert (matrix @ matrix).dtype == getattr(torch, precision)
    assert (matrix @ matrix).dtype == torch.float32


def precisions() -> list[str]:
    """What torch says of float32 products, in both of its ways; it raises where they contradict each other."""
    places: list[Any] = [torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    return [torch.get_float32_matmul_precision(), *(place.fp32_precision for place in places)]


@pytest.mark.parametrize("users", ["none", "highest", "high", "medium"])
def test_tf32_leaves_what_a_user_has_set_in_either_way(users: str) -> None:
    untouched = precisions()
    try:
        if users != "none":
            torch.set_float32_matmul_precision(users)
        before = precisions()
        for on in (True, False, None):
            with tf32(on):
                inside = precisions()
            assert on is None or inside[2] == ("tf32" if on else "ieee")
            assert precisions() == before
    finally:
        torch.set_float32_matmul_precision(untouched[0])
        for place, value in ((torch.backends.cuda.matmul, untouched[2]), (torch.backends.mkldnn.matmul, untouched[3])):
            setattr(place, "fp32_precision", value)  # noqa: B010 - their types do not know it


def test_float16_is_not_for_deepspeed(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own would round the weights that are saved; with torch's it clips gradients that are still scaled."""
    machine.delenv("ACCELERATE_USE_CPU")
    machine.setattr(arguments, "device_type", lambda: "cuda")
    machine.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    engine = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}
    found: Any = CrossEncoderTrainingArguments(str(tmp_path), deepspeed=engine)
    assert found.arithmetic == "float32" and not found.fp16
    assert "torch_autocast" not in found.deepspeed_plugin.hf_ds_config.config
    with pytest.raises(InputError, match=r"^precision: float16 does not go with DeepSpeed"):
        CrossEncoderTrainingArguments(str(tmp_path), deepspeed=engine, precision="float16")


def test_float16_is_not_for_fsdp(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its gradients' scale has no value yet where torch loads the states of the optimiser of a checkpoint."""
    machine.delenv("ACCELERATE_USE_CPU")
    machine.setattr(arguments, "device_type", lambda: "cuda")
    machine.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    machine.setenv("ACCELERATE_USE_FSDP", "true")
    assert CrossEncoderTrainingArguments(str(tmp_path)).arithmetic == "float32"
    for given in ({"precision": "float16"}, {"fp16": True}):
        with pytest.raises(InputError, match=r"^precision: float16 does not go with FSDP, .* take bfloat16 or float32"):
            CrossEncoderTrainingArguments(str(tmp_path), **given)
    machine.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(InputError, match=r"^precision: float16 does not go with FSDP"):
        CrossEncoderTrainingArguments(str(tmp_path))
    assert CrossEncoderTrainingArguments(str(tmp_path), precision="float32").arithmetic == "float32"
    machine.delenv("ACCELERATE_USE_FSDP")
    with pytest.raises(InputError, match=r"^precision: float16 does not go with FSDP"):
        CrossEncoderTrainingArguments(str(tmp_path), fsdp=True)
