"""What `accelerate launch` really starts, and stages in processes of their own."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, labelled, results_of, run_launched, sample_pairs, tiny_arguments
from forked import Forked, run_forked, run_ranks
from safetensors.torch import load_file
from test_engines import told

from te_trainer.cli import start
from te_trainer.files.atomic import remove
from te_trainer.labelling import score_pairs
from te_trainer.mining.candidates import SOURCES
from te_trainer.models import BiEncoder

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def launch(configuration: str | Path, script: str | Path, *arguments: str) -> str:
    finished = run_launched(configuration, script, *arguments)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


def scores(output: Path) -> list[Any]:
    return results_of(output)["cycles"]


FSDP_RANK = """
import sys

import numpy as np
from accelerate import PartialState
from accelerate.utils import DistributedType
from datasets import load_from_disk

from te_trainer import BiEncoderTrainer, BiEncoderTrainingArguments, InputError
from te_trainer.runs.training_arguments import release_engine

plm, output, size = sys.argv[1:]
pairs = load_from_disk(f"{output}/pairs")
values = {"max_steps": 4, "save_steps": 2, "learning_rate": 1e-3, "train_sampling_strategy": "random"}
values |= {"precision": "float32", "official_adamw": True, "report_to": "none"}
predicted = []
for checkpoint in (None, f"{output}/checkpoint-2"):
    args = BiEncoderTrainingArguments(output, per_device_train_batch_size=int(size), **values)
    ranks = args.world_size
    if ranks > 1:
        # accelerate shards an encoder for what it takes for GPUs alone
        PartialState().distributed_type = DistributedType.MULTI_GPU
    trainer = BiEncoderTrainer(plm, args, pairs)
    try:
        trainer.predict(pairs)
    except InputError as error:
        assert ranks > 1 and str(error).startswith("evaluate, predict: FSDP2 shards an encoder together with"), error
    else:
        assert ranks == 1
    trainer.train(resume_from_checkpoint=checkpoint)
    is_sharded = {type(weight).__name__ for weight in trainer.model.parameters()} == {"DTensor"}
    assert is_sharded == (ranks > 1)
    predicted.append(trainer.predict(pairs).predictions)
    trainer.save_model(f"{output}/saved")
    trainer.accelerator.wait_for_everyone()
    release_engine()
np.save(f"{output}/predicted.npy", predicted)
"""


def test_fsdp_shards_an_encoder_and_teaches_it_the_same(no_dropout: Path, tmp_path: Path) -> None:
    """Between processes of a CPU that accelerate takes for those of GPUs.

    The engine is that of the project's own file, which says no more of state dicts and of loading than accelerate does
    by default.
    """
    fsdp = told("fsdp2.yaml")
    del fsdp["FSDP_STATE_DICT_TYPE"]
    fsdp["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "true"
    (tmp_path / "ranks.py").write_text(FSDP_RANK, encoding="utf-8")
    pairs, saved = labelled(64), []
    for ranks, engine in ((1, {}), (2, fsdp)):
        output = tmp_path / str(ranks)
        pairs.save_to_disk(str(output / "pairs"))
        arguments = [str(no_dropout), str(output), str(16 // ranks)]
        done = run_ranks(tmp_path / "ranks.py", arguments, engine | {"ACCELERATE_USE_CPU": "true"}, ranks)
        assert done.returncode == 0, done.stderr[-4000:]
        predicted, continued = np.load(output / "predicted.npy")
        np.testing.assert_array_equal(continued, predicted)
        saved.append(output / "saved")
        scores = score_pairs(BiEncoder.from_pretrained(str(saved[-1])), pairs)
        np.testing.assert_allclose(scores, predicted, rtol=0, atol=1e-6)
    start, one, two = (load_file(folder / "model.safetensors") for folder in (no_dropout, *saved))
    assert max((one[name] - start[name]).abs().max() for name in one) > 3e-4
    assert max((two[name] - one[name]).abs().max() for name in one) < 1e-5


JOB = "trans_encoder.py"
ONE_CYCLE = ("--distillation.cycles", "1")
ISOLATED = ("--distillation.isolate_stages", "true")


def same_weights(one: Path, two: Path, kind: str) -> bool:
    return len({(root / "tiny" / kind / "model.safetensors").read_bytes() for root in (one, two)}) == 1


def test_stages_after_which_a_process_ends_change_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    together, isolated = (tiny_arguments(tiny, tmp_path / name, *ONE_CYCLE) for name in ("together", "isolated"))
    start("distil", together)
    ends = 0

    def end() -> None:
        nonlocal ends
        ends += 1
        raise EOFError

    monkeypatch.setattr("te_trainer.runs.folder.restart_process", end)
    capsys.readouterr()
    while not (tmp_path / "isolated" / "results.json").exists():
        with contextlib.suppress(EOFError):
            start("distil", [*isolated, *ISOLATED])
    assert ends == 4  # two labellings, two trainings
    assert capsys.readouterr().out.count("kept: cycle") == 2  # the table is printed once, at last
    assert scores(tmp_path / "isolated") == scores(tmp_path / "together")
    for kind in ("bi-encoder", "cross-encoder"):
        assert same_weights(tmp_path / "isolated", tmp_path / "together", kind)


def test_ranks_that_are_replaced_after_each_stage_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """The last training of a run that has mined its pairs by all sources, as one process does."""
    texts = dict.fromkeys(text for pair in sample_pairs(150) for text in pair)
    rows = [json.dumps({"text": text, "page": number // 5}) for number, text in enumerate(texts)]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    mined = ["--data.pool", "[]", "--data.max_pairs", "null", "--data.sentences", str(tmp_path / "texts.jsonl")]
    mined += ["--data.column", "text", "--data.document", "page", "--mining.pairs", "96"]
    mined += ["--mining.sources", "[neighbours, bm25, document, random]"]
    mined += ["--distillation.students", "bi-encoder", *ONE_CYCLE]
    together, isolated, one = (
        tiny_arguments(tiny, tmp_path / name, *mined) for name in ("together", "isolated", "one")
    )
    finished = run_ranks(JOB, together)
    assert finished.returncode == 0, finished.stderr[-4000:]
    shutil.copytree(tmp_path / "together", tmp_path / "isolated")
    student = [f"cycle-1/tiny/bi-encoder{suffix}" for suffix in ("", ".json", ".training.json", ".predictions.npz")]
    ended = ["results.json", "report.md", "report.html", "curves.png", "neighbours.json", "tiny"]
    for name in (*student, *ended):
        remove(tmp_path / "isolated" / name)
    said = launch("cpu_ddp.yaml", JOB, *isolated, *ISOLATED)
    assert said.count("kept: cycle") == 1
    assert scores(tmp_path / "isolated") == scores(tmp_path / "together")
    assert same_weights(tmp_path / "isolated", tmp_path / "together", "bi-encoder")
    Forked(JOB, one).kill_at(tmp_path / "one", "cycle-1")
    pools = [tmp_path / name / "pool" for name in ("together", "one")]
    assert len({(pool / "pairs.arrow").read_bytes() for pool in pools}) == 1
    records = [json.loads((pool / "mined.json").read_text(encoding="utf-8")) for pool in pools]
    assert records[0]["pairs"].keys() == set(SOURCES)
    assert records[0]["left_out"] == records[1]["left_out"]


def test_memory_does_not_grow_with_stages(tiny: Path, tmp_path: Path) -> None:
    """Six trainings in one process leave no more behind than two."""
    cycles = ["--distillation.cycles", "3", "--data.max_pairs", "32"]
    done = run_forked(ROOT / "benchmarks/stage_memory.py", [*tiny_arguments(tiny, tmp_path / "run"), *cycles])
    assert done.returncode == 0, done.stderr[-4000:]
    memory = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(memory) == 6
    assert memory[5] <= 1.05 * memory[1], memory
