"""Which checkpoints a training writes and keeps, and that it ends the same wherever it is killed.

Trainings are processes of their own, killed by SIGKILL. In them a step takes 20 seconds and dev scores are given, so
that it is known when which checkpoint is due.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import labelled
from forked import FORKING, leave_disk_behind

from te_trainer.data import GoldSet
from te_trainer.errors import DivergedError
from te_trainer.files.records import DamagedError
from te_trainer.models import BiEncoder
from te_trainer.runs import checkpoint_clock
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.training import Training
from te_trainer.trainers import BiEncoderTrainer
from te_trainer.trainers.callbacks import StopOnNaN
from te_trainer.trainers.checkpoint_mark import WEIGHTS_MARK, WHOLE_MARK

# Nine steps an epoch, at whose end there is an evaluation too; better than all before are 2, 4, 8 and 10.
CURVE = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.4, 9: 0.1, 10: 0.5, 12: 0.2, 14: 0.1, 16: 0.3, 18: 0.2}
# What lies there after each save: W weights alone, F full checkpoints. A full one is due after each 60 seconds. In step
# 6 it is not the best, and in step 9 the epoch's evaluation comes before it.
WITH_DEV = {
    "2W": "2W",
    "3F": "2W 3F",
    "4W": "2W 3F 4W",
    "6F": "4W 6F",
    "8W": "4W 6F 8W",
    "9F": "8W 9F",
    "10W": "8W 9F 10W",
    "12F": "10W 12F",
    "15F": "10W 15F",
}


def training(folder: Path, model: str, at: SimpleNamespace, dev: bool = True, **values: Any) -> Training:
    """A training of 18 steps; the dev score of each evaluation is that of the step `at.step`."""

    def spearman(scores: Any, gold: Any) -> float:
        at.second += at.evaluation
        return CURVE[at.step]

    pairs = labelled(8)
    gold = GoldSet("dev", pairs["sentence1"][:], pairs["sentence2"][:], pairs["label"][:], "")
    return Training(
        folder=folder / "encoder",
        kind="bi-encoder",
        load=lambda: BiEncoder.from_pretrained(model),
        values={
            "precision": "float32", "num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
            "eval_steps": 2, "logging_steps": 1, **values,
        },
        dev=gold if dev else None,
        metric=spearman,
        seed=5,
        progress=RunProgress(enabled=False),
        run_dir=folder,
        section="",
    )  # fmt: skip


def checkpoints(folder: Path) -> list[str]:
    """The steps of the whole checkpoints, with their kind, which is what they hold and what their mark says."""
    found = {}
    for path in folder.glob("checkpoint-*"):
        marks = [name for name in (WHOLE_MARK, WEIGHTS_MARK) if (path / name).exists()]
        assert marks == [WHOLE_MARK if (path / "optimizer.pt").exists() else WEIGHTS_MARK], path
        step = int(path.name.rpartition("-")[2])
        found[step] = f"{step}{'F' if marks == [WHOLE_MARK] else 'W'}"
    return [found[step] for step in sorted(found)]


def train(folder: Path, model: str, dies_in: int, takes: Any, environment: dict[str, str], kind: Any) -> None:
    """The process of a training, which dies after so many steps, in the next one."""
    os.environ |= environment
    # as `forked.Forked` does
    gc.freeze()
    leave_disk_behind(pytest.MonkeyPatch().setattr)
    at = SimpleNamespace(step=0, second=0.0, evaluation=takes["evaluation"])
    # the first rank decides
    checkpoint_clock.time = SimpleNamespace(monotonic=lambda: at.second if environment.get("RANK", "0") == "0" else 0.0)
    clock = checkpoint_clock.SaveByClock
    on_step_end, on_save = clock.on_step_end, clock.on_save

    def end(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        at.step, at.second = state.global_step, at.second + 20
        on_step_end(self, args, state, control, **more)

    def save(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        what = f"{state.global_step}{'W' if args.save_only_model else 'F'}"
        at.second += takes["save"]
        on_save(self, args, state, control, **more)
        if state.is_world_process_zero:
            with (folder / "saved.jsonl").open("a") as file:
                print(json.dumps([what, " ".join(checkpoints(Path(args.output_dir)))]), file=file)

    def begin(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == dies_in:
            os.kill(os.getpid(), signal.SIGKILL)

    clock.on_step_end, clock.on_save, clock.on_step_begin = end, save, begin  # type: ignore[method-assign]
    training(folder, model, at, **kind).run("train", 1, labelled(36))


def run(
    folder: Path, model: str, dies_in: int = -1, save: float = 0, evaluation: float = 0, ranks: int = 1, **kind: Any
) -> dict[str, str]:
    """Run a training in a process for each rank; gives what it saved, each with what lay there then.

    Args:
        save: Seconds that a checkpoint takes.
        evaluation: Seconds that an evaluation takes.
    """
    takes = {"save": save, "evaluation": evaluation}
    folder.mkdir(exist_ok=True)
    (folder / "saved.jsonl").write_text("")
    environments: list[dict[str, str]] = [{}]
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
        group |= {"LOCAL_WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "true"}
        environments = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
        kind["per_device_train_batch_size"] = 4 // ranks
    processes = [
        FORKING.Process(target=train, args=(folder, model, dies_in, takes, environment, kind))
        for environment in environments
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == (0 if dies_in < 0 else -signal.SIGKILL)
    return dict(json.loads(line) for line in (folder / "saved.jsonl").read_text().splitlines())


def result(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The record, without its seconds, and the weights; nothing else is left."""
    assert not (folder / ".training-encoder").exists()
    record = json.loads((folder / "encoder.training.json").read_text())
    del record["seconds"]
    return record, (folder / "encoder" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def model(models: dict[str, str]) -> str:
    return models["bert"]


@pytest.fixture(scope="module")
def whole(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, model) == WITH_DEV
    assert result(folder)[0]["best_step"] == 10
    assert dict(result(folder)[0]["dev_curve"]) == CURVE
    return folder


@pytest.mark.parametrize(
    ("kind", "saved"),
    [
        ({"dev": False}, ["3F", "6F", "9F", "12F", "15F"]),
        # without a log, in which a resumed training's loss would differ, it may be half as late again
        ({"dev": False, "logging_steps": 1000}, ["5F", "10F", "15F"]),
        # 20 times what saving took
        ({"dev": False, "save": 7}, ["3F", "10F", "17F"]),
        # without the evaluation before
        ({"save": 7, "evaluation": 10}, ["2W", "3F", "4W", "8W", "9F", "10W", "15F"]),
    ],
)
def test_a_full_checkpoint_comes_by_the_clock(
    kind: dict[str, Any], saved: list[str], model: str, tmp_path: Path
) -> None:
    found = run(tmp_path / "run", model, **kind)
    assert list(found) == saved
    if "dev" in kind:
        assert list(found.values()) == saved


@pytest.mark.parametrize(
    ("dies_in", "left", "again"),
    [
        (2, "2W", ["2W", "4W", "6F"]),
        (7, "4W 6F", ["8W", "9F", "10W"]),
        (17, "10W 15F", []),
    ],
)
def test_a_killed_training_ends_the_same(
    dies_in: int, left: str, again: list[str], whole: Path, model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    before = run(folder, model, dies_in)
    assert " ".join(checkpoints(folder / ".training-encoder")) == left == list(before.values())[-1]
    after = run(folder, model)
    # the clock begins anew, and what lay behind the last full checkpoint is made again
    assert list(after)[:3] == (["2W", "3F", "4W"] if dies_in == 2 else again)
    assert result(folder) == result(whole)


def test_weights_that_are_the_best_and_damaged_are_named(whole: Path, model: str, tmp_path: Path) -> None:
    """Those that were the best in step 9, where a training goes on that was killed behind better ones."""
    folder = tmp_path / "run"
    before = run(folder, model, 11)
    assert " ".join(checkpoints(folder / ".training-encoder")) == "8W 9F 10W" == list(before.values())[-1]
    best = folder / ".training-encoder" / "checkpoint-8"
    delete = f"delete the folder {best.parent}, and the run's command begins this training anew"

    def refusal() -> str:
        with pytest.raises(DamagedError) as caught:
            training(folder, model, SimpleNamespace()).run("train", 1, labelled(36))
        return str(caught.value)

    kept = shutil.copytree(best, tmp_path / "kept")
    os.truncate(best / "model.safetensors", 1000)
    assert refusal() == f"{best}/model.safetensors is damaged; {delete}"
    (best / WEIGHTS_MARK).unlink()
    assert refusal() == f"{best} is not there any more; {delete}"
    shutil.copytree(kept, best)
    assert list(run(folder, model)) == ["10W", "12F", "15F"]
    assert result(folder) == result(whole)


@pytest.mark.slow
def test_two_ranks_save_together_and_end_the_same_through_a_kill(model: str, tmp_path: Path) -> None:
    """By the clock of the first."""
    assert run(tmp_path / "whole", model, ranks=2) == WITH_DEV
    assert list(run(tmp_path / "killed", model, 11, ranks=2)) == list(WITH_DEV)[:7]
    run(tmp_path / "killed", model, ranks=2)
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    assert result(tmp_path / "whole")[0]["engine"] == "DistributedDataParallel"


def test_no_loss_that_is_nan_is_saved(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a loss is looked at where the trainer waits for it anyway."""
    monkeypatch.setattr(checkpoint_clock, "FULL_CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpoint_clock, "TIMES_WHAT_SAVING_TOOK", 0)
    monkeypatch.setattr(StopOnNaN, "on_step_end", lambda *_, **__: None)
    diverging = training(tmp_path, model, SimpleNamespace(), dev=False, learning_rate=1e30, logging_steps=1000)
    with pytest.raises(DivergedError, match=r"nan or infinite at step 2\b"):
        diverging.run("train", 1, labelled(36))
    assert checkpoints(diverging.checkpoint_dir) == ["1F"]


def test_what_batches_that_were_too_large_left_is_not_resumed_from(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found to be in step 4; smaller ones begin anew, and break off in step 3."""
    monkeypatch.setattr(checkpoint_clock, "FULL_CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(checkpoint_clock, "TIMES_WHAT_SAVING_TOOK", 0)
    step = BiEncoderTrainer.training_step
    steps: list[int] = []

    def limited(self: Any, wrapped: Any, inputs: Any, items: Any = None) -> Any:
        steps.append(self.state.global_step + 1)
        if self.pairs_in(inputs) > 4 and steps[-1] == 4:
            raise RuntimeError("CUDA out of memory.")
        if self.pairs_in(inputs) <= 4 and steps[-1] == 3:
            raise KeyboardInterrupt
        return step(self, wrapped, inputs, items)

    monkeypatch.setattr(BiEncoderTrainer, "training_step", limited)
    values = {"auto_find_batch_size": True, "per_device_train_batch_size": 5}
    broken = training(tmp_path, model, SimpleNamespace(), dev=False, **values)
    with pytest.raises(KeyboardInterrupt):
        broken.run("train", 1, labelled(36))
    assert steps == [1, 2, 3, 4, 1, 2, 3]
    assert checkpoints(broken.checkpoint_dir) == ["2F"]
