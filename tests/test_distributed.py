"""Which device a process computes on, how long it waits for the others, and what it keeps of the memory it frees."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from conftest import ROOT, tiny_arguments
from forked import run_ranks

from te_trainer.config.defaults import DDP_TIMEOUT
from te_trainer.distributed import device_type, process_state
from te_trainer.errors import InputError
from te_trainer.files.atomic import PARTIAL
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.trainers import BiEncoderTrainingArguments, CrossEncoderTrainingArguments

# ---------------------------------------------------------------- the device


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine where torch finds an accelerator that is neither CUDA's nor Apple's."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=True: torch.device("xpu"))
    monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE", "ACCELERATE_MIXED_PRECISION", "DS_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)
    PartialState._reset_state()
    yield monkeypatch
    PartialState._reset_state()


def choices() -> dict[str, bool]:
    """Whether each of those who choose by the device takes the CPU."""
    PartialState._reset_state()
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("DS_ACCELERATOR", raising=False)
        quiet_libraries()
        deepspeed = os.environ.pop("DS_ACCELERATOR", None)
    return {
        "labelling": process_state()._cpu,
        "training": BiEncoderTrainingArguments().use_cpu,
        "precision": resolve_precision() == "bfloat16",
        "DeepSpeed": deepspeed == "cpu",
    }


def test_labelling_and_training_take_the_same_accelerator(accelerator: pytest.MonkeyPatch) -> None:
    assert device_type() == "xpu"
    assert set(choices().values()) == {False}


def test_more_processes_than_devices_are_refused(accelerator: pytest.MonkeyPatch) -> None:
    """accelerate would give two of them one device, and NCCL would end them with an error of its own."""
    accelerator.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(InputError, match=r"^8 processes .* torch finds 0 devices \(xpu\); start as many .* see all"):
        process_state()
    accelerator.setattr(torch.xpu, "device_count", lambda: 1)
    # two that share it, or that see one each: accelerate gives both a barrier on the device of their local rank
    for shown in ("0", "3"):
        accelerator.setenv("CUDA_VISIBLE_DEVICES", shown)
        with pytest.raises(InputError, match="torch finds 1 devices"):
            process_state()
    accelerator.setattr(torch.xpu, "device_count", lambda: 8)
    assert not process_state()._cpu
    PartialState._reset_state()
    accelerator.setenv("ACCELERATE_USE_CPU", "True")
    assert process_state()._cpu


@pytest.mark.parametrize(("name", "value"), [("ACCELERATE_USE_CPU", "True"), ("ACCELERATE_TORCH_DEVICE", "cpu")])
def test_what_accelerate_was_told_goes_before_the_accelerator(
    name: str, value: str, accelerator: pytest.MonkeyPatch
) -> None:
    accelerator.setenv(name, value)
    assert device_type() == "cpu"
    assert set(choices().values()) == {True}


def test_a_training_on_the_cpu_has_the_precision_of_the_cpu(accelerator: pytest.MonkeyPatch) -> None:
    assert CrossEncoderTrainingArguments(use_cpu=True).bf16
    assert not CrossEncoderTrainingArguments().bf16


def test_nobody_else_asks_for_the_device() -> None:
    asks = re.compile(r"torch\.accelerator|(cuda|mps|xpu|npu)\.is_available|is_(?!liger)\w+_available\(|USE_CPU")
    found = {path.name for path in (ROOT / "te_trainer").rglob("*.py") if asks.search(path.read_text("utf-8"))}
    assert found == {"distributed.py"}


# ---------------------------------------------------------------- how long ranks wait


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is one that a launcher has started, the only one of its group."""
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in {**group, "LOCAL_WORLD_SIZE": "1", "ACCELERATE_USE_CPU": "true"}.items():
        monkeypatch.setenv(name, value)
    PartialState._reset_state()
    yield
    torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_trainer_of_its_own_waits_as_long_as_its_arguments_say(launched: None) -> None:
    assert BiEncoderTrainingArguments(ddp_timeout=1234).device.type == "cpu"
    assert waiting() == timedelta(seconds=1234)


def test_a_script_that_asks_for_nothing_waits_as_long_as_a_run(launched: None) -> None:
    """Torch's limit of NCCL, ten minutes, would end the others while one of them tokenises."""
    assert process_state().device.type == "cpu"
    assert waiting() == timedelta(seconds=DDP_TIMEOUT)


def waiting() -> timedelta:
    """How long a rank of this process's group waits for the others."""
    group = torch.distributed.distributed_c10d._get_default_group()
    found: timedelta = group._get_backend(torch.device("cpu")).options._timeout
    return found


RUN = """
import hashlib, json, os, sys
from pathlib import Path

import torch

import te_trainer.runs.training as training
from te_trainer.runs.folder import run_in_output_dir
from te_trainer.config.commands import parse

arguments = sys.argv[2:]
from te_trainer.commands.distil import distil
from te_trainer.distillation.plan import make_plan
told, hashed = [], [0]
trainer, make = training.TRAINERS["bi-encoder"]


class Seen(make):
    def __post_init__(self):
        super().__post_init__()
        told.append(self.ddp_timeout)


training.TRAINERS["bi-encoder"] = trainer, Seen


class Sha256:
    def __init__(self, *data):
        self.digest_of = sha256(*data)

    def update(self, data):
        hashed[0] += memoryview(data).nbytes
        self.digest_of.update(data)

    def __getattr__(self, name):
        return getattr(self.digest_of, name)


sha256, hashlib.sha256 = hashlib.sha256, Sha256


def work(manifest):
    distil(manifest)
    group = torch.distributed.distributed_c10d._get_default_group()
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    found = {"group": seconds, "trainings": told, "hashed": hashed[0]}
    Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(found))


run_in_output_dir(parse(arguments), work, make_plan)
"""


WAITING = """
import torch
torch._C._get_accelerator = lambda: torch.device("cuda")  # as where torch is built for GPUs
from accelerate import PartialState
from te_trainer.distributed import process_state
from te_trainer.trainers import BiEncoderTrainingArguments

{begin}
PartialState().wait_for_everyone()
print(torch.distributed.get_world_size())
"""


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("begin", ["process_state()", "BiEncoderTrainingArguments('out')"])
def test_ranks_on_cpus_wait_for_each_other_where_torch_is_built_for_gpus(begin: str, tmp_path: Path) -> None:
    """Whether a run or a trainer of its own begins."""
    (tmp_path / "ranks.py").write_text(WAITING.format(begin=begin), encoding="utf-8")
    done = run_ranks(tmp_path / "ranks.py", [])
    assert (done.returncode, done.stdout.split()) == (0, ["2", "2"]), done.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.distributed
def test_ranks_of_a_run_wait_as_long_as_it_says_and_one_of_them_hashes_weights(tiny: Path, tmp_path: Path) -> None:
    short = ["--distillation.cycles", "1", "--distillation.students", "bi-encoder", "--data.max_pairs", "32"]
    arguments = tiny_arguments(tiny, tmp_path / "run", *short, "--ddp_timeout", "7200")
    (tmp_path / "ranks.py").write_text(RUN, encoding="utf-8")
    done = run_ranks(tmp_path / "ranks.py", [str(tmp_path), *arguments])
    assert done.returncode == 0, done.stderr[-4000:]
    assert not list((tmp_path / "run").glob(f"{PARTIAL}*"))
    ranks = [json.loads((tmp_path / str(rank)).read_text(encoding="utf-8")) for rank in (0, 1)]
    for rank in ranks:
        assert (rank["group"], set(rank["trainings"])) == (7200, {7200})
    weights = (tiny / "model.safetensors").stat().st_size
    assert ranks[0]["hashed"] > 0.9 * weights and ranks[1]["hashed"] < 0.1 * weights, ranks
