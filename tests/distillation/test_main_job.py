"""The main job from its command line to what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SAMPLE, brief_gold, results_of, run_launched, tiny_arguments
from datasets import load_from_disk
from forked import run_forked
from references import their_scores
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from te_trainer.metrics import spearman
from te_trainer.metrics.bootstrap import resampled
from te_trainer.report.verdicts import verdict

JOB = "trans_encoder.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run through `accelerate launch`, with TensorBoard."""
    folder = tmp_path_factory.mktemp("runs") / "job"
    finished = run_launched("cpu.yaml", JOB, *tiny_arguments(tiny, folder, "--report_to", "[tensorboard]"))
    assert finished.returncode == 0, finished.stderr
    (folder / "stdout").write_text(finished.stdout)
    (folder / "stderr").write_text(finished.stderr)
    return folder


@pytest.fixture(scope="module")
def results(output: Path) -> dict[str, Any]:
    return results_of(output)


def gold(split: str) -> tuple[list[str], list[str], list[float]]:
    rows = [line.split("\t") for line in (SAMPLE / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    return [row[1] for row in rows], [row[2] for row in rows], [float(row[0]) for row in rows]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_sentence_transformers_scores_as_results_say(output: Path, results: dict[str, Any], split: str) -> None:
    one, two, scores = gold(split)
    for kind in ("bi-encoder", "cross-encoder"):
        final = results["final"]["tiny"][kind]
        expected = final["dev"] if split == "dev" else final["test"]["test"]
        found = spearmanr(their_scores(output / "tiny" / kind, one, two), scores).statistic
        assert found == pytest.approx(expected, abs=1e-4), kind


@pytest.mark.parametrize("split", ["dev", "test"])
def test_gains_have_the_interval_of_the_paired_bootstrap(
    output: Path, results: dict[str, Any], tiny: Path, split: str
) -> None:
    one, two, scores = gold(split)
    start = SentenceTransformer(str(tiny), device="cpu")
    start.max_seq_length = 32
    before = start.similarity_pairwise(start.encode(one), start.encode(two)).numpy()
    report = " ".join((output / "report.md").read_text(encoding="utf-8").split())
    for kind in ("bi-encoder", "cross-encoder"):
        after = their_scores(output / "tiny" / kind, one, two)
        old, new = (
            resampled([spearman], predicted, np.array(scores), seed=2021, name=split)[0]
            for predicted in (before, after)
        )
        gain = results["gains"]["tiny"][kind][split]
        assert gain["interval"] == pytest.approx(np.percentile(new - old, [2.5, 97.5]), abs=2e-4)
        expected = spearmanr(after, scores).statistic - spearmanr(before, scores).statistic
        assert (gain["difference"], gain["pairs"]) == (pytest.approx(expected, abs=2e-4), len(scores))
        said = verdict(f"the {kind} that was kept", "the start", split, "points", gain, len(scores))
        assert said[4:] in report
    assert report.count("So a gain on dev is likely higher") == 1


def test_transformers_loads_both(output: Path) -> None:
    for kind, auto in (("bi-encoder", AutoModel), ("cross-encoder", AutoModelForSequenceClassification)):
        _, info = auto.from_pretrained(output / "tiny" / kind, output_loading_info=True)
        # AutoModel builds a BERT pooler of its own, which a bi-encoder does not have.
        assert not {key for key in info["missing_keys"] if not key.startswith("pooler.")}, kind
        assert not info["unexpected_keys"], kind


def test_results_follow_the_contract(results: dict[str, Any]) -> None:
    def check(scores: dict[str, Any]) -> None:
        assert -1 <= scores["dev"] <= 1
        assert scores["test"].keys() == {"test", "avg"}

    assert {"start", "cycles", "final", "seconds", "environment", "truncation", "health"} <= results.keys()
    check(results["start"]["tiny"]["bi-encoder"])
    assert [entry["cycle"] for entry in results["cycles"]] == [1, 2]
    for entry in results["cycles"]:
        for kind in ("bi-encoder", "cross-encoder"):
            check(entry["tiny"][kind])
    for kind, entry in results["final"]["tiny"].items():
        check(entry)
        assert Path(entry["path"]).is_dir()
        best = max(results["cycles"], key=lambda cycle: cycle["tiny"][kind]["dev"])
        assert (entry["cycle"], entry["dev"]) == (best["cycle"], best["tiny"][kind]["dev"])
    seconds = results["seconds"]
    assert seconds.keys() == {"label_bi", "train_cross", "label_cross", "train_bi", "evaluate", "health", "total"}
    assert all(value > 0 for value in seconds.values())


def test_a_run_whose_dev_set_chose_does_not_call_itself_unsupervised(output: Path, results: dict[str, Any]) -> None:
    records = list(output.glob("cycle-*/tiny/*.training.json"))
    assert len(records) == 4
    assert all(json.loads(record.read_text(encoding="utf-8"))["dev_curve"] for record in records)
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "unsupervised" not in report and "Gold scores of the dev set are reported only." not in report
    assert "Gold scores of the dev set chose checkpoints and cycles." in report
    assert "agreement" not in results


def test_the_folder_holds_what_the_contract_names_and_nothing_half_done(output: Path) -> None:
    for name in ("run.yaml", "results.json", "report.html", "report.md", "curves.png", "neighbours.json"):
        assert (output / name).stat().st_size > 0
    run = yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))
    assert run["config"]["seed"] == 2021
    assert run["resolved"]["tiny"]["cross-encoder"]["learning_rate"] == 2e-5
    assert {"versions", "pool", "models"} <= run.keys()
    for cycle in (1, 2):
        for kind in ("bi-encoder", "cross-encoder"):
            labels = load_from_disk(str(output / f"cycle-{cycle}" / "tiny" / f"{kind}-labels"))
            assert labels.features["score"].dtype == "float32"
            assert len(labels) == 96
            assert np.isfinite(labels["score"][:]).all()
            folder = output / f"cycle-{cycle}" / "tiny" / f"{kind}-labels"
            about = json.loads((folder / "fingerprint.json").read_text(encoding="utf-8"))
            assert {"teacher", "pool", "precision", "max_length"} <= about.keys()
    hidden = [path for path in output.rglob(".*") if path.name != ".lock"]
    assert not hidden
    assert not list(output.rglob("cache-*.arrow"))
    assert not list(output.rglob("training_args.bin"))


def test_the_log_is_plain_lines_without_a_terminal(output: Path) -> None:
    log = (output / "stderr").read_text(encoding="utf-8")
    log = log[log.index("pool: ") :]  # before it, accelerate lists which defaults it took
    lines = log.splitlines()
    assert "96 pairs" in lines[1]
    assert sum(line.startswith("The run will take about") for line in lines) == 1
    assert any("cycle 2/2 tiny: train bi-encoder | done | run 100%" in line for line in lines)
    assert "Warning" not in log and "has few pairs" not in log
    assert "\x1b" not in log
    closing = (output / "stdout").read_text(encoding="utf-8")
    assert "kept: cycle" in closing
    assert f"the encoders are in {output}/NAME/bi-encoder and {output}/NAME/cross-encoder.\n" in closing
    assert "start" in closing


def test_tensorboard_has_a_run_a_stage(output: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for cycle in (1, 2):
        for kind in ("bi-encoder", "cross-encoder"):
            events = EventAccumulator(str(output / "logs" / f"cycle-{cycle}" / "tiny" / kind)).Reload()
            assert "eval/spearman" in events.Tags()["scalars"]


def test_two_runs_agree(tiny: Path, output: Path, results: dict[str, Any], tmp_path: Path) -> None:
    """Alone, and started without accelerate: the same seed gives the same weights."""
    finished = run_forked(JOB, tiny_arguments(tiny, tmp_path / "again"))
    assert finished.returncode == 0, finished.stderr
    again = results_of(tmp_path / "again")
    assert again["cycles"] == results["cycles"]
    for kind in ("bi-encoder", "cross-encoder"):
        weights = [folder / "tiny" / kind / "model.safetensors" for folder in (output, tmp_path / "again")]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_two_plms_share_labels_and_nothing_gold_is_needed(tiny: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    """Two PLMs of differing kinds, weights passed on, no dev set, the last cycle kept."""
    few = ["--data.max_pairs", "32", *brief_gold(tmp_path)[2:]]
    arguments = tiny_arguments(tiny, tmp_path / "run", "--distillation.selection", "last", *few)
    at = arguments.index("--data.dev")
    del arguments[at : at + 2]
    arguments[1] = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny_roberta}, name: two, pooling: mean}}]"
    finished = run_forked(JOB, [*arguments, "--distillation.init", "sequential", "--bi_encoder.num_train_epochs", "1"])
    assert finished.returncode == 0, finished.stderr
    results = results_of(tmp_path / "run")
    assert "dev" not in results["start"]["one"]["bi-encoder"]
    assert {results["final"][name]["bi-encoder"]["cycle"] for name in ("one", "two")} == {2}
    assert results["final"]["ensemble"].keys() == {"bi-encoder", "cross-encoder"}
    pooling = json.loads((tmp_path / "run" / "two" / "bi-encoder" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] is True


def test_encoders_that_give_one_score_to_all_pairs_are_scored_zero(tiny: Path, tmp_path: Path) -> None:
    flat = AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        for weight in flat.parameters():
            weight.zero_()
    flat.save_pretrained(tmp_path / "flat")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "flat")
    more = ["--distillation.cycles", "1", "--bi_encoder.num_train_epochs", "1"]
    # as a start it would teach nothing
    done = run_forked(JOB, tiny_arguments(tmp_path / "flat", tmp_path / "refused", *more))
    assert done.returncode == 2
    assert "models: the start of tiny gives all 96 pairs the same score (0.000), so that" in done.stderr
    assert "choose pairs that differ in their first 32 tokens" in done.stderr
    assert "warning: tiny: the start finds a heavily edited sentence no less similar" in done.stderr
    models = f"[{{name: tiny, bi_encoder: {tiny}, cross_encoder: {tmp_path / 'flat'}}}]"
    done = run_forked(JOB, [*tiny_arguments(tiny, tmp_path / "run", *more), "--models", models])
    assert done.returncode == 0, done.stderr

    def no_number(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for path in (tmp_path / "run").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    results = results_of(tmp_path / "run")
    assert results["final"]["tiny"]["cross-encoder"]["test"] == {"test": 0, "avg": 0}


@pytest.mark.parametrize("more", [(), ("--cross_encoder.max_steps", "1")], ids=["estimated", "scored"])
def test_a_start_with_broken_weights_is_named(tiny: Path, more: tuple[str, ...], tmp_path: Path) -> None:
    broken = AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "broken")
    done = run_forked(JOB, tiny_arguments(tmp_path / "broken", tmp_path / "run", *more))
    assert done.returncode == 1
    assert "error: tiny: start: the bi-encoder's score of pair 1 is nan; its weights are damaged" in done.stderr
