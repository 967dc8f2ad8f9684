"""`te_trainer.distil` does in one call, and again and again in one process, what the command does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest
from conftest import SAMPLE, results_of, sample_pairs, tiny_arguments
from datasets import Dataset, DatasetDict, load_from_disk
from peft import LoraConfig
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModel

import te_trainer
from te_trainer.cli import start
from te_trainer.data.given import as_sources, write_given
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError

COUNT = 96
SWAPPED = {"sentence1": "sentence2", "sentence2": "sentence1"}
VARIES = ("seconds", "environment", "health")


def scores(results: dict[str, Any], folder: Path) -> Any:
    """What results say of a run, without what differs between two that are the same."""
    kept = {key: value for key, value in results.items() if key not in VARIES}
    return json.loads(json.dumps(kept).replace(str(folder), ""))


def interrupt_when_there_is(patterns: Sequence[str], folder: Path) -> threading.Thread:
    """Press Ctrl-C when a file appears."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(path for pattern in patterns for path in folder.glob(pattern)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    return sample_pairs(COUNT)


@pytest.fixture(scope="module")
def keys(few_gold: list[str]) -> dict[str, Any]:
    """The keys of `tiny_arguments` and `few_gold`, as a Python program gives them."""
    return {
        "data": {"dev": few_gold[1], "test": [Path(few_gold[3])]},
        "distillation": {"selection": "dev", "cycles": 2, "precision": "float32"},
        "cross_encoder": {"num_train_epochs": 1, "learning_rate": 2e-5, "eval_steps": 4},
        "bi_encoder": {"pooling": "mean", "num_train_epochs": 2, "per_device_train_batch_size": 16},
        "bi_encoder.eval_steps": 4,
    }


@pytest.fixture(scope="module")
def command(
    tiny: Path, pairs: list[tuple[str, str]], few_gold: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Output folder of the command on the same pairs."""
    folder = tmp_path_factory.mktemp("command")
    pool = folder / "pool.tsv"
    pool.write_text("\n".join(["sentence1\tsentence2", *map("\t".join, pairs)]) + "\n", encoding="utf-8")
    start("distil", tiny_arguments(tiny, folder / "run", *few_gold, pool=[str(pool)]))
    return folder / "run"


@pytest.fixture(scope="module")
def run(
    tiny: Path, pairs: list[tuple[str, str]], keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> te_trainer.DistilledRun:
    """A run that was interrupted in its second training or soon after it, and continued by the same call."""
    folder = tmp_path_factory.mktemp("call") / "run"
    folder.mkdir()
    # as a process leaves it that was killed while it read the pool
    (folder / "python-pairs.jsonl").write_text("{}\n")
    # the checkpoint is gone when the training ends; on a busy machine nobody may have seen it
    seen = ("cycle-1/tiny/.training-bi-encoder/checkpoint-*/checkpoint-is-whole", "cycle-1/tiny/bi-encoder.json")
    interrupts = interrupt_when_there_is(seen, folder)
    # a job in the background inherits that it is ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("te_trainer.runs.checkpoint_clock.FULL_CHECKPOINT_SECONDS", 0)
        te_trainer.distil(pairs, {"bi_encoder": tiny, "name": "tiny"}, folder, **keys)
    interrupts.join()
    signal.signal(signal.SIGINT, before)
    assert not (folder / "results.json").exists()
    return te_trainer.distil(pairs, {"bi_encoder": tiny, "name": "tiny"}, folder, **keys)


def test_a_call_makes_what_the_command_makes(command: Path, run: te_trainer.DistilledRun) -> None:
    assert scores(run.results, run.output_dir) == scores(results_of(command), command)
    labels = "cycle-2/tiny/cross-encoder-labels"
    ours, theirs = (load_from_disk(folder / labels) for folder in (run.output_dir, command))
    assert np.array_equal(ours["score"][:], theirs["score"][:])


def test_the_folders_of_the_encoders_load(run: te_trainer.DistilledRun) -> None:
    assert run.encoders == {"tiny": {kind: run.output_dir / "tiny" / kind for kind in ("bi-encoder", "cross-encoder")}}
    assert SentenceTransformer(run.bi_encoder, device="cpu").encode("my router restarts").shape == (32,)
    assert 0 <= CrossEncoder(run.cross_encoder, device="cpu").predict(("one", "two")) <= 1


@pytest.mark.parametrize("table", [Dataset.from_dict, pandas.DataFrame])
def test_the_same_pairs_in_a_table_find_the_run_finished(
    tiny: Path,
    pairs: list[tuple[str, str]],
    run: te_trainer.DistilledRun,
    keys: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    table: Any,
) -> None:
    columns = dict(zip(("sentence1", "sentence2"), map(list, zip(*pairs, strict=True)), strict=True))
    given = table({"id": range(COUNT), **columns})
    # the folder may be called otherwise, as after a move
    monkeypatch.chdir(run.output_dir.parent)
    again = te_trainer.distil(given, {"bi_encoder": str(tiny), "name": "tiny"}, run.output_dir.name, **keys)
    assert again.results == run.results
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (pandas.DataFrame({"id": [1, 2], "q": ["a", "c"], "sentence2": ["b", "d"]}), {"sentence1": "q"}),
        (pandas.DataFrame({"sentence2": ["a", "c"], "sentence1": ["b", "d"]}), SWAPPED),
        (pandas.DataFrame({"sentence1": ["a", "c"], "sentence2": ["b", "d"], "meta": [1, "x"]}), {}),
        (Dataset.from_dict({"sentence1": ["a", "c"], "sentence2": ["b", "d"]}), {"sentence1": "q", "sentence2": "x"}),
        ([("a", "b"), ("c", "d")], SWAPPED),
        (np.array([["a", "b"], ["c", "d"]]), {}),
        ([{"q": "a", "sentence2": "b", "n": 1}, {"q": "c", "sentence2": "d", "n": 2}], {"sentence1": "q"}),
        (np.array([["a", "b"], ["c", "d"]], dtype=object), {"sentence1": "q"}),
    ],
)
def test_given_pairs_are_read_by_their_columns(given: Any, columns: dict[str, str], tmp_path: Path) -> None:
    names, pairs = as_sources(given, columns)
    assert not names
    write_given(pairs, tmp_path / "pairs.jsonl", columns, begun=False)
    rows = read_rows(str(tmp_path / "pairs.jsonl"), ["sentence1", "sentence2"], columns)
    assert [values for _, values in rows] == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pairs: pairs[1:], "pairs: they have changed since the run in"),
        (lambda pairs: SAMPLE / "pool.tsv", "was begun with another configuration: data.pool"),
    ],
)
def test_other_pairs_are_refused(
    tiny: Path,
    pairs: list[tuple[str, str]],
    run: te_trainer.DistilledRun,
    keys: dict[str, Any],
    change: Any,
    message: str,
) -> None:
    before = (run.output_dir / "python-pairs.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        te_trainer.distil(change(pairs), {"bi_encoder": tiny, "name": "tiny"}, run.output_dir, **keys)
    assert (run.output_dir / "python-pairs.jsonl").read_bytes() == before
    assert not list(run.output_dir.glob(".partial-*"))


@pytest.mark.parametrize(
    ("pairs", "keys", "message"),
    [
        ([], {}, "pairs is empty"),
        (None, {}, "data.pool is empty"),
        (None, {"data": {"sentences": "missing.txt"}}, "missing.txt: the file does not exist"),
        ([("one", "two"), ("three",)], {}, "pairs: item 1 is no pair of sentences"),
        ([("one", "two"), "three"], {}, "pairs: item 1 is no pair of sentences"),
        ([{"sentence1": "one", "b": "x"}], {}, "pairs: item 0: no column 'sentence2' among sentence1, b; map it with"),
        (
            pa.table({"sentence1": ["a"], "sentence2": ["b"]}),
            {},
            "pairs: a Table of ChunkedArray; give a list of pairs",
        ),
        (iter([1]), {}, "pairs: a list_iterator of int; give a list of pairs .sentence1, sentence2., a datasets.Data"),
        (7, {}, "pairs: a int; give a list of pairs"),
        (
            pandas.DataFrame([["a", "b", "c"]], columns=["sentence1", "sentence2", "sentence1"]),
            {},
            "^pairs: several columns of the DataFrame are named 'sentence1'; rename all but one$",
        ),
        (
            pandas.DataFrame({"sentence1": ["one"], "sentence2": [0]}),
            {},
            r'item 0: sentence2 is a number \(0\); make the column text, such as frame\["sentence2"\].astype\(str\)',
        ),
        ([("one", 2)], {}, r"pairs: item 0: sentence2 is a number \(2\); make the column text"),
        ([("one", "\ud800")], {}, "python-pairs.jsonl, line 1: half a character"),
        ([("one", None), ("", "two")], {}, "data.pool: no pair of sentences"),
        (Dataset.from_dict({"sentence1": ["one"], "text": ["two"]}), {}, "no column 'sentence2' among sentence1, text"),
        (
            pandas.DataFrame({"sentence1": ["one", None], "sentence2": [float("nan"), "two"]}),
            {},
            "no pair of sentences",
        ),
        (
            pandas.DataFrame({"q": ["one"], "text": ["two"]}),
            {"data": {"columns": {"sentence1": "q", "sentence2": "t"}}},
            "^pairs: no column 't' among q, text; map it with data.columns$",
        ),
        (np.array(["one", "two"]), {}, "one: no such file"),
        (pandas.DataFrame({"sentence1": ["one", 2], "sentence2": ["a", "b"]}), {}, "^pairs: a column of the DataFrame"),
        ([("one", "two")], {"seed": np.int64(-1)}, "seed: input should be greater than or equal to 0, got -1"),
        (
            [("one", "two")],
            {"data": {"dev": Dataset.from_dict({"x": [1]})}},
            r"^data.dev: a Dataset where a source's name is expected; write it with to_csv\('FILE.csv', ",
        ),
        (np.array([[1, 2]]), {}, r"pairs: item 0: sentence1 is a number \(1\); make the column text"),
        (DatasetDict(train=Dataset.from_dict({"sentence1": ["one"]})), {}, "pairs: a DatasetDict has splits"),
        (
            [("one", "two"), ("one", "three")],
            {"bi_encoder": {"dataloader_drop_last": True}},
            "^bi_encoder.dataloader_drop_last: a step takes 128 pairs, and there are 2; set it to",
        ),
        (
            None,
            {
                "data": {"sentences": str(SAMPLE / "dev.tsv")},
                "mining": {"pairs": 100, "sources": ["random"]},
                "distillation": {"held_out": 0},
                "bi_encoder": {"dataloader_drop_last": True},
            },
            "^bi_encoder.dataloader_drop_last: a step takes 128 pairs, and there are 100",
        ),
        ([("one", "two")], {"lora": LoraConfig(r=8)}, "^lora: input should be a valid dictionary, got "),
        ("missing.tsv", {}, "missing.tsv: the file does not exist"),
        (["missing.tsv"], {"data": {"pool": "x"}}, "data.pool: it is the argument pairs"),
        (["missing.tsv"], {"models": "x"}, "models: it is the argument model"),
        (["missing.tsv"], {"distilation": {"cycles": 1}}, "did you mean 'distillation.cycles'"),
        (["missing.tsv"], {"distillation": {"cycles": "three"}}, "distillation.cycles: input should be"),
        (["missing.tsv"], {"distillation": {"isolate_stages": True}}, "needs the command te-trainer distil"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(
    tiny: Path, tmp_path: Path, pairs: Any, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        te_trainer.distil(pairs, tiny, tmp_path / "runs" / "one", **keys)
    assert not list(tmp_path.iterdir())


def test_a_model_object_is_refused_with_the_way_to_give_it(tiny: Path, tmp_path: Path) -> None:
    for model in (SentenceTransformer(str(tiny)), {"bi_encoder": AutoModel.from_pretrained(tiny)}):
        name = type(model["bi_encoder"] if isinstance(model, dict) else model).__name__
        with pytest.raises(InputError, match=rf"^models(\.bi_encoder)?: a {name} where a model's name or folder is"):
            te_trainer.distil([("one", "two")], model, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_tilde_stands_for_the_home(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    begun = tmp_path / "home" / "runs"
    begun.mkdir(parents=True)
    (begun / "mine.txt").touch()
    with pytest.raises(InputError, match=f"^output_dir: {begun} holds 'mine.txt' and no run.yaml"):
        te_trainer.distil([("one", "two")], tiny, "~/runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
