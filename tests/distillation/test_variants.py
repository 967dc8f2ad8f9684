"""Whole runs, tiny ones, of every way that a cycle can go: students, combinations, losses, selections, pools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SAMPLE, results_of, tiny_arguments, unreserved_names
from conftest import Run as Job
from datasets import load_from_disk
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from torch import nn

from te_trainer.config.commands import parse
from te_trainer.data import PoolManifest, load_gold
from te_trainer.distillation.combine import combine, quantiles
from te_trainer.distillation.health import Probe
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.report.remarks import AGREEMENT_DESCRIPTION
from te_trainer.runs.finished import FinishedRun
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.training import Training, training_seed

Run = Callable[..., Path]


@pytest.fixture
def run(tiny: Path, few_gold: list[str], tmp_path: Path, run_job: Job) -> Run:
    """The main job in this process, to its end, with few pairs and one epoch; returns the output folder."""
    short = [*few_gold, "--bi_encoder.num_train_epochs", "1", "--data.max_pairs", "32"]

    def start(*more: str | Path) -> Path:
        done = run_job("distil", *tiny_arguments(tiny, tmp_path / "run", *short), *more)
        assert done.status == 0, done.err
        return tmp_path / "run"

    return start


def test_every_stage_computes_with_the_attention_of_its_kind(
    run: Run, monkeypatch: pytest.MonkeyPatch, watched: Callable[[str], list[Any]]
) -> None:
    def packing(mask: Any) -> None:
        raise AssertionError("a batch is packed")

    monkeypatch.setattr("te_trainer.models.packed.pack.Packing", packing)
    calls = {kind: watched(f"watched_{kind}") for kind in ("bi_encoder", "cross_encoder")}
    keys = {f"{kind}.attn_implementation": f"watched_{kind}" for kind in calls}
    output = run(*(part for key, name in keys.items() for part in (f"--{key}", name)), "--distillation.cycles", "1")
    for kind, called in calls.items():
        # labels and scores, training, the dev set in a training
        assert set(called) == {(False, False), (True, True)}, kind
        assert run_file(output)["config"][kind]["attn_implementation"] == f"watched_{kind}"
    saved = list(output.rglob("config.json"))
    assert len(saved) >= 2 and not any("attn" in path.read_text(encoding="utf-8") for path in saved)


def labels_of(folder: Path) -> np.ndarray:
    return np.asarray(load_from_disk(str(folder))["score"][:], dtype=np.float32)


def run_file(output: Path) -> dict[str, Any]:
    return yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))


def table_of(output: Path) -> list[str]:
    return [line for line in (output / "report.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]


# ---------------------------------------------------------------- several PLMs


def test_two_plms_without_any_gold_end_and_each_is_compared_with_its_own_start(
    run: Run, tiny: Path, letters: Path
) -> None:
    """A PLM that learns nothing is its start, whatever the other one labels."""
    models = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {letters}, name: two}}]"
    none = ["--data.dev", "null", "--data.test", "[]", "--distillation.selection", "last"]
    # pairs that a student has learnt would say nothing of others
    none += ["--data.max_pairs", "320", "--distillation.held_out", "0.1"]
    short = ["--distillation.students", "bi-encoder", "--distillation.cycles", "1"]
    output = run("--models", models, *none, *short, "--bi_encoder.learning_rate", "1e-12")
    results = results_of(output)
    assert results["start"].keys() == results["final"].keys() == {"one", "two"}
    healths = [results["health"]["cycles"][0][name]["bi-encoder"] for name in ("one", "two")]
    assert [health["start"] for health in healths] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert min(health["agreement"] for health in healths) < 0.97
    assert all(results["final"][name]["bi-encoder"]["as_good_as_start"] for name in ("one", "two"))
    assert (output / "report.html").is_file()
    # what is done is done once
    records = {path: path.read_bytes() for path in output.glob("cycle-1/*/bi-encoder*.json")}
    assert len(records) == 4
    (output / "results.json").unlink()
    run("--models", models, *none, *short, "--bi_encoder.learning_rate", "1e-12")
    assert {path: path.read_bytes() for path in records} == records


def test_two_plms_of_two_sizes_and_two_tokenizers_teach_each_other(run: Run, tiny: Path, letters: Path) -> None:
    """What a student was trained on is what both teachers' labels make; ensembles are made likewise."""
    models = f"[{{bi_encoder: {tiny}, name: one, weight: 1.0}}, {{bi_encoder: {letters}, name: two, weight: 3.0}}]"
    options = ["--distillation.combine", "weighted", "--distillation.keep_cycles", "true", "--distillation.cycles", "1"]
    output = run("--models", models, *options)
    results = results_of(output)

    # the labels that were learnt are the ones on disk, combined: the same training again ends at the same weights
    first = [labels_of(output / "cycle-1" / name / "bi-encoder-labels") for name in ("one", "two")]
    assert spearmanr(*first).statistic < 0.99
    trained = output / "cycle-1" / "one" / "cross-encoder" / "model.safetensors"
    assert retrained(output, combine(first, "weighted", [1.0, 3.0]), tiny) == trained.read_bytes()

    gold = load_gold(run_file(output)["config"]["data"]["test"][0], "test", {})
    for when, kind in (("start", "bi-encoder"), ("final", "bi-encoder"), ("final", "cross-encoder")):
        cycles = [results[when][name][kind].get("cycle", 0) for name in ("one", "two")]
        columns = [
            np.load(output / (f"cycle-{cycle}" if cycle else "start") / name / f"{kind}.predictions.npz")["arr_1"]
            for name, cycle in zip(("one", "two"), cycles, strict=True)
        ]
        together = results[when]["ensemble"][kind]["test"]["test"]
        assert together == pytest.approx(spearman(combine(columns, "weighted", [1.0, 3.0]), gold.scores))
        for name, column in zip(("one", "two"), columns, strict=True):
            assert results[when][name][kind]["test"]["test"] == pytest.approx(spearman(column, gold.scores))
    assert sum(line.startswith("| ensemble | ") for line in table_of(output)) == 3
    assert "by their weights" in (output / "report.md").read_text(encoding="utf-8")


def retrained(output: Path, labels: np.ndarray, start: Path) -> bytes:
    """Weights of the first PLM's first cross-encoder, trained on other labels."""
    config = run_file(output)
    _, pairs = PoolManifest.load(output / "pool")
    dev = load_gold(config["config"]["data"]["dev"], "dev", {})
    folder = output / "again"
    training = Training(
        folder=folder,
        kind="cross-encoder",
        load=partial(CrossEncoder.from_pretrained, str(start)),
        values=config["resolved"]["one"]["cross-encoder"],
        dev=dev,
        metric=spearman,
        seed=training_seed(config["config"]["seed"], 1, "cross-encoder", 0),
        progress=RunProgress(enabled=False),
        run_dir=output,
        section="cross_encoder",
    )
    training.run("again", 1, pairs.add_column("label", labels))
    return (folder / "model.safetensors").read_bytes()


# ---------------------------------------------------------------- without cross-encoders


@pytest.mark.parametrize(("init", "selection"), [("refresh", "dev"), ("sequential", "agreement")])
def test_bi_encoders_alone_teach_each_other(run: Run, tiny: Path, init: str, selection: str) -> None:
    """The paper's baseline: no cross-encoder is loaded, trained, kept or reported."""
    entry = f"[{{bi_encoder: {tiny}, cross_encoder: /no/such/model, name: tiny}}]"
    options = ["--distillation.init", init, "--distillation.keep_cycles", "true"]
    options += ["--distillation.selection", selection]
    output = run("--models", entry, "--distillation.students", "bi-encoder", *options)
    results = results_of(output)
    assert [set(entry["tiny"]) for entry in results["cycles"]] == [{"bi-encoder"}] * 2
    assert results["final"]["tiny"].keys() == {"bi-encoder"}
    assert results["seconds"].keys() == {"label_bi", "train_bi", "evaluate", "health", "total"}
    assert not [path for path in output.rglob("*") if "cross" in path.name]
    # what agreement is says the same of all runs
    report = (output / "report.md").read_text(encoding="utf-8").replace(AGREEMENT_DESCRIPTION, "")
    assert "cross" not in report
    assert run_file(output)["resolved"]["tiny"].keys() == {"bi-encoder"}
    # each labels for the next one, from the second cycle on with what the first one learnt
    first, second = (labels_of(output / f"cycle-{cycle}" / "tiny" / "bi-encoder-labels") for cycle in (1, 2))
    assert not np.array_equal(first, second)
    trained = BiEncoder.from_pretrained(str(output / "cycle-1" / "tiny" / "bi-encoder"), pooling="mean")
    _, pairs = PoolManifest.load(output / "pool")
    np.testing.assert_allclose(score_pairs(trained, pairs), second, rtol=0, atol=1e-6)
    if selection == "agreement":
        entries = results["agreement"]["tiny"]
        assert [set(entry) for entry in entries] == [{"cycle", "bi-first"}] * 2
        best = max(entries, key=lambda entry: entry["bi-first"])["cycle"]
        assert results["final"]["tiny"]["bi-encoder"]["cycle"] == best


def test_a_sequential_run_says_which_model_it_does_not_use(
    tiny: Path, letters: Path, few_gold: list[str], tmp_path: Path, run_job: Job
) -> None:
    """The sizes and the tokenizer of its cross-encoders are the bi-encoder's."""
    models = f"[{{bi_encoder: {tiny}, cross_encoder: {letters}, name: tiny}}]"
    short = [*few_gold, "--bi_encoder.num_train_epochs", "1", "--data.max_pairs", "32", "--distillation.cycles", "1"]
    arguments = tiny_arguments(tiny, tmp_path / "run", *short, "--models", models)
    done = run_job("distil", *arguments, "--distillation.init", "sequential")
    assert done.status == 0, done.err
    (line,) = (line for line in done.err.splitlines() if "is not used" in line)
    assert line == (
        "tiny: with distillation.init: sequential cross-encoders start from the bi-encoders' weights; "
        f"models.cross_encoder, {letters}, is not used"
    )
    assert done.err.index(line) < done.err.index("label with bi-encoder | begins")
    cross = json.loads((tmp_path / "run/tiny/cross-encoder/config.json").read_text(encoding="utf-8"))
    assert (cross["model_type"], cross["hidden_size"]) == ("bert", 32)
    assert FinishedRun.load(tmp_path / "run").start("tiny", "cross-encoder").name == "tiny"
    # its own tokenizer has counted what is cut: that of letters would cut nearly all
    assert results_of(tmp_path / "run")["truncation"]["tiny"]["cross-encoder"]["cut"] == 0


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("more", [[], ["--lora.rank", "2"]], ids=["whole", "lora"])
def test_a_cross_encoder_of_squared_errors_labels_with_its_logits(run: Run, more: list[str]) -> None:
    """Both ablations of Table 8 at once; what is kept scores elsewhere as it did in the run."""
    losses = ["--cross_encoder.loss", "mse", "--bi_encoder.loss", "bce"]
    output = run(*losses, "--distillation.cycles", "1", *more)
    _, pairs = PoolManifest.load(output / "pool")
    theirs = TheirCrossEncoder(str(output / "tiny" / "cross-encoder"), device="cpu")
    columns = list(zip(pairs["sentence1"][:], pairs["sentence2"][:], strict=True))
    labels = labels_of(output / "cycle-1" / "tiny" / "cross-encoder-labels")
    np.testing.assert_allclose(labels, theirs.predict(columns), rtol=0, atol=1e-5)
    np.testing.assert_allclose(labels, theirs.predict(columns, activation_fn=nn.Identity()), rtol=0, atol=1e-5)
    assert abs(labels - theirs.predict(columns, activation_fn=nn.Sigmoid())).min() > 0.01
    resolved = run_file(output)["resolved"]["tiny"]
    assert (resolved["cross-encoder"]["loss"], resolved["bi-encoder"]["loss"]) == ("mse", "bce")


# ---------------------------------------------------------------- what chooses


def test_agreement_chooses_without_any_gold_score(run: Run) -> None:
    """Its values are those of the labels on disk, and the cycle of the highest one is kept."""
    steps = ["--bi_encoder.learning_rate", "3e-3", "--cross_encoder.learning_rate", "3e-3"]
    output = run("--distillation.selection", "agreement", "--data.dev", "null", "--distillation.cycles", "3", *steps)
    assert not unreserved_names(output, {"tiny"})
    results = results_of(output)
    folders = [output / f"cycle-{cycle}" / "tiny" for cycle in (1, 2, 3)]
    bi = [labels_of(folder / "bi-encoder-labels") for folder in [*folders, output / "agreement" / "tiny"]]
    cross = [labels_of(folder / "cross-encoder-labels") for folder in folders]
    assert all(spearmanr(one, two).statistic < 0.999 for one, two in combinations([*bi, *cross], 2))
    entries = results["agreement"]["tiny"]
    assert [entry["cycle"] for entry in entries] == [1, 2, 3]
    for at, entry in enumerate(entries):
        assert entry["cross-first"] == pytest.approx(spearmanr(cross[at], bi[0]).statistic)
        assert entry["bi-first"] == pytest.approx(spearmanr(bi[at + 1], bi[0]).statistic)
    best = max(entries, key=lambda entry: entry["bi-first"])["cycle"]
    best_cross = max(entries, key=lambda entry: entry["cross-first"])["cycle"]
    kept_cycles = {kind: entry["cycle"] for kind, entry in results["final"]["tiny"].items()}
    assert kept_cycles == {"bi-encoder": best, "cross-encoder": best_cross}
    kept = BiEncoder.from_pretrained(str(output / "tiny" / "bi-encoder"))
    _, pairs = PoolManifest.load(output / "pool")
    np.testing.assert_allclose(score_pairs(kept, pairs), bi[best], rtol=0, atol=1e-6)
    assert not list(output.glob("cycle-*/tiny/*/model.safetensors"))  # the others went when the choice was made
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "unsupervised" in report and re.search(r"\bdev\b", report) is None
    first = [f"{100 * entries[0][key]:.2f}" for key in ("cross-first", "bi-first")]
    assert f"| tiny | 1 | {' | '.join(first)} |" in report


# ---------------------------------------------------------------- pools


def test_a_benchmark_of_its_own_pools_its_splits_and_chooses_by_its_dev_rows(run: Run, tmp_path: Path) -> None:
    """SICK-R as in Table 7, from a folder."""
    rows = (SAMPLE / "test.tsv").read_text(encoding="utf-8").splitlines()[1:61]
    splits = ["train"] * 20 + ["trial"] * 18 + ["test"] * 22
    lines = [f"{split}\t{row}" for split, row in zip(splits, rows, strict=True)]
    text = "\n".join(["split\tscore\tsentence1\tsentence2", *lines]) + "\n"
    (tmp_path / "sickr.tsv").write_text(text, encoding="utf-8")
    sick = ["--data.dir", tmp_path, "--data.pool", "sickr", "--data.dev", "sickr", "--data.test", "sickr"]
    output = run(*sick, "--data.max_pairs", "60", "--distillation.cycles", "1")
    pool, _ = PoolManifest.load(output / "pool")
    assert (pool.sources[0].rows, pool.num_rows) == (60, 60)
    results = results_of(output)
    assert results["final"]["tiny"]["bi-encoder"]["test"].keys() == {"sickr", "avg"}
    kept = BiEncoder.from_pretrained(str(output / "tiny" / "bi-encoder"))
    for role, count in (("dev", 18), ("test", 22)):
        gold = load_gold("sickr", role, {}, str(tmp_path))  # type: ignore[arg-type]
        assert len(gold) == count
        final = results["final"]["tiny"]["bi-encoder"]
        expected = final["dev"] if role == "dev" else final["test"]["sickr"]
        scores = score_pairs(kept, {"sentence1": gold.sentence1, "sentence2": gold.sentence2})
        assert spearman(scores, gold.scores) == pytest.approx(expected, abs=1e-6)


def test_extra_pairs_are_learnt_too(run: Run, tmp_path: Path) -> None:
    extra = tmp_path / "snli.tsv"
    extra.write_text("sentence1\tsentence2\n" + "".join(f"a dog {n}\ta cat {n}\n" for n in range(20)), encoding="utf-8")
    output = run("--data.extra", extra, "--data.extra_pairs", "8", "--distillation.cycles", "1")
    pool, pairs = PoolManifest.load(output / "pool")
    assert (pool.num_rows, pool.extra) == (40, 8)
    assert all(text.startswith("a dog") for text in pairs["sentence1"][32:])
    assert len(labels_of(output / "cycle-1" / "tiny" / "cross-encoder-labels")) == 40
    assert "8 of 20 extra ones added" in (output / "report.md").read_text(encoding="utf-8")


def test_students_learn_the_labels_that_their_keys_name_but_for_held_out_pairs(run: Run) -> None:
    """Cross-encoders quantiles, bi-encoders averages and their order."""
    keys = ["--distillation.bi_encoder_labels", "averaged", "--distillation.cross_encoder_labels", "quantiles"]
    keys += ["--bi_encoder.loss", "cosent", "--data.max_pairs", "97", "--distillation.held_out", "0.3"]
    output = run(*keys, "--distillation.cycles", "1", "--distillation.keep_cycles", "true")
    folder, (_, pool) = output / "cycle-1" / "tiny", PoolManifest.load(output / "pool")
    rows = Probe.draw(pool, 0.3, 2021).rows
    first, second = (labels_of(folder / f"{kind}-labels") for kind in ("bi-encoder", "cross-encoder"))
    cross, bi = (json.loads((folder / f"{kind}-encoder.json").read_text("utf-8"))["health"] for kind in ("cross", "bi"))
    mean = ((first + second) / 2)[rows]
    for health, learnt in ((cross, quantiles(first)[rows]), (bi, mean)):
        assert health["spread"] == pytest.approx(health["std"] / learnt.std(), rel=1e-5)
    scores = score_pairs(BiEncoder.from_pretrained(str(folder / "bi-encoder")), pool.select(rows))
    assert bi["agreement"] == pytest.approx(spearman(scores, mean), abs=1e-3)
    assert run_file(output)["resolved"]["tiny"]["bi-encoder"]["loss"] == "cosent"
    # 88 pairs in batches of 16, and in both orders in batches of 32; all 97 would take seven steps
    records = [json.loads(path.read_text("utf-8")) for path in folder.glob("*.training.json")]
    assert [record["steps"] for record in records] == [6, 6]


@pytest.mark.parametrize(("key", "value"), [("bi_encoder_labels", "averaged"), ("cross_encoder_labels", "quantiles")])
def test_labels_of_a_cross_encoder_need_one(key: str, value: str, tiny: Path, tmp_path: Path) -> None:
    keys = (f"--distillation.{key}", value, "--distillation.students", "bi-encoder")
    with pytest.raises(InputError, match=f"{key} is '{value}'.* there is no cross-encoder"):
        parse(tiny_arguments(tiny, tmp_path, *keys))
