"""Selection `auto`: a student that has not learnt teaches none, and what is kept is never worse than the start."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SAMPLE, brief_gold, results_of, tiny_arguments
from forked import Forked, run_forked, script_with
from sentence_transformers import SentenceTransformer
from test_growing import TELLING, cosines, learnt_pairs, mined_pairs, without_gold
from transformers import AutoModel

from te_trainer.config.schema import HubConfig
from te_trainer.data import PoolManifest, pairs_of
from te_trainer.distillation.selection import is_as_good_as_start
from te_trainer.hub.card import Upload, model_card
from te_trainer.hub.publish import _uploads
from te_trainer.report.remarks import remarks
from te_trainer.runs.finished import FinishedRun

JOB = "trans_encoder.py"


@pytest.fixture(scope="module")
def stopped(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run of a random model, whose cross-encoder learns nothing in four steps; beside it what it learnt again."""
    output = tmp_path_factory.mktemp("auto") / "run"
    done = run_forked(script_with(output.parent, TELLING), without_gold(tiny, output))
    assert done.returncode == 0, done.stderr
    return output, done


def test_a_student_that_has_not_learnt_is_trained_once_more_and_ends_the_cycles(stopped: tuple[Path, Any]) -> None:
    output, done = stopped
    results = results_of(output)
    (failed,) = results["not_learnt"]
    assert (failed["cycle"], failed["kind"], failed["stopped"]) == (1, "cross-encoder", True)
    assert results["cycles"] == []
    assert done.stderr.count("train cross-encoder | begins") == 1
    assert done.stderr.count("train cross-encoder, again | begins") == 1
    assert "train bi-encoder" not in done.stderr
    # the second training is more work than was foreseen, so that a smaller part of all is done when it begins
    first, second = (
        re.search(rf"train cross-encoder{event}.* run (\d+)%", done.stderr) for event in (r" \| done \|", ", again")
    )
    assert first and second and int(second[1]) < int(first[1])
    said = [
        line for line in done.stderr.splitlines() if line.startswith("warning: cycle 1 tiny: cross-encoder has not")
    ]
    assert [line.rpartition(". ")[2] for line in said] == [
        "It is trained once more, 3 times as long",
        "It teaches none, and the cycles end here",
    ]
    assert said[1].partition(": it ")[2].startswith(failed["reason"].removeprefix("it "))
    entry = results["health"]["cycles"][0]["tiny"]["cross-encoder"]
    # 96 pairs less 9 in both orders are 174 examples; the second training sees three times as many, in batches of 32
    assert (entry["attempt"], entry["steps"], entry["added_pairs"]) == (2, 17, 192)
    check_time_of_both_trainings(output)
    for text in (done.stdout, *((output / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))):
        flat = " ".join(text.split())
        assert "tiny: the cross-encoder has not learnt its labels. Cycle 1: it " in flat
        assert "It taught none and the cycles ended there." in flat
        assert "tiny: the cycles changed nothing: this run keeps the start as its bi-encoder, as it came." in flat
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "unsupervised: the bi-encoder of the start is kept. How" in page and "0 cycles" in page
    # no bi-encoder was trained that could be compared with the start
    assert json.loads((output / "neighbours.json").read_text(encoding="utf-8")) == {}
    assert "Neighbours" not in page


def check_time_of_both_trainings(output: Path) -> None:
    """The run's only student was trained, scored and looked at twice."""
    seconds = results_of(output)["seconds"]
    start, student = (
        json.loads((output / folder / "tiny" / f"{kind}.json").read_text(encoding="utf-8"))
        for folder, kind in (("start", "bi-encoder"), ("cycle-1", "cross-encoder"))
    )
    earlier = student["earlier_seconds"]
    assert all(value > 0 for value in earlier.values())
    assert seconds["train_cross"] == pytest.approx(student["training_seconds"] + earlier["training_seconds"])
    assert seconds["evaluate"] == pytest.approx(start["seconds"] + student["seconds"] + earlier["seconds"])
    healths = start["health_seconds"] + student["health_seconds"] + earlier["health_seconds"]
    assert seconds["health"] == pytest.approx(healths, abs=1e-3)


def test_the_second_training_learns_the_pool_and_mined_pairs(stopped: tuple[Path, Any], tiny: Path) -> None:
    output, done = stopped
    assert done.stderr.count("cycle 1: 192 random pairs of the pool's sentences are labelled") == 1
    pool = [frozenset(pair) for pair in pairs_of(PoolManifest.load(output / "pool")[1])]
    rows = learnt_pairs(output.parent, "tiny")
    given, mined = rows[:87], rows[87:]
    assert len(set(pool) - {frozenset((row["sentence1"], row["sentence2"])) for row in given}) == 9  # held out
    assert [row["sentence1"] for row in mined] == mined_pairs(output)["sentence1"]
    pairs = {frozenset((row["sentence1"], row["sentence2"])) for row in mined}
    assert len(pairs) == len(mined) == 192
    assert pairs.isdisjoint(pool)
    sentences = Counter(text for pair in pairs for text in pair)
    assert set(sentences) <= {text for pair in pool for text in pair}
    assert max(sentences.values()) <= 5
    np.testing.assert_allclose([row["label"] for row in rows], cosines(tiny, rows), atol=1e-5)


def test_high_scores_are_drawn_oftener_than_by_chance(stopped: tuple[Path, Any], tiny: Path) -> None:
    pairs = list(pairs_of(PoolManifest.load(stopped[0] / "pool")[1]))
    apart = zip(pairs, pairs[1:] + pairs[:1], strict=True)
    rows = [{"sentence1": one, "sentence2": two} for (one, _), (_, two) in apart]
    assert np.mean(mined_pairs(stopped[0])["label"]) > np.mean(cosines(tiny, rows)) + 0.02


def test_the_report_names_a_start_that_tells_texts_too_little_apart(stopped: tuple[Path, Any]) -> None:
    results = results_of(stopped[0])
    line = (
        "tiny: the start finds a heavily edited sentence no less similar than a lightly edited one "
        "(edits in order 48 %; at least 70 % is expected)"
    )
    assert not any(remark.startswith(line) for remark in remarks(results))
    results["health"]["start"]["tiny"]["bi-encoder"]["graded"] = 0.48
    assert remarks(results)[0].startswith(line)


def test_the_report_says_that_pairs_which_chose_are_tested_on(stopped: tuple[Path, Any]) -> None:
    results = results_of(stopped[0])
    entry = {"from_hub": False, "pairs": 40, "in_pool": 0}
    results["overlap"]["test"] = {"a": {"name": "a", "in_dev": 7, **entry}, "b": {"name": "b", "in_dev": 0, **entry}}
    line = "The dev set holds test pairs, whose scores are not those of unseen pairs: 7 of the 40 pairs of a."
    assert line in remarks(results)


def test_the_report_says_when_mined_pairs_helped(stopped: tuple[Path, Any]) -> None:
    results = results_of(stopped[0])
    line = (
        "tiny: so small a pool teaches a cross-encoder too little; the one of cycle 1 has also learnt 192 random pairs "
        "of the pool's sentences."
    )
    assert line not in remarks(results)
    assert line in remarks(results | {"not_learnt": []})
    assert 0 < results["seconds"]["grow"] < results["seconds"]["total"]


def test_the_card_of_a_start_that_is_kept_does_not_call_it_trained(stopped: tuple[Path, Any]) -> None:
    run = FinishedRun.load(stopped[0])
    card = " ".join(model_card(run, Upload("me/x", "tiny", ["bi-encoder"], False), None).split())
    assert "te_trainer ran Trans-Encoder" in card and "and kept no cycle's encoder" in card
    assert "The bi-encoder reads at most 32 tokens" in card and "elf-distillation of bi-encoders" not in card
    assert "96 sentence pairs (pool.tsv) whose labels" in card
    assert run.results_for("tiny")["truncation"] == {"tiny": run.results["truncation"]["tiny"]}


def test_a_start_that_is_kept_is_said_to_be_what_it_is_and_why(stopped: tuple[Path, Any]) -> None:
    results = results_of(stopped[0])
    for part in ("start", "final"):
        results[part]["tiny"]["bi-encoder"]["dev"] = 0.5
    line = "tiny: the bi-encoder that was kept is the start, as it came; "
    assert f"{line}no bi-encoder has learnt." in remarks(results)
    assert f"{line}no cycle's scores higher on dev." in remarks(results | {"not_learnt": []})
    results["seconds"]["step0"] = 1.0
    assert f"{line}no bi-encoder has learnt.".replace("as it came", "as step 0 made it") in remarks(results)


@pytest.mark.parametrize(("kind", "length"), [("cross-encoder", "max_steps"), ("bi-encoder", "num_train_epochs")])
def test_the_advice_names_keys_that_have_an_effect(stopped: tuple[Path, Any], kind: str, length: str) -> None:
    results = results_of(stopped[0])
    (failed,) = results["not_learnt"]
    assert failed["length"] == "num_train_epochs"
    assert failed["added_pairs"] == 192
    failed |= {"kind": kind, "length": length, "added_pairs": 0}
    section = kind.replace("-", "_")
    larger = f"larger steps ({section}.learning_rate)"
    more = "more pairs (mining.pairs adds some of the pool's own sentences)"
    assert f"for 17 steps only: {more}, more steps ({section}.{length}) or {larger} may" in remarks(results)[0]
    # where there were enough, more of them add nothing
    failed["steps"] = 200
    assert remarks(results)[0].endswith(f"for 200 steps: {more}, {larger} or another PLM may help.")
    mined = remarks(results | {"mining": {}})
    assert mined[0].endswith(f"for 200 steps: more pairs, {larger} or another PLM may help.")
    failed["added_pairs"] = 192
    assert remarks(results)[0] == mined[0]
    results["not_learnt"].append(failed | {"kind": "bi-encoder", "stopped": False})
    if kind == "cross-encoder":
        assert remarks(results)[1].endswith("A cross-encoder that it learnt from has not learnt either.")


@pytest.mark.parametrize(
    "more", [("--data.dev", "null"), ("--distillation.selection", "auto")], ids=["last", "dev set"]
)
def test_a_student_that_has_not_learnt_is_named_where_it_teaches_all_the_same(
    more: tuple[str, ...], tiny: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    done = run_forked(
        JOB, tiny_arguments(tiny, output, *brief_gold(tmp_path), "--distillation.selection", "last", *more)
    )
    assert done.returncode == 0, done.stderr
    results = results_of(output)
    assert [entry["cycle"] for entry in results["cycles"]] == [1, 2]
    failed = [entry for entry in results["not_learnt"] if entry["kind"] == "cross-encoder"]
    assert [(entry["cycle"], entry["stopped"]) for entry in failed] == [(1, False), (2, False)]
    kept, is_good = (results["final"]["tiny"]["cross-encoder"][key] for key in ("cycle", "as_good_as_start"))
    assert not is_good
    reasons = " ".join(f"Cycle {entry['cycle']}: {entry['reason']}." for entry in failed)
    line = f"tiny: the cross-encoder has not learnt its labels. {reasons} It taught all the same and that of cycle "
    line += f"{kept} was kept. It was trained for 6 steps only: more pairs (mining.pairs adds some of the pool's "
    line += "own sentences), more steps (cross_encoder."
    card = model_card(FinishedRun.load(output), Upload("me/x", "tiny", ["cross-encoder"], False), None)
    for text in (done.stdout, card, *((output / name).read_text("utf-8") for name in ("report.md", "report.html"))):
        assert line in " ".join(html.unescape(text).replace("\\", "").split())
    for entry in failed:
        said = f"warning: cycle {entry['cycle']} tiny: cross-encoder has not learnt its labels: {entry['reason']}. It "
        said += "teaches all the same\n"
        assert done.stderr.index(said) < done.stderr.index(f"cycle {entry['cycle']}/2 tiny: train bi-encoder | begins")


def test_the_start_is_kept_as_it_came(stopped: tuple[Path, Any], tiny: Path) -> None:
    output, _ = stopped
    final = results_of(output)["final"]["tiny"]
    assert final.keys() == {"bi-encoder"}
    assert final["bi-encoder"]["cycle"] == 0
    assert final["bi-encoder"]["test"] == results_of(output)["start"]["tiny"]["bi-encoder"]["test"]
    assert not (output / "tiny" / "cross-encoder").exists()
    kept = SentenceTransformer(str(output / "tiny" / "bi-encoder"), device="cpu")
    texts = ["where is my parcel", "the router does not start"]
    weights = (output / "tiny" / "bi-encoder" / "model.safetensors").stat().st_size
    assert weights <= (tiny / "model.safetensors").stat().st_size
    assert kept.max_seq_length == 32
    assert np.isfinite(kept.encode(texts)).all()


def test_a_run_that_stopped_is_finished(stopped: tuple[Path, Any], tiny: Path) -> None:
    output, _ = stopped
    before = results_of(output)
    again = run_forked(JOB, without_gold(tiny, output))
    assert again.returncode == 0, again.stderr
    assert "there is nothing to do" in again.stdout
    (output / "results.json").unlink()
    again = run_forked(JOB, without_gold(tiny, output))
    assert again.returncode == 0, again.stderr
    after = results_of(output)
    assert {key: after[key] for key in ("final", "not_learnt", "health")} == {
        key: before[key] for key in ("final", "not_learnt", "health")
    }


@pytest.mark.slow
def test_a_kill_in_the_second_training_changes_nothing(stopped: tuple[Path, Any], tiny: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    folder = killed / "cycle-1" / "tiny"
    process = Forked(JOB, without_gold(tiny, killed), clock=0)
    # the first training has 6 steps
    checkpoints = folder / ".training-cross-encoder"
    process.kill_at(checkpoints, "checkpoint-[789]/checkpoint-is-whole")
    assert json.loads((folder / "cross-encoder.json").read_text(encoding="utf-8"))["attempt"] == 1
    last = run_forked(JOB, without_gold(tiny, killed))
    assert last.returncode == 0, last.stderr
    assert "train cross-encoder | " not in last.stderr
    assert "train cross-encoder, again | " in last.stderr
    check_time_of_both_trainings(killed)
    assert "The run will take about" in stopped[1].stderr and "The run will take about" not in last.stderr
    assert (killed / "neighbours.json").read_bytes() == (stopped[0] / "neighbours.json").read_bytes()
    assert what_was_learnt(killed) == what_was_learnt(stopped[0])


@pytest.mark.slow
def test_a_kill_between_record_and_encoder_of_the_second_training_changes_nothing(
    stopped: tuple[Path, Any], tiny: Path, tmp_path: Path
) -> None:
    """The record is the second training's, and the first one's encoder must not be taken for what it tells of."""
    killed = tmp_path / "killed"
    lines = [
        "import os, signal",
        "from te_trainer.runs import training",
        "write = training.write_json",
        "def write_and_die(path, content, **how):",
        "    write(path, content, **how)",
        "    if content.get('attempt') == 2:",
        "        os.kill(os.getpid(), signal.SIGKILL)",
        "training.write_json = write_and_die",
    ]
    assert run_forked(script_with(tmp_path, *lines), without_gold(tiny, killed)).returncode == -9
    last = run_forked(JOB, without_gold(tiny, killed))
    assert last.returncode == 0, last.stderr
    assert what_was_learnt(killed) == what_was_learnt(stopped[0])


def what_was_learnt(output: Path) -> dict[str, Any]:
    """What a run's results say, but for its times and its folder."""
    results = results_of(output)
    for cycle in results["health"]["cycles"]:
        cycle["tiny"]["cross-encoder"].pop("seconds")
    results["final"]["tiny"]["bi-encoder"].pop("path")
    return {key: results[key] for key in ("final", "not_learnt", "health")}


def test_gold_keeps_the_start_where_no_cycle_is_better(tiny: Path, tmp_path: Path) -> None:
    """A learning rate that spoils the encoder: `dev` keeps the best cycle all the same, `auto` the start."""
    lines = (SAMPLE / "pool.tsv").read_text(encoding="utf-8").splitlines()[1:41]
    # gold is what the start says: nothing can be better
    start = SentenceTransformer(str(tiny), device="cpu")
    start.max_seq_length = 32
    pairs = [line.split("\t") for line in lines]
    scores = start.similarity_pairwise(start.encode([one for one, _ in pairs]), start.encode([two for _, two in pairs]))
    rows = [f"{score:.6f}\t{one}\t{two}" for score, (one, two) in zip(scores.tolist(), pairs, strict=True)]
    (tmp_path / "gold.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *rows]) + "\n", encoding="utf-8")
    spoilt = ["--bi_encoder.learning_rate", "0.05", "--distillation.students", "bi-encoder", "--data.test", "[]"]
    spoilt += ["--distillation.cycles", "1"]
    for selection, cycle in (("auto", 0), ("dev", 1)):
        output = tmp_path / selection
        more = ("--distillation.selection", selection, "--data.dev", str(tmp_path / "gold.tsv"), *spoilt)
        done = run_forked(JOB, tiny_arguments(tiny, output, *more))
        assert done.returncode == 0, done.stderr
        final = results_of(output)["final"]["tiny"]["bi-encoder"]
        assert final["cycle"] == cycle
        assert final["as_good_as_start"] == (final["cycle"] == 0)
    for each in ("auto", "dev"):
        assert json.loads((tmp_path / each / "neighbours.json").read_text(encoding="utf-8"))["tiny"]["cycle"] == 1
    card = model_card(FinishedRun.load(tmp_path / "dev"), Upload("me/x", "tiny", ["bi-encoder"], False), None)
    assert "Made by self-distillation of bi-encoders" in card and "cross-encoder learns" not in card
    pages = [(tmp_path / each / "report.html").read_text(encoding="utf-8") for each in ("auto", "dev")]
    assert ["bi-encoder of cycle 1, which was not kept, as by the start" in page for page in pages] == [True, False]


@pytest.mark.parametrize(
    ("selection", "has_step0", "is_lenient", "cycle"),
    [("auto", True, True, 2), ("auto", False, True, 0), ("auto", True, False, 0), ("health", False, True, 2)],
    ids=str,
)
def test_students_of_a_start_that_has_seen_no_label_are_kept(
    selection: str, has_step0: bool, is_lenient: bool, cycle: int, tiny: Path, tmp_path: Path
) -> None:
    """With a bound that a pool of the tests keeps; where lenient, with others that a random model's students keep."""
    output = tmp_path / "run"
    lines = ["from te_trainer.distillation import health, plan", "plan.LEAST_TO_TRUST = 90"]
    lines += ["health.MIN_AGREEMENT = health.MIN_SPREAD = health.MIN_GRADED = -1"] * is_lenient
    section = {"pooling": "mean", "method": "simcse", "mlp_head": False, "max_steps": 2}
    section["per_device_train_batch_size"] = 8
    (tmp_path / "step0.yaml").write_text(json.dumps({"contrastive": section}), encoding="utf-8")
    more = ["--distillation.step0", str(tmp_path / "step0.yaml")] * has_step0
    more += [*brief_gold(tmp_path), "--distillation.selection", selection, "--data.dev", "null"]
    done = run_forked(script_with(tmp_path, *lines), tiny_arguments(tiny, output, *more))
    assert done.returncode == 0, done.stderr
    final = results_of(output)["final"]["tiny"]
    assert final["bi-encoder"]["cycle"] == cycle
    assert final.keys() == ({"bi-encoder", "cross-encoder"} if is_lenient else {"bi-encoder"})
    if is_lenient:
        # why it is kept makes it no better
        assert not final["cross-encoder"]["as_good_as_start"]
        healths = results_of(output)["health"]["cycles"]
        agreed = [entry["tiny"]["cross-encoder"]["start"] for entry in healths]
        most = 1 + agreed.index(max(agreed))
        assert final["cross-encoder"]["cycle"] == (cycle or most)
        # of pairs that it has learnt, an agreement as high says little
        changed = results_of(output)
        changed["health"]["cycles"][final["cross-encoder"]["cycle"] - 1]["tiny"]["cross-encoder"] |= {
            "pairs": 32, "start": 0.98,
        }  # fmt: skip
        assert any("which says little, because it has learnt these pairs" in line for line in remarks(changed))
        del changed["health"]["cycles"][final["cross-encoder"]["cycle"] - 1]["tiny"]["cross-encoder"]["start"]
        said = f"the cross-encoder of cycle {final['cross-encoder']['cycle']}, of which nothing says how good it is"
        assert any(said in line for line in remarks(changed))
    text = " ".join((output / "report.md").read_text(encoding="utf-8").split())
    assert ("On the test sets, which chose nothing, the start scores" in text) == is_lenient
    assert "the cross-encoder that was kept " in text or not is_lenient
    assert ("the bi-encoder that was kept " in text) == bool(cycle)
    assert ("the last encoders that have learnt are kept" in text) == bool(cycle)
    assert ("the start has seen no label and the pool is large enough" in text) == bool(cycle)
    hint = "from 4,000 pairs on, with both kinds of students and no pairs of nearest neighbours; from 1,000 "
    assert (hint in text) == bool(cycle)
    if cycle:
        (said,) = (line for line in remarks(results_of(output) | {"pairs": 4000}) if "the last that has learnt" in line)
        assert said.endswith("Students of such a start were better than it in our runs (docs/selection.md).")
    assert ("too few pairs to call it as good as the start (32 pairs, 97.00)" in text) == is_lenient
    assert results_of(output).get("trusts_students", False) == bool(cycle)
    assert ("distillation.selection health keeps them" in text) == (is_lenient and not cycle)


def test_of_several_plms_each_keeps_what_has_learnt(tiny: Path, few_gold: list[str], tmp_path: Path) -> None:
    """One whose cross-encoder sees nothing ends the cycles; that of the other is kept, and the report says why."""
    output, blind = tmp_path / "run", Path(shutil.copytree(tiny, tmp_path / "blind"))
    model = AutoModel.from_pretrained(blind)
    with torch.no_grad():
        for weight in model.embeddings.parameters():
            weight.zero_()
    model.save_pretrained(blind)
    lines = ["from te_trainer.distillation import health", "health.MIN_SPREAD = 1e-9"]
    lines += ["health.MIN_AGREEMENT = health.MIN_GRADED = -1"]
    arguments = tiny_arguments(tiny, output, *few_gold, "--distillation.selection", "health")
    arguments[1] = f"[{{bi_encoder: {tiny}, cross_encoder: {blind}, name: one}}, {{bi_encoder: {tiny}, name: two}}]"
    done = run_forked(script_with(tmp_path, *lines), arguments)
    assert done.returncode == 0, done.stderr
    results = results_of(output)
    assert "warning: dev: dev has few pairs; scores that differ by several points may be chance\n" in done.stderr
    kept = {
        name: {kind: entry.get("cycle") for kind, entry in final.items()} for name, final in results["final"].items()
    }
    both = {"bi-encoder": 0, "cross-encoder": 1}
    assert kept == {"one": {"bi-encoder": 0}, "two": both, "ensemble": {"bi-encoder": None}}
    assert results["cycles"] == [
        {"cycle": 1, "one": {}, "two": {"cross-encoder": results["cycles"][0]["two"]["cross-encoder"]}}
    ]
    assert [(entry["name"], entry["stopped"]) for entry in results["not_learnt"]] == [("one", True)]
    assert (output / "two" / "cross-encoder" / "model.safetensors").is_file()
    assert "in " + str(output / "NAME" / "bi-encoder") + " and " in done.stdout
    line = (
        "two: the cycles ended because the cross-encoder of one has not learnt in cycle 1; each model learns from the "
    )
    for text in (done.stdout, *((output / name).read_text("utf-8") for name in ("report.md", "report.html"))):
        assert line in " ".join(text.split())
    run = FinishedRun.load(output)
    assert run.kinds == ["bi-encoder", "cross-encoder"] and run.kinds_of("one") == ["bi-encoder"]
    uploads = _uploads(HubConfig(repo_id="me/x"), {name: run.kinds_of(name) for name in run.names})
    assert [each.repo_id for each in uploads] == [
        "me/x-one-bi-encoder",
        "me/x-two-bi-encoder",
        "me/x-two-cross-encoder",
    ]
    assert "two · cross-encoder" in (output / "report.html").read_text("utf-8")


def test_what_may_be_called_as_good_as_the_start() -> None:
    def is_good(dev_pairs: int = 0, dev: float | None = None, held_out: bool = True, **health: float) -> bool:
        scores = {} if dev is None else {"dev": dev}
        start = {"scores": {} if dev is None else {"dev": 0.8}, "health": {}}
        record = {"scores": scores, "health": {"pairs": 40, "spread": 1.0} | health}
        return is_as_good_as_start(record, start, dev_pairs, held_out)

    assert is_good(32, 0.795, start=0.1) and is_good(32, 0.795, held_out=False, start=0.1)
    assert not is_good(1000, 0.78, start=0.99)
    # of a few pairs any encoder may order some right, also one that has learnt nothing
    assert not is_good(31, 0.9, agreement=0.9)
    assert not is_good(1000, 0.9, agreement=-0.4)
    assert not is_good(std=0.0)
    assert is_good(pairs=32, start=0.98)
    assert not is_good(start=0.81)
    # two pairs agree by chance
    assert not is_good(pairs=31, start=1.0)
    # what an encoder has learnt by heart says nothing of other pairs
    assert not is_good(held_out=False, start=0.98)
