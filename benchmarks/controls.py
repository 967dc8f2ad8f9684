"""What a recipe of the main job gains, beside its controls, over several seeds.

    python benchmarks/controls.py --config recipes/quickstart.yaml --output runs/quickstart_controls
    python benchmarks/controls.py --constant runs/quickstart

The controls are the same run without cross-encoders (self-distillation of the bi-encoder), the same run whose pairs are
broken up (each first sentence beside the second one of another pair, drawn at random), and the start that learns one
constant label for every pair, as long as the run's first bi-encoder learns. With `--beside` there is the same run too
whose pool has the broken pairs beside its own. Other options are the main job's keys (`--data.dir FOLDER`). Scores are
Spearman's correlations x 100 of the last cycle: the dev set's and the test sets' average. A run that is finished is not
repeated. With `--constant RUN` there is only the constant label of that run.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers
import yaml
from main_job import paired, results_of

from te_trainer.data import PoolManifest
from te_trainer.data.gold import load_gold
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments


def random_pairs(folder: Path, seed: int, beside: bool = False) -> dict[str, str]:
    """The keys of a run whose pool is a finished run's, each first sentence beside another pair's second one.

    With `beside`, the finished run's pairs are in it as well.
    """
    _, pairs = PoolManifest.load(folder / "pool")
    second = pairs["sentence2"][:]
    random.Random(seed).shuffle(second)
    file = folder.with_name(f"{'beside' if beside else 'random'}-{seed}.jsonl")
    columns = [pairs["sentence2"][:], second] if beside else [second]
    both = [pair for column in columns for pair in zip(pairs["sentence1"], column, strict=True)]
    rows = [{"sentence1": one, "sentence2": two} for one, two in both]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return {"data.pool": str(file), "data.max_pairs": "null"}


def scores_of(folder: Path, keys: dict[str, Any]) -> dict[str, list[float]]:
    """Dev score and average of the test sets of a run's start and of the encoders of its last cycle."""
    results = results_of(folder, keys)
    parts = {"start": results["start"], "last": results["cycles"][-1]}
    found = {}
    for part, models in parts.items():
        encoders = next(entry for name, entry in models.items() if name != "cycle")
        for kind, scores in encoders.items():
            found[f"{part} {kind}"] = [scores["dev"], scores["test"]["avg"]]
    return found


def constant(folder: Path) -> list[float]:
    """The scores of a run's start after it has learnt one label for all pairs of the run's pool."""
    record = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    config, (model, *_) = record["config"], record["config"]["models"]
    file = folder / "constant_label.json"
    if not file.exists():
        _, pairs = PoolManifest.load(folder / "pool")
        transformers.set_seed(config["seed"])
        max_length = config["bi_encoder"]["max_length"]
        encoder = BiEncoder.from_pretrained(model["bi_encoder"], pooling=model["pooling"], max_length=max_length)
        training = record["resolved"][model["name"]]["bi-encoder"]
        quiet: dict[str, Any] = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}
        with tempfile.TemporaryDirectory() as checkpoints:
            arguments = BiEncoderTrainingArguments(checkpoints, seed=config["seed"], **training | quiet)
            labelled = pairs.add_column("label", np.full(len(pairs), 0.5, dtype=np.float32))
            BiEncoderTrainer(encoder, arguments, labelled, check_labels=False).train()
        data, scores = config["data"], []
        for role, names in (("dev", [data["dev"]]), ("test", data["test"])):
            each = []
            for name in names:
                gold = load_gold(name, role, data["columns"], data["dir"])
                columns = {"sentence1": gold.sentence1, "sentence2": gold.sentence2}
                each.append(spearman(score_pairs(encoder, columns), gold.scores))
            scores.append(float(np.mean(each)))
        file.write_text(json.dumps(scores), encoding="utf-8")
    scores = json.loads(file.read_text(encoding="utf-8"))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/controls"))
    parser.add_argument("--constant", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--beside", action="store_true", help="also random pairs beside the pool's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2021, 2022, 2023])
    options, rest = parser.parse_known_args()
    if options.constant is not None:
        dev, test = constant(options.constant)
        print(f"bi-encoder, constant label: {100 * dev:.2f} / {100 * test:.2f}")
        return
    rows: dict[str, list[list[float]]] = {}
    for seed in options.seeds:
        keys = {"config": options.config, "seed": seed} | paired(rest)
        whole, alone, broken = (options.output / f"{kind}-{seed}" for kind in ("both", "bi-encoder", "random"))
        scores = scores_of(whole, keys)
        scores_alone = scores_of(alone, keys | {"distillation.students": "bi-encoder"})
        scores_broken = scores_of(broken, keys | random_pairs(whole, seed))
        found = {
            "start": scores["start bi-encoder"],
            "cross-encoder": scores["last cross-encoder"],
            "bi-encoder": scores["last bi-encoder"],
            "bi-encoder, without cross-encoders": scores_alone["last bi-encoder"],
            "bi-encoder, random pairs": scores_broken["last bi-encoder"],
            "bi-encoder, constant label": constant(whole),
        }
        if options.beside:
            mixed = scores_of(options.output / f"beside-{seed}", keys | random_pairs(whole, seed, beside=True))
            for kind in ("cross-encoder", "bi-encoder"):
                found[f"{kind}, random pairs beside its own"] = mixed[f"last {kind}"]
        for title, values in found.items():
            rows.setdefault(title, []).append(values)
    print(f"| | {' | '.join(f'seed {seed}' for seed in options.seeds)} | mean |")
    print("| --- |" + " ---: |" * (len(options.seeds) + 1))
    for title, pairs in rows.items():
        cells = [f"{100 * dev:.2f} / {100 * test:.2f}" for dev, test in (*pairs, np.mean(pairs, axis=0))]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
