"""What is read out of a run's `results.json`, here always called `results`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def model_names(results: dict[str, Any]) -> list[str]:
    """The PLMs of a run."""
    return [name for name in results["start"] if name != "ensemble"]


def has_scores(results: dict[str, Any]) -> bool:
    """Whether anything was scored against gold."""
    encoders = [each for name in model_names(results) for _, each in encoders_by_cycle(results, name)]
    return any("dev" in scores or "test" in scores for each in encoders for scores in each.values())


def encoders_by_cycle(part: dict[str, Any], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each cycle (0: start) and what is known of a PLM's encoders in it, from all results or their `health`."""
    yield 0, part["start"][name]
    for entry in part["cycles"]:
        yield entry["cycle"], entry[name]


def score_of(scores: dict[str, Any], part: str) -> float | None:
    """An encoder's dev score, or its average over the test sets."""
    return scores.get("dev") if part == "dev" else scores.get("test", {}).get("avg")


def overlap_entries(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each set with gold scores whose pairs were looked for in the pool: its role, and what was counted."""
    overlap = results["overlap"]
    entries = [("dev", overlap["dev"])] if "dev" in overlap else []
    return entries + [("test", entry) for entry in overlap["test"].values()]
