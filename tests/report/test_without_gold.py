"""A run without gold scores shows what it knows instead, and never a table of scores without numbers."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import process_environment, results_of, tiny_arguments
from forked import drawn_curves, run_forked
from matplotlib import image
from sentence_transformers import SentenceTransformer

from te_trainer.report.run_results import has_scores
from te_trainer.report.run_tables import health_table
from te_trainer.report.summary import write_curves

JOB = "trans_encoder.py"


@pytest.fixture(scope="module")
def root(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def arguments(root: Path, tiny: Path) -> list[str]:
    """A run whose encoders cut some texts and not others, and whose cycles agreement chooses."""
    return [
        *tiny_arguments(tiny, root, "--data.dev", "null", "--data.test", "[]"),
        *("--distillation.selection", "agreement", "--bi_encoder.max_length", "8", "--bi_encoder.prompt", "my router "),
        *("--bi_encoder.logging_steps", "1", "--bi_encoder.num_train_epochs", "1"),
        *("--cross_encoder.max_length", "16"),
    ]


@pytest.fixture(scope="module")
def finished(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    done = run_forked(JOB, arguments, charts=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def results(root: Path, finished: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return results_of(root)


def test_health_holds_what_is_known_without_gold(root: Path, results: dict[str, Any]) -> None:
    found = results["health"]
    assert {"pairs", "std", "distinct", "orders", "graded"} == found["start"]["tiny"]["bi-encoder"].keys()
    for cycle in (1, 2):
        cross, bi = (found["cycles"][cycle - 1]["tiny"][kind] for kind in ("cross-encoder", "bi-encoder"))
        for kind, entry in (("cross-encoder", cross), ("bi-encoder", bi)):
            folder = root / f"cycle-{cycle}" / "tiny"
            record = json.loads((folder / f"{kind}.training.json").read_text(encoding="utf-8"))
            assert entry["steps"] == record["steps"]
            health = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))["health"]
            assert health.items() <= entry.items()
            assert {"agreement", "start", "spread"} <= health.keys()
        if cycle == 1:
            assert cross["start"] == cross["agreement"]  # it learns the start's labels
            assert bi["start"] != bi["agreement"]
        assert bi["orders"] == pytest.approx(1, abs=1e-6)  # a cosine has no order
        assert bi["loss"] > 0
        assert "loss" not in cross  # it ended before the first log


def test_the_terminal_and_the_report_show_health(
    root: Path, finished: subprocess.CompletedProcess[str], results: dict[str, Any]
) -> None:
    report = (root / "report.md").read_text(encoding="utf-8")
    page = (root / "report.html").read_text(encoding="utf-8")
    for text in (finished.stdout, report, page):
        std = results["health"]["start"]["tiny"]["bi-encoder"]["std"]
        for word in ("agreement", "spread", "distinct", "edits", f"{std:.3f}"):
            assert word in text
        assert "Spearman × 100. " not in text
    assert "spearman × 100" not in finished.stdout.lower()
    assert "health (without gold)" in finished.stdout
    assert "There are no gold scores." in report
    assert "| start | bi-encoder |" in report
    assert not has_scores(results)
    table = health_table(results)
    assert len(table.rows) == 5
    assert all(len(row) == len(table.columns) == 11 for row in table.rows)
    kept = {row[1]: row[0] for row in table.rows if row[0].startswith("kept")}
    assert kept == {kind: f"kept: cycle {entry['cycle']}" for kind, entry in results["final"]["tiny"].items()}


def test_every_report_says_what_was_kept_and_what_nobody_knows(
    root: Path, finished: subprocess.CompletedProcess[str], results: dict[str, Any]
) -> None:
    kept = results["final"]["tiny"]["bi-encoder"]
    health = results["health"]["cycles"][kept["cycle"] - 1]["tiny"]["bi-encoder"]
    verdict = (
        f"tiny: this run keeps the bi-encoder of cycle {kept['cycle']}, whose scores of {health['pairs']} pairs of "
    )
    verdict += f"the pool agree with the start's to {100 * health['start']:z.2f}, "
    texts = [(root / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    for text in (finished.stdout, *texts):
        shown = html.unescape(text)
        assert verdict in shown and "nobody knows without gold scores" in shown and "te-trainer annotate" in shown
    for text, table in zip(texts, ("| start |", "<table>"), strict=True):
        assert text.index("nobody knows") < text.index(table)


def test_the_page_shows_the_neighbours_that_changed_most(
    root: Path, finished: subprocess.CompletedProcess[str], tiny: Path, results: dict[str, Any]
) -> None:
    found = json.loads((root / "neighbours.json").read_text(encoding="utf-8"))["tiny"]
    assert found["cycle"] == results["final"]["tiny"]["bi-encoder"]["cycle"]
    assert 0 < len(found["changed"]) <= 6
    page = html.unescape((root / "report.html").read_text(encoding="utf-8"))
    assert page.count('<ol class="near">') == 2 * len(found["changed"])
    assert "which was not kept" not in page
    # the kept encoder itself finds them, and not the start
    encoder = SentenceTransformer(str(root / "tiny" / "bi-encoder"), device="cpu")
    for each in found["changed"]:
        assert [entry["rank"] for entry in each["after"]] == [1, 2, 3]
        assert max(entry["rank"] for entry in each["before"]) > 3
        for entry in each["after"]:
            one, two = encoder.encode([each["sentence"], entry["sentence"]])
            assert entry["cosine"] == pytest.approx(float(encoder.similarity(one, two)), abs=1e-3)
            assert entry["sentence"] in page


def test_the_curves_are_no_empty_axis(root: Path, finished: subprocess.CompletedProcess[str]) -> None:
    picture = image.imread(root / "curves.png")
    blue, orange = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
    for colour in (blue, orange):
        assert (np.abs(picture[..., :3] * 255 - colour).max(-1) < 3).sum() > 100


@drawn_curves()
def test_what_has_no_points_has_no_axis(results: dict[str, Any], tmp_path: Path) -> None:
    """Of a run that ended before anything was trained, whose start agrees with no labels."""
    few = {"start": results["start"], "cycles": [], "health": {"start": results["health"]["start"], "cycles": []}}
    write_curves(tmp_path / "few.png", few, "spearman")
    write_curves(tmp_path / "all.png", results, "spearman")
    widths = [image.imread(tmp_path / name).shape[1] for name in ("few.png", "all.png")]
    assert widths == [960, 1440]


def test_curves_need_no_screen_that_a_notebook_has_named(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    code = (
        "import json, sys; from pathlib import Path; from te_trainer.report.summary import write_curves\n"
        "write_curves(Path('curves.png'), json.loads(Path('results.json').read_text()), 'spearman')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = process_environment(MPLBACKEND="module://matplotlib_inline.backend_inline")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert image.imread(tmp_path / "curves.png").shape[1] == 1440


def test_what_is_cut_is_said_before_work_starts(
    root: Path, finished: subprocess.CompletedProcess[str], results: dict[str, Any]
) -> None:
    found = results["truncation"]["tiny"]
    assert {kind: entry["max_length"] for kind, entry in found.items()} == {"bi-encoder": 8, "cross-encoder": 16}
    assert found["cross-encoder"]["texts"] == 96
    lines = {
        kind: f"tiny: {kind}: {entry['cut']} of {entry['texts']} {texts} ({100 * entry['share']:.1f} %) have more than "
        f"{entry['max_length']} tokens and are cut; a larger {kind.replace('-', '_')}.max_length reads more"
        for (kind, entry), texts in zip(found.items(), ("distinct sentences", "pairs"), strict=True)
    }
    report = (root / "report.md").read_text(encoding="utf-8")
    page = (root / "report.html").read_text(encoding="utf-8")
    for kind, line in lines.items():
        assert 0 < found[kind]["cut"] < found[kind]["texts"]
        assert 0 <= finished.stderr.index(line) < finished.stderr.index("label with bi-encoder")
        for text in (finished.stdout, report, page):
            assert line in text.replace("\\_", "_")


def test_a_run_that_goes_on_reads_the_count(root: Path, arguments: list[str], results: dict[str, Any]) -> None:
    """The count lies beside the pool: what stands there is taken, not counted again."""
    file = root / "pool" / "truncation.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    found["tiny"]["bi-encoder"]["cut"] = 7
    file.write_text(json.dumps(found), encoding="utf-8")
    (root / "results.json").unlink()
    neighbours = (root / "neighbours.json").read_bytes()
    (root / "neighbours.json").write_bytes(neighbours + b"\n")
    again = run_forked(JOB, arguments)
    assert again.returncode == 0, again.stderr
    assert "tiny: bi-encoder: 7 of " in again.stderr
    # its encoders of the cycles are gone by now
    assert (root / "neighbours.json").read_bytes() == neighbours + b"\n"
    assert results_of(root)["health"] == results["health"]
