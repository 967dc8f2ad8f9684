"""One cycle of Trans-Encoder as a user of sentence-transformers would write it today, after its documentation.

`versus_sentence_transformers.py` runs it, in a process of its own:

    python benchmarks/peer_cycle.py --model MODEL --pool pool.tsv --dev dev.tsv --test test.tsv --output FOLDER

It uses the options that the documentation recommends for speed and that help on this machine: bfloat16, larger batches
when nothing is learnt, and sorting by length where `encode` and `predict` do that by themselves. Hyper-parameters,
evaluation of the dev set, and the choice of the best checkpoint are those of `recipes/trans_encoder.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.cross_encoder.evaluation import CrossEncoderCorrelationEvaluator
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss


class TokenCount:
    """Tokens that models were given, real ones and padding; in a training those of evaluations do not count."""

    def __init__(self) -> None:
        self.training = False
        self.all = 0
        self.real: Any = 0

    def watch(self, model: Any, padding: int) -> None:
        """Count what goes through a model's word embeddings."""

        def count(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if module.training == self.training:
                # stays on its device: reading it here would make a GPU wait in every forward pass
                self.real = self.real + (inputs[0] != padding).sum()
                self.all += inputs[0].numel()

        model.get_input_embeddings().register_forward_pre_hook(count)

    def take(self) -> dict[str, int]:
        """What was counted since the last call."""
        taken = {"real": int(self.real), "padding": self.all - int(self.real)}
        self.real = self.all = 0
        return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--bi-epochs", type=float, default=2)
    parser.add_argument("--cross-epochs", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 anywhere")
    default = 1024 if torch.cuda.is_available() else 128
    parser.add_argument("--label-batch", type=int, default=default, help="pairs where nothing is learnt")
    arguments = parser.parse_args()
    cycle = PeerCycle(arguments)
    cycle.run()


class PeerCycle:
    """The stages; each loads its model from disk and leaves its result there, as a script of stages would."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.output: Path = arguments.output
        self.pool, self.dev, self.test = (read(getattr(arguments, name)) for name in ("pool", "dev", "test"))
        self.bf16 = not arguments.float32
        # trained weights stay float32; autocast makes them bfloat16. Labelling wants no such copy.
        self.label_dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.count = TokenCount()
        self.record: dict[str, Any] = {"seconds": {}, "tokens": {}, "scores": {}}

    def run(self) -> None:
        bi, cross = self.output / "bi-encoder", self.output / "cross-encoder"
        self.timed("evaluate", lambda: self.evaluate("start", self.arguments.model, "bi-encoder"))
        labels = self.timed("label_bi", self.label_bi)
        self.timed("train_cross", lambda: self.train_cross(labels, cross))
        self.timed("evaluate", lambda: self.evaluate("cross-encoder", str(cross), "cross-encoder"))
        labels = self.timed("label_cross", lambda: self.label_cross(cross))
        self.timed("train_bi", lambda: self.train_bi(labels, bi))
        self.timed("evaluate", lambda: self.evaluate("bi-encoder", str(bi), "bi-encoder"))
        self.output.mkdir(exist_ok=True)
        (self.output / "record.json").write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")

    def timed(self, stage: str, work: Any) -> Any:
        self.count.training = stage.startswith("train")
        began = time.perf_counter()
        result = work()
        self.record["seconds"][stage] = self.record["seconds"].get(stage, 0) + time.perf_counter() - began
        self.record["tokens"][stage] = self.count.take()
        return result

    def label_bi(self) -> list[float]:
        model = self.bi_encoder(self.arguments.model, self.label_dtype)
        sides = [
            model.encode(self.pool[name], batch_size=self.arguments.label_batch, convert_to_tensor=True).float()
            for name in ("sentence1", "sentence2")
        ]
        return model.similarity_pairwise(*sides).tolist()

    def label_cross(self, path: Path) -> list[float]:
        model = self.cross_encoder(str(path), self.label_dtype)
        pairs = list(zip(self.pool["sentence1"], self.pool["sentence2"], strict=True))
        return model.predict(pairs, batch_size=self.arguments.label_batch).astype(float).tolist()

    def train_cross(self, labels: list[float], path: Path) -> None:
        model = self.cross_encoder(self.arguments.model)
        data = Dataset.from_dict({**self.sentences(self.pool), "label": labels})
        swapped = data.rename_columns({"sentence1": "sentence2", "sentence2": "sentence1"})
        pairs = list(zip(self.dev["sentence1"], self.dev["sentence2"], strict=True))
        CrossEncoderTrainer(
            model,
            CrossEncoderTrainingArguments(
                num_train_epochs=self.arguments.cross_epochs,
                per_device_train_batch_size=32,
                learning_rate=2e-5,
                warmup_steps=0.1,
                metric_for_best_model="eval_dev_spearman",
                **self.common("cross"),
            ),
            train_dataset=concatenate_datasets([data, swapped.select_columns(data.column_names)]),
            loss=BinaryCrossEntropyLoss(model),
            evaluator=CrossEncoderCorrelationEvaluator(
                pairs, self.dev["score"], batch_size=self.arguments.label_batch, name="dev"
            ),
        ).train()
        model.save_pretrained(str(path))

    def train_bi(self, labels: list[float], path: Path) -> None:
        model = self.bi_encoder(self.arguments.model)
        SentenceTransformerTrainer(
            model,
            SentenceTransformerTrainingArguments(
                num_train_epochs=self.arguments.bi_epochs,
                per_device_train_batch_size=128,
                learning_rate=5e-5,
                metric_for_best_model="eval_dev_spearman_cosine",
                **self.common("bi"),
            ),
            train_dataset=Dataset.from_dict({**self.sentences(self.pool), "label": labels}),
            loss=CosineSimilarityLoss(model),
            evaluator=self.similarity_evaluator(self.dev, "dev"),
        ).train()
        model.save_pretrained(str(path))

    def common(self, name: str) -> dict[str, Any]:
        """The dev set is looked at once an epoch: the least that chooses a checkpoint."""
        return {
            "output_dir": str(self.output / f"training-{name}"),
            "bf16": self.bf16,
            "use_cpu": not torch.cuda.is_available(),
            "weight_decay": 0.01,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "save_total_limit": 2,
            "load_best_model_at_end": True,
            "seed": self.arguments.seed,
            "disable_tqdm": True,
            "report_to": "none",
        }

    def evaluate(self, name: str, path: str, kind: str) -> None:
        scores = {}
        for part, gold in (("dev", self.dev), ("test", self.test)):
            if kind == "bi-encoder":
                found = self.similarity_evaluator(gold, part)(self.bi_encoder(path))
                scores[part] = found[f"{part}_spearman_cosine"]
            else:
                pairs = list(zip(gold["sentence1"], gold["sentence2"], strict=True))
                evaluator = CrossEncoderCorrelationEvaluator(
                    pairs, gold["score"], batch_size=self.arguments.label_batch, name=part
                )
                scores[part] = evaluator(self.cross_encoder(path))[f"{part}_spearman"]
        self.record["scores"][name] = scores

    def similarity_evaluator(self, gold: dict[str, list[Any]], name: str) -> EmbeddingSimilarityEvaluator:
        return EmbeddingSimilarityEvaluator(
            gold["sentence1"],
            gold["sentence2"],
            gold["score"],
            batch_size=self.arguments.label_batch,
            main_similarity="cosine",
            name=name,
        )

    def bi_encoder(self, path: str, dtype: torch.dtype = torch.float32) -> SentenceTransformer:
        model = SentenceTransformer(path, model_kwargs={"dtype": dtype})
        model.max_seq_length = 32
        self.count.watch(model[0].auto_model, model.tokenizer.pad_token_id)
        return model

    def cross_encoder(self, path: str, dtype: torch.dtype = torch.float32) -> CrossEncoder:
        torch.manual_seed(self.arguments.seed)
        model = CrossEncoder(path, num_labels=1, max_length=64, model_kwargs={"dtype": dtype})
        self.count.watch(model.model, model.tokenizer.pad_token_id)
        return model

    @staticmethod
    def sentences(rows: dict[str, list[Any]]) -> dict[str, list[str]]:
        return {name: rows[name] for name in ("sentence1", "sentence2")}


def read(path: str) -> dict[str, list[Any]]:
    """Columns of a file of tab-separated values; `score` where it has one."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in ("sentence1", "sentence2")}
    if "score" in rows[0]:
        columns["score"] = [float(row["score"]) for row in rows]
    return columns


if __name__ == "__main__":
    main()
