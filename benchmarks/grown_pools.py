"""What a small pool gains by pairs that are mined from its own sentences, beside as many steps on its pairs alone.

    python benchmarks/grown_pools.py --data-dir FOLDER --output runs/grown

FOLDER holds the files of the tasks. Each run is one cycle from all-MiniLM-L6-v2, which was trained on labelled pairs,
and is judged by 900 pairs of the same task, by Spearman's correlation x 100. Beside it stands the cross-encoder's
agreement with its labels on pairs that are held out, which a run knows without gold. In rows of as many steps the
cross-encoder learns from the pool's pairs alone, for as many steps as from the grown pool. Other options are the main
job's keys. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import yaml
from main_job import paired, results_of
from small_runs import DEV, MINILM, STS, TEST, Row, rows_of

TASKS = ["stsb", "mrpc", "qnli", "sts", *STS]


def write(file: Path, rows: list[Row]) -> None:
    lines = ["\t".join(map(str, row)) for row in rows]
    file.write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n", encoding="utf-8")


def row(folder: Path, keys: dict[str, str]) -> str:
    results = results_of(folder, keys)
    (start,) = results["start"].values()
    ((name, cycle),) = ((name, entry) for name, entry in results["cycles"][0].items() if name != "cycle")
    encoders = [start["bi-encoder"], cycle["cross-encoder"], cycle["bi-encoder"]]
    scores = " | ".join(f"{100 * encoder['test']['avg']:.2f}" for encoder in encoders)
    agreement = results["health"]["cycles"][0][name]["cross-encoder"]["agreement"]
    return f"{scores} | {100 * agreement:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/grown"))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["stsb", "mrpc"])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--mined", type=int, default=600, help="how many pairs are mined")
    parser.add_argument("--sources", help="that pairs are mined by ('[random]'); default: the main job's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--no-steps", action="store_true", help="leave out the rows of as many steps")
    options, rest = parser.parse_known_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print("| pool | seed | mined | start | cross-encoder | bi-encoder | agreement |\n| --- |" + " ---: |" * 6)
    for task in options.tasks:
        gold = options.output / f"{task}-gold.tsv"
        write(gold, random.Random(0).sample(rows_of(options.data_dir, task, gold=True), DEV + TEST))
        for seed in options.seeds:
            name = f"{task}-{options.pairs}-{seed}"
            pool = options.output / f"{name}.tsv"
            write(pool, random.Random(seed).sample(rows_of(options.data_dir, task, gold=False), options.pairs))
            keys = {"models": f"[{{bi_encoder: '{MINILM}', name: minilm}}]", "data.pool": str(pool)}
            keys |= {"data.test": str(gold), "distillation.cycles": "1", "distillation.selection": "last"}
            keys |= {"distillation.held_out": "0.1", "seed": str(seed)} | paired(rest)
            by = "" if options.sources is None else f"-{options.sources.strip('[]')}"
            kinds = ("alone", f"{options.mined}{by}", "longer")
            alone, grown, longer = (options.output / f"{name}-{kind}" for kind in kinds)
            print(f"| {task} | {seed} | 0 | {row(alone, keys)}", flush=True)
            mined = keys | {"mining.pairs": str(options.mined)}
            mined |= {"mining.sources": options.sources} if options.sources else {}
            print(f"| {task} | {seed} | {options.mined}{by} | {row(grown, mined)}", flush=True)
            if not options.no_steps:
                record = yaml.safe_load((grown / "run.yaml").read_text(encoding="utf-8"))
                epochs = record["resolved"]["minilm"]["cross-encoder"]["num_train_epochs"] * record["pool"]["pairs"]
                more = keys | {"cross_encoder.num_train_epochs": str(round(epochs / options.pairs))}
                print(f"| {task} | {seed} | 0, as many steps | {row(longer, more)}", flush=True)


if __name__ == "__main__":
    main()
