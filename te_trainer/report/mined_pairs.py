"""What the report says of a pool that was mined from sentences."""

from __future__ import annotations

from typing import Any

import numpy as np

from te_trainer.files.records import read_json
from te_trainer.report.charts import drawing_chart
from te_trainer.report.run_results import model_names
from te_trainer.report.table_formats import Table
from te_trainer.runs.finished import FinishedRun

SOURCE_TITLES = {
    "neighbours": "nearest by the start's vectors",
    "bm25": "rare words in common (BM25)",
    "document": "one after the other in a document",
    "random": "random",
}


def mining_description(results: dict[str, Any]) -> str:
    """How the pairs came to be, in a paragraph."""
    mining = results["mining"]
    drawn, found = (sum(mining[key].values()) for key in ("pairs", "candidates"))
    return (
        f"{drawn:,} pairs were mined from {mining['sentences']:,} sentences. {found:,} candidates were scored by "
        f"{'the starts together' if len(model_names(results)) > 1 else 'the start'}; pairs were drawn over the whole "
        "range of these scores, more of the high ones. Near-duplicates and pairs of data.pool had been left out."
    )


def mining_table(results: dict[str, Any]) -> Table | None:
    """What was left out, candidates and pairs by where they come from; None where nothing was mined."""
    if "mining" not in results:
        return None
    mining = results["mining"]
    columns = {
        "near-duplicates": mining["left_out"]["near_duplicates"],
        "in data.pool": mining["left_out"]["in_pool"],
        "candidates": mining["candidates"],
        "pairs drawn": mining["pairs"],
    }
    rows = [
        [title, *(f"{counts.get(source, 0):,}" for counts in columns.values())]
        for source, title in SOURCE_TITLES.items()
        if any(source in counts for counts in columns.values())
    ]
    return Table(["found by", *columns], rows)


def mining_section(run: FinishedRun) -> dict[str, Any] | None:
    """What the page shows of the mined pairs; None where nothing was mined."""
    table = mining_table(run.results)
    if table is None:
        return None
    histogram = run.results["mining"]["histogram"]
    shares = {name: np.array(histogram[name]) / max(1, sum(histogram[name])) for name in ("candidates", "pairs")}
    description = "Histogram of the start's scores: candidates pale, the pairs that were drawn dark."
    # examples are there while the pool's folder is as the run left it
    file = run.layout.mined_record
    bands = (
        read_json(file, "examples", then="the page is written without examples")["examples"] if file.exists() else []
    )
    return {
        "description": mining_description(run.results),
        "table": table,
        "chart": drawing_chart(
            "mined", description, np.array(histogram["edges"]), shares["candidates"], shares["pairs"]
        ),
        "bands": [
            {
                "title": f"Score {band['from']:.2f} to {band['to']:.2f}".replace("-", "−"),
                "pairs": [
                    (one, two, f"{score:.3f}".replace("-", "−"), SOURCE_TITLES[source])
                    for one, two, score, source in band["pairs"]
                ],
            }
            for band in reversed(bands)
            if band["pairs"]
        ],
    }
