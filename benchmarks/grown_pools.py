"""What a small pool gains by pairs that are mined from its own sentences: one cycle without them, and one with them.

    python benchmarks/grown_pools.py --data-dir FOLDER --output runs/grown

FOLDER holds `stsb.tsv` and `mrpc.tsv`. Runs start from all-MiniLM-L6-v2, which was trained on labelled pairs, and are
judged by 900 pairs of the same set. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path

from small_runs import DEV, MINILM, TEST, Row, rows_of


def write(file: Path, rows: list[Row]) -> None:
    lines = ["\t".join(map(str, row)) for row in rows]
    file.write_text("\n".join(["sentence1\tsentence2\tscore", *lines]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/grown"))
    parser.add_argument("--tasks", nargs="+", choices=["stsb", "mrpc"], default=["stsb", "mrpc"])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--mined", type=int, nargs="+", default=[0, 600], help="how many pairs are mined, in each run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    print("| pool | mined | start | cross-encoder | bi-encoder |\n| --- | ---: | ---: | ---: | ---: |")
    for task in options.tasks:
        pool, gold = (options.output / f"{task}-{name}.tsv" for name in ("pool", "gold"))
        write(pool, random.Random(options.seed).sample(rows_of(options.data_dir, task, gold=False), options.pairs))
        write(gold, random.Random(0).sample(rows_of(options.data_dir, task, gold=True), DEV + TEST))
        for mined in options.mined:
            folder = options.output / f"{task}-{options.pairs}-{mined}-{options.seed}"
            if not (folder / "results.json").exists():
                keys = {"models": f"[{{bi_encoder: '{MINILM}', name: minilm}}]", "data.pool": str(pool)}
                keys |= {"data.test": str(gold), "distillation.cycles": "1", "distillation.selection": "last"}
                keys |= {"distillation.held_out": "0.1", "seed": str(options.seed), "output_dir": str(folder)}
                keys |= {"mining.pairs": str(mined)} if mined else {}
                arguments = [part for key, value in keys.items() for part in (f"--{key}", value)]
                subprocess.run([sys.executable, "-m", "te_trainer", "distil", *arguments], check=True)
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            cycle = results["cycles"][0]["minilm"]
            encoders = [results["start"]["minilm"]["bi-encoder"], cycle["cross-encoder"], cycle["bi-encoder"]]
            scores = " | ".join(f"{100 * encoder['test']['avg']:.2f}" for encoder in encoders)
            print(f"| {task} | {mined} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
