"""Which pairs of a finished run's pool tell most about its start against its result, for a person to score."""

from __future__ import annotations

import shlex
from itertools import zip_longest

import numpy as np
from datasets import Dataset
from scipy.stats import rankdata

from te_trainer.config.types import SENTENCE_COLUMNS, Kind, Task
from te_trainer.data.outputs import tsv_cell
from te_trainer.errors import InputError
from te_trainer.runs.finished import FinishedRun

BANDS = 5
FORMULA = ("=", "+", "-", "@")  # what a formula begins with
MOST_SCORED = 20_000  # pairs of a pool among which is chosen

GUIDELINES = {
    "sts": (
        "Write a score into the first column of each row, from 0 to 5, and save the file.",
        "5: both sentences say the same. 4: all but a detail. 3: roughly the same, something important differs.",
        "2: not the same, but they share details. 1: only the topic is the same. 0: nothing in common.",
    ),
    "binary": (
        "Write 1 into the first column of each row whose sentences belong together (same meaning, question and answer,",
        "whatever your task counts as a match), 0 into that of each other row, and save the file.",
    ),
}
COMMON = (
    "Leave a row empty where you cannot tell. Judge the sentences alone, and all by the same standard; two people who",
    "score the same rows show how far that can be done.",
)


def compared_encoder(run: FinishedRun, name: str) -> Kind:
    """The encoder that is compared with the start: the bi-encoder, or the cross-encoder where the start was kept.

    Raises an InputError where the run kept nothing but the start.
    """
    kept = run.results["final"][name]
    if kept["bi-encoder"]["cycle"] > 0:
        return "bi-encoder"
    if "cross-encoder" in kept:
        return "cross-encoder"
    raise InputError(
        f"run: {run.root} kept {name}'s start and nothing else, so that there is nothing to compare; for gold scores, "
        "write pairs and your scores of them into a file with the columns score, sentence1 and sentence2"
    )


def start_for_comparison(run: FinishedRun, name: str) -> tuple[str, str]:
    """The start as the run used it: the folder where it was kept, else its name and the keys that make it so."""
    if run.results["final"][name]["bi-encoder"]["cycle"] == 0:
        return str(run.layout.kept_encoder(name, "bi-encoder")), ""
    section = run.manifest["config"]["bi_encoder"]
    pooling = run.model(name)["pooling"] or section["pooling"]
    keys = f" --max_length {section['max_length']}" + (f" --pooling {pooling}" if pooling else "")
    if section["prompt"] is not None:
        keys += f" --prompt {shlex.quote(section['prompt'])}"
    return run.start_path(name), keys


def annotation_file(pairs: Dataset, task: Task) -> str:
    """The text of a .tsv file: a guideline, the header, and a row a pair with an empty score.

    Cells that hold a quote are quoted, or a spreadsheet would read on until the next quote. Those that it would take
    for a formula begin with a space, which the reader of gold scores takes away.
    """
    header = "\t".join(("score", *SENTENCE_COLUMNS))
    rows = ("\t".join(("", *map(_cell, row))) for row in zip(*(pairs[name] for name in SENTENCE_COLUMNS), strict=True))
    return "\n".join([*(f"# {line}" for line in (*GUIDELINES[task], *COMMON)), header, *rows]) + "\n"


def _cell(text: str) -> str:
    cell = " " * text.startswith(FORMULA) + tsv_cell(text)
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if '"' in cell else cell


def telling_rows(start: np.ndarray, result: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose as many pairs of each fifth of the start's ranks, half of them those that the two disagree on most.

    Bands of equal width would hold more of the rare scores, but told less often which encoder is better on MRPC.

    `start` and `result` are scores by the start and by the run's encoder, shape (n,). Gives the numbers of min(count,
    n) rows in random order, so that nothing in the file hints at a score.
    """
    rng = np.random.default_rng(seed)
    shift = np.abs(rankdata(result) - rankdata(start))
    bands = np.array_split(np.argsort(start, kind="stable"), BANDS)
    queues = []
    for band in bands:
        by_shift = band[np.argsort(-shift[band], kind="stable")]
        drawn = rng.permutation(band)
        # one of each in turn
        queues.append(dict.fromkeys(row for both in zip(by_shift, drawn, strict=True) for row in both))
    in_turn = [row for turn in zip_longest(*queues) for row in turn if row is not None]
    return rng.permutation(np.array(in_turn[:count], dtype=np.int64))
