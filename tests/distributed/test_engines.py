"""Runs on two processes, as `accelerate launch` starts them, under each engine, against one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from conftest import ROOT, SAMPLE, brief_gold, results_of, run_launched, tiny_arguments
from datasets import load_from_disk
from forked import Forked, paths_in, run_forked, run_ranks, start_ranks
from references import their_scores
from safetensors.torch import load_file
from scipy.stats import spearmanr

from te_trainer.data import PoolManifest, load_gold
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers.checkpoint_mark import WHOLE_MARK

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

JOB = "trans_encoder.py"
ENGINES = {
    "cpu_ddp": ("MULTI_CPU", "DistributedDataParallel"),
    "cpu_deepspeed_zero2": ("DEEPSPEED", "DeepSpeedEngine"),
    "cpu_deepspeed_zero3": ("DEEPSPEED", "DeepSpeedEngine"),
}
# A second cycle would teach the other engines nothing: ZeRO-3 alone must gather what it labels and saves.
CYCLES = {"cpu_ddp": 1, "cpu_deepspeed_zero2": 1, "cpu_deepspeed_zero3": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distributed")


def job(model: Path, output: Path, processes: int, cycles: int, *more: str) -> list[str]:
    """Cycles whose global batches are the same on any number of processes."""
    batches = ["--bi_encoder.per_device_train_batch_size", str(16 // processes)]
    batches += ["--cross_encoder.per_device_train_batch_size", str(32 // processes)]
    rates = ["--cross_encoder.learning_rate", "1e-3", "--bi_encoder.learning_rate", "1e-3"]
    # its steps must be those of one process under every engine, too
    rates += ["--cross_encoder.official_adamw", "true", "--bi_encoder.official_adamw", "true"]
    few = ["--data.max_pairs", "64", "--cross_encoder.eval_steps", "2", "--bi_encoder.eval_steps", "4"]
    few += brief_gold(output.parent)[2:]
    keep = ["--distillation.keep_cycles", "true", "--distillation.cycles", str(cycles)]
    return tiny_arguments(model, output, *batches, *rates, *few, *keep, *more)


def told(configuration: str | Path) -> dict[str, str]:
    """The variables by which `accelerate launch` tells its processes of the engine."""
    found: dict[str, str] = {}
    words = ["--main_process_port", "0", "--config_file", str(ROOT / "accelerate_configs" / configuration), JOB]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.distributed.run.run", lambda _: found.update(os.environ))
        launch_command(launch_command_parser().parse_args(words))
    # by default ZeRO-3 saves no weights, and a configuration of a user's may leave the key out
    found.pop("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", None)
    return dict(found.items() - os.environ.items())


def scores_of(results: dict[str, Any], cycles: int) -> dict[str, float]:
    """All scores of a run's first cycles by a name of their own."""
    found = {}
    for entry in results["cycles"][:cycles]:
        for kind, scores in entry["tiny"].items():
            found |= {
                f"{entry['cycle']} {kind} dev": scores["dev"],
                f"{entry['cycle']} {kind} test": scores["test"]["avg"],
            }
    return found


def labels(output: Path, cycle: int, teacher: str) -> np.ndarray:
    return load_from_disk(str(output / f"cycle-{cycle}" / "tiny" / f"{teacher}-labels")).with_format("numpy")["score"][
        :
    ]


@pytest.fixture(scope="module")
def single(no_dropout: Path, folder: Path) -> Path:
    """The same run in one process, of two cycles."""
    output = folder / "single"
    finished = run_forked(JOB, job(no_dropout, output, 1, 2))
    assert finished.returncode == 0, finished.stderr[-4000:]
    return output


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(engine: str, no_dropout: Path, folder: Path) -> Path:
    """A run that nothing disturbed; ZeRO-3's through `accelerate launch`, DDP's are launched elsewhere."""
    output = folder / engine
    if engine == "cpu_deepspeed_zero3":
        finished = run_launched(f"{engine}.yaml", JOB, *job(no_dropout, output, 2, CYCLES[engine]))
    else:
        variables = told(f"{engine}.yaml") | {"TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
        finished = run_ranks(JOB, job(no_dropout, output, 2, CYCLES[engine]), variables)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert not [*folder.glob("extensions/*")], "trainings on CPUs need no compiler"
    assert "FutureWarning" not in finished.stderr
    return output


def test_the_engine_is_the_one_that_was_asked_for(whole: Path, engine: str) -> None:
    distributed, wrapped = ENGINES[engine]
    environment = results_of(whole)["environment"]
    assert (environment["processes"], environment["distributed"]) == (2, distributed)
    for record in whole.glob("cycle-*/tiny/*.training.json"):
        assert json.loads(record.read_text(encoding="utf-8"))["engine"] == wrapped


def test_scores_are_those_of_one_process(engine: str, whole: Path, single: Path) -> None:
    assert len(set(scores_of(results_of(single), 2).values())) > 4  # training moved the scores
    expected = scores_of(results_of(single), CYCLES[engine])
    assert scores_of(results_of(whole), 2) == pytest.approx(expected, abs=1e-3)


def test_what_is_saved_holds_the_pooler_of_the_start(whole: Path, no_dropout: Path) -> None:
    held, found = (load_file(path / "model.safetensors") for path in (no_dropout, whole / "tiny" / "bi-encoder"))
    pooler = [name for name in held if name.startswith("pooler.")]
    assert pooler and all(torch.equal(found[name], held[name]) for name in pooler)


def test_labels_are_those_of_one_process(engine: str, whole: Path, single: Path) -> None:
    np.testing.assert_allclose(labels(whole, 1, "bi-encoder"), labels(single, 1, "bi-encoder"), rtol=0, atol=1e-6)
    _, pairs = PoolManifest.load(whole / "pool")
    cross = CrossEncoder.from_pretrained(str(whole / "cycle-1" / "tiny" / "cross-encoder"))
    np.testing.assert_allclose(labels(whole, 1, "cross-encoder"), score_pairs(cross, pairs), rtol=0, atol=1e-6)
    if CYCLES[engine] == 2:
        bi = BiEncoder.from_pretrained(str(whole / "cycle-1" / "tiny" / "bi-encoder"))
        np.testing.assert_allclose(labels(whole, 2, "bi-encoder"), score_pairs(bi, pairs), rtol=0, atol=1e-6)


def test_steps_are_those_of_one_process(whole: Path, single: Path) -> None:
    """Of the official code's AdamW, whose epsilon is set before each step."""
    one, two = (
        CrossEncoder.from_pretrained(str(run / "cycle-1" / "tiny" / "cross-encoder")).model.state_dict()
        for run in (whole, single)
    )
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=0, atol=1e-4, msg=name)


def test_whole_weights_are_saved(whole: Path, single: Path) -> None:
    """Under the names of one process."""
    gold = load_gold(str(SAMPLE / "dev.tsv"), "dev", {})
    for kind in ("bi-encoder", "cross-encoder"):
        scores = their_scores(whole / "tiny" / kind, gold.sentence1, gold.sentence2)
        kept = results_of(whole)["final"]["tiny"][kind]["dev"]
        assert spearmanr(scores, gold.scores).statistic == pytest.approx(kept, abs=1e-4)
        found, expected = (load_file(run / "tiny" / kind / "model.safetensors") for run in (whole, single))
        assert found.keys() == expected.keys()


# ------------------------------------------------------------ kills


# Whom SIGKILL hits, and in which training. ZeRO-2's checkpoints are written as ZeRO-3's are: `zero2_killed` is enough.
IN_CYCLE_1 = ("1", "cycle-1/tiny/.training-cross-encoder")
IN_CYCLE_2 = ("01", "cycle-2/tiny/.training-bi-encoder")
KILLS = {"cpu_ddp": [IN_CYCLE_1], "cpu_deepspeed_zero2": [], "cpu_deepspeed_zero3": [IN_CYCLE_1, IN_CYCLE_2]}


@pytest.fixture(scope="module")
def zero2_killed(no_dropout: Path, folder: Path) -> Path:
    """A run under ZeRO-2 of which both ranks were killed in its first training."""
    output = folder / "zero2"
    command = (JOB, job(no_dropout, output, 2, 1), told("cpu_deepspeed_zero2.yaml"))
    kill_in(output / "cycle-1/tiny/.training-cross-encoder", "01", start_ranks(*command, clock=0))
    return output


def test_kills_change_nothing(engine: str, whole: Path, zero2_killed: Path, no_dropout: Path, folder: Path) -> None:
    """SIGKILL of one rank, then of all of them, each in the middle of a training; the same command continues."""
    output = folder / f"{engine}-killed"
    command = (JOB, job(no_dropout, output, 2, CYCLES[engine]), told(f"{engine}.yaml"))
    if engine == "cpu_deepspeed_zero2":
        shutil.copytree(zero2_killed, output)
    for ranks, stage in KILLS[engine]:
        kill_in(output / stage, ranks, start_ranks(*command, clock=0))
    assert not (output / "results.json").exists()
    finished = run_ranks(*command)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert "resumed" in finished.stderr and "begins anew" not in finished.stderr
    assert results_of(output)["environment"] == results_of(whole)["environment"]
    assert scores_of(results_of(output), 2) == scores_of(results_of(whole), 2)
    for kind in ("bi-encoder", "cross-encoder"):
        weights = Path("tiny", kind, "model.safetensors")
        assert (output / weights).read_bytes() == (whole / weights).read_bytes()


def test_a_checkpoint_of_another_engine_is_not_resumed_from(
    no_dropout: Path, single: Path, zero2_killed: Path, folder: Path
) -> None:
    """Nor one of DeepSpeed on another number of processes; the training ends as it does without a kill."""
    output = shutil.copytree(zero2_killed, folder / "changed")
    one = job(no_dropout, output, 1, 1)
    again = start_ranks(JOB, one, told("cpu_deepspeed_zero2.yaml"), ranks=1, clock=0)
    kill_in(output / "cycle-1/tiny/.training-bi-encoder", "0", again)
    finished = run_forked(JOB, one)
    assert finished.returncode == 0, finished.stderr[-4000:]
    held = "checkpoint was written with DeepSpeed (whole weights, optimiser in {} parts), and it is trained with"
    assert f"{held.format(2)} DeepSpeed" in again[0].said()
    assert f"{held.format(1)} neither DeepSpeed nor FSDP now" in finished.stderr
    for kind in ("bi-encoder", "cross-encoder"):
        found, expected = (load_file(run / "cycle-1" / "tiny" / kind / "model.safetensors") for run in (output, single))
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4, msg=name)


def kill_in(training: Path, ranks: str, processes: list[Forked]) -> None:
    """Kill these ranks once a checkpoint of the training is whole; then end all, as a launcher does."""
    deadline = time.monotonic() + 300
    while not paths_in(training, f"checkpoint-*/{WHOLE_MARK}"):
        assert all(process.poll() is None for process in processes), "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for rank in ranks:
        processes[int(rank)].kill()
    time.sleep(0.1)  # torchrun looks as often whether one has ended
    for process in processes:
        process.send(signal.SIGTERM)
    assert all(process.wait(120) != 0 for process in processes)


AS_ON_A_GPU = f"""
import runpy, sys
import torch

asked = torch.is_autocast_enabled
# asked without a device, torch speaks of GPUs
torch.is_autocast_enabled = lambda device="cpu": asked(device)
sys.path.insert(0, "{ROOT / "benchmarks" / "gpu"}")
runpy.run_path("{ROOT / "benchmarks" / "gpu" / "precision_probe.py"}", run_name="__main__")
"""


@pytest.mark.parametrize("configuration", ["cpu_deepspeed_zero2.yaml", "cpu_deepspeed_zero3.yaml"])
def test_layers_compute_in_bfloat16_where_deepspeed_ends_what_it_has_not_begun(
    configuration: str, no_dropout: Path, tmp_path: Path
) -> None:
    script = tmp_path / "probe.py"
    script.write_text(AS_ON_A_GPU, encoding="utf-8")
    finished = run_ranks(script, [str(no_dropout), str(tmp_path / "out")], told(configuration), ranks=1)
    assert finished.returncode == 0, finished.stdout[-500:] + finished.stderr[-4000:]


OWN_BFLOAT16 = """
import os, sys
import torch
from conftest import labelled
from te_trainer import BiEncoder, BiEncoderTrainer, BiEncoderTrainingArguments
from te_trainer.distributed import shutdown_process_group
from te_trainer.runs.training_arguments import release_engine

before, seen = torch.nn.functional.linear, []


class Watching(BiEncoderTrainer):
    def compute_loss(self, model, inputs, *args, **kwargs):
        seen.append(inputs["labels"])
        return super().compute_loss(model, inputs, *args, **kwargs)


args = BiEncoderTrainingArguments(sys.argv[2], max_steps=2, save_strategy="no", report_to="none", disable_tqdm=True)
# as its model is loaded under ZeRO-3, its linear layers are
trainer = Watching(BiEncoder.from_pretrained(sys.argv[1]), args, labelled(64))
trainer.train()
config = trainer.accelerator.state.deepspeed_plugin.hf_ds_config
assert config.dtype() == torch.bfloat16, config.dtype()
assert {labels.dtype for labels in seen} == {torch.float32}, seen
assert set(torch.cat(seen).tolist()) <= set(torch.tensor(labelled(64)["label"][:]).float().tolist())
assert torch.nn.functional.linear is not before
release_engine()
assert torch.nn.functional.linear is before
shutdown_process_group()
"""


def test_under_deepspeeds_own_bfloat16_labels_are_not_rounded_and_linear_layers_are_given_back(
    no_dropout: Path, tmp_path: Path
) -> None:
    script = tmp_path / "training.py"
    script.write_text(OWN_BFLOAT16, encoding="utf-8")
    engine = told("cpu_deepspeed_zero3.yaml") | {"ACCELERATE_MIXED_PRECISION": "bf16"}
    engine |= {"TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}
    finished = run_ranks(script, [str(no_dropout), str(tmp_path / "out")], engine, ranks=1)
    assert finished.returncode == 0, finished.stdout[-500:] + finished.stderr[-4000:]
    assert not [*tmp_path.glob("extensions/*")]
