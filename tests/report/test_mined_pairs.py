"""What the report says of mined pairs: numbers that add up, examples that belong where they stand."""

from __future__ import annotations

import json
import re
from html import unescape
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_arguments
from datasets import Dataset
from forked import run_forked

from te_trainer.distillation.mined_record import EXAMPLE_BANDS, EXAMPLES, describe_mining
from te_trainer.mining.candidates import SOURCES, Candidates
from te_trainer.mining.draw import draw_by_score
from te_trainer.report.mined_pairs import SOURCE_TITLES, mining_description, mining_table

JOB = "trans_encoder.py"
DROPPED = ("near_duplicates", "in_pool")


@pytest.fixture(scope="module")
def root(tiny: Path, few_gold: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pool grows by pairs of its own sentences."""
    folder = tmp_path_factory.mktemp("runs") / "grown"
    mined = ("--mining.pairs", "60", "--mining.sources", "[neighbours, bm25, random]", "--mining.candidates", "8")
    short = ("--distillation.students", "bi-encoder", "--distillation.cycles", "1", "--bi_encoder.max_steps", "2")
    done = run_forked(JOB, tiny_arguments(tiny, folder, *few_gold, *mined, *short), charts=True)
    assert done.returncode == 0, done.stderr
    return folder


def read(root: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / name).read_text(encoding="utf-8"))
    return content


def check(record: dict[str, Any]) -> None:
    """Whether a record's numbers add up and its examples lie in their bands, which follow one another."""
    histogram = record["histogram"]
    assert len(histogram["edges"]) == len(histogram["pairs"]) + 1 == len(histogram["candidates"]) + 1
    for name in ("candidates", "pairs"):
        assert sum(histogram[name]) == sum(record[name].values())
    assert all(drawn <= found for drawn, found in zip(histogram["pairs"], histogram["candidates"], strict=True))
    assert all(record["pairs"][source] <= record["candidates"][source] for source in record["pairs"])
    bands = record["examples"]
    assert len(bands) == EXAMPLE_BANDS
    assert all(before["to"] == after["from"] for before, after in pairwise(bands))
    for band in bands:
        assert len(band["pairs"]) <= EXAMPLES
        assert all(band["from"] <= score <= band["to"] for _, _, score, _ in band["pairs"])


def test_the_record_of_many_candidates_adds_up() -> None:
    sentences = Dataset.from_dict({"sentence1": [f"sentence {number}" for number in range(80)]})
    rows = np.array(list(combinations(range(80), 2)))
    rng = np.random.default_rng(0)
    candidates = Candidates(rows, rng.integers(0, len(SOURCES), len(rows)).astype(np.uint8))
    # a few scores lie far beyond what all others are among
    scores = np.clip(rng.normal(0.3, 0.1, len(rows)), 0, 0.6)
    scores[:3] = -0.9, 0.95, 1.0
    drawn = np.union1d(draw_by_score(scores, rows, 200, 8, seed=0), [0, 1, 2])
    record = describe_mining(sentences, candidates, scores, drawn)
    check(record)
    assert max(len(band["pairs"]) for band in record["examples"]) == EXAMPLES
    assert (record["examples"][0]["from"], record["examples"][-1]["to"]) == (-0.9, 1.0)
    assert sum(record["candidates"].values()) == len(rows)
    assert sum(record["pairs"].values()) == len(drawn)
    number = {(f"sentence {one}", f"sentence {two}"): row for row, (one, two) in enumerate(rows.tolist())}
    for band in record["examples"]:
        for one, two, score, source in band["pairs"]:
            row = number[one, two]
            assert row in drawn
            assert (score, source) == (round(scores[row], 4), SOURCES[candidates.source[row]])


def test_the_record_and_the_table_of_a_run_add_up(root: Path) -> None:
    record, results = read(root, "pool/mined.json"), read(root, "results.json")
    check(record)
    assert sum(record["pairs"].values()) == 60
    assert sum(record["left_out"]["in_pool"].values()) > 0
    table = mining_table(results)
    assert table is not None
    assert [row[0] for row in table.rows] == [SOURCE_TITLES[name] for name in ("neighbours", "bm25", "random")]
    columns = [sum(int(row[column].replace(",", "")) for row in table.rows) for column in range(1, 5)]
    dropped = [sum(record["left_out"][name].values()) for name in DROPPED]
    assert columns == [*dropped, *(sum(record[name].values()) for name in ("candidates", "pairs"))]
    assert "candidates were scored by the start; pairs" in mining_description(results)
    assert "by the starts together; pairs" in mining_description(results | {"start": {"one": {}, "two": {}}})


def test_the_page_shows_chart_table_and_examples_high_scores_first(root: Path) -> None:
    page = (root / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="mining"') :]
    section = section[: section.index("</section>")]
    [chart] = re.findall(r"<svg.*?</svg>", section, re.DOTALL)
    assert "Histogram of the start's scores" in unescape(chart)
    assert chart.count("<path") > 5
    record = read(root, "pool/mined.json")
    shown = [band for band in reversed(record["examples"]) if band["pairs"]]
    titles = [title.replace("−", "-") for title in re.findall(r"<h3>(.*?)</h3>", section)]
    assert titles == [f"Score {band['from']:.2f} to {band['to']:.2f}" for band in shown]
    texts = [unescape(text) for text in re.findall(r'<p dir="auto">(.*?)</p>', section, re.DOTALL)]
    assert texts == [text for band in shown for pair in band["pairs"] for text in pair[:2]]
    for title in SOURCE_TITLES.values():
        assert (title in unescape(section)) == (title != SOURCE_TITLES["document"])
