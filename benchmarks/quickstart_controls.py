"""What the quickstart's bi-encoder gains, beside its controls, over several seeds.

    python benchmarks/quickstart_controls.py --output runs/quickstart_controls

The controls are the same run without cross-encoders (self-distillation of the bi-encoder), and the start that learns
one constant label for every pair, as long as the run's bi-encoder learns. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers
import yaml

from te_trainer.data import PoolManifest
from te_trainer.data.gold import load_gold
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments

RECIPE = Path("recipes/quickstart.yaml")
CONTROLS = {"quickstart": "both", "without cross-encoders": "bi-encoder"}


def run(output: Path, students: str, seed: int) -> dict[str, Any]:
    """The results of a run of the recipe."""
    folder = output / f"{students}-{seed}"
    keys = {"config": RECIPE, "output_dir": folder, "seed": seed, "distillation.students": students}
    arguments = [str(part) for key, value in keys.items() for part in (f"--{key}", value)]
    subprocess.run([sys.executable, "-m", "te_trainer", "distil", *arguments], check=True)
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results


def constant(output: Path, seed: int) -> list[float]:
    """Dev and test score of the start after it has learnt one label for all pairs of the run's pool."""
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    _, pairs = PoolManifest.load(output / f"both-{seed}" / "pool")
    transformers.set_seed(seed)
    encoder = BiEncoder.from_pretrained(recipe["models"][0]["bi_encoder"])
    with tempfile.TemporaryDirectory() as folder:
        quiet: dict[str, Any] = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}
        training = {"learning_rate": 5e-5, "weight_decay": 0.01, "precision": "auto"} | recipe["bi_encoder"]
        arguments = BiEncoderTrainingArguments(folder, seed=seed, **training, **quiet)
        labelled = pairs.add_column("label", np.full(len(pairs), 0.5, dtype=np.float32))
        BiEncoderTrainer(encoder, arguments, labelled, check_labels=False).train()
    scores = []
    for name in ("dev", "test"):
        gold = load_gold(recipe["data"][name], "dev", {})
        columns = {"sentence1": gold.sentence1, "sentence2": gold.sentence2}
        scores.append(spearman(score_pairs(encoder, columns), gold.scores))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart_controls"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[2021, 2022, 2023])
    options = parser.parse_args()
    rows: dict[str, list[list[float]]] = {}
    for seed in options.seeds:
        for title, students in CONTROLS.items():
            results = run(options.output, students, seed)
            for when, encoders in (("start", results["start"]), (title, results["cycles"][0])):
                scores = encoders["minilm"]["bi-encoder"]
                rows.setdefault(when, []).append([scores["dev"], scores["test"]["avg"]])
        rows.setdefault("constant label", []).append(constant(options.output, seed))
    print(f"| bi-encoder | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean |")
    print("| --- |" + " ---: |" * (len(options.seeds) + 1))
    for title, pairs in rows.items():
        # the start is the same in each run
        values = pairs[: len(options.seeds)]
        cells = [f"{100 * dev:.2f} / {100 * test:.2f}" for dev, test in (*values, np.mean(values, axis=0))]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
