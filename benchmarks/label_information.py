"""What becomes of the start's labels: changes of the method, each beside the plain one and its controls.

    python benchmarks/label_information.py --data-dir FOLDER --output runs/label_information
    python benchmarks/label_information.py --data-dir FOLDER --output runs/label_information_distilbert \\
      --start runs/distilbert-simcse/bi-encoder --plm models/distilbert --pairs 4000

FOLDER is that of without_gold.py. The first command makes runs from all-MiniLM-L6-v2, which was trained on labelled
pairs, and judges them by 900 pairs of the pool's own set; the second one a run from a start of yours on STS-B and
STS12-15, judged by the average of STS-B's test set and STS13. Gold scores choose nothing. A student that is there is
not trained again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from small_runs import DEV, MINILM, STARTS, STS, TEST, Row, dataset, halfway, read, rows_of, train

from te_trainer.distillation.combine import quantiles
from te_trainer.labelling import score_pairs
from te_trainer.metrics import Metric, roc_auc, spearman
from te_trainer.models import BiEncoder, CrossEncoder, Encoder

RUNS = [("[CLS]", "sts", 300), ("mean", "mrpc", 300), ("mean", "sts", 300), ("[CLS]", "qnli", 300)]


@dataclass
class Scores:
    """Of a student: its scores of the pool in both orders, shape (pairs,), and its gold score x 100."""

    given: np.ndarray
    exchanged: np.ndarray
    gold: float
    beside: str  # the student of the plain method that this one is compared with


class Run:
    """One run: its students by name, in a folder."""

    def __init__(
        self, folder: Path, start: BiEncoder, plm: str, pool: list[Row], gold: list[list[Row]], metric: Metric
    ):
        self.folder, self.plm, self.pool, self.gold, self.metric = folder, plm, pool, gold, metric
        self.start = folder / "start"
        folder.mkdir(parents=True, exist_ok=True)
        self.scores: dict[str, Scores] = {}
        self.seed = 1
        self.epochs: float | None = None  # of bi-encoders; None as small_runs.train has it
        self.both_orders = True
        if not self.start.exists():
            start.save_pretrained(self.start)
        self.judge("start", lambda: BiEncoder.from_pretrained(str(self.start), max_length=32))

    def judge(self, name: str, make: Callable[[], Encoder], beside: str = "start") -> Scores:
        """The scores of an encoder, made if it has none yet."""
        file = self.folder / f"{name}.npz"
        if not file.exists():
            encoder = make()
            exchanged = [(two, one, score) for one, two, score in self.pool]
            given, other = (score_pairs(encoder, dataset(rows)) for rows in (self.pool, exchanged))
            scores = [np.array([row[2] for row in rows]) for rows in self.gold]
            results = [
                self.metric(score_pairs(encoder, dataset(rows)), each)
                for rows, each in zip(self.gold, scores, strict=True)
            ]
            partial = file.with_name("partial.npz")
            np.savez(partial, given=given, exchanged=other, gold=100 * np.mean(results))
            partial.rename(file)
            print(f"{self.folder.name}: {name} {100 * np.mean(results):.2f}", flush=True)
        with np.load(file) as found:
            self.scores[name] = Scores(found["given"], found["exchanged"], float(found["gold"]), beside)
        return self.scores[name]

    def student(self, name: str, labels: np.ndarray, beside: str = "start", plm: str = "", **how: Any) -> Scores:
        """Train a student from the original checkpoint on labels of the pool, and keep its weights."""

        def make() -> Encoder:
            transformers.set_seed(self.seed)
            encoder: Encoder
            if name.startswith("cross"):
                encoder = CrossEncoder.from_pretrained(plm or self.plm)
            else:
                encoder = BiEncoder.from_pretrained(str(self.start), max_length=32)
            train(
                encoder, dataset(self.pool, labels.astype(np.float32)), self.seed, self.both_orders, self.epochs, **how
            )
            encoder.save_pretrained(self.folder / name)
            return encoder

        return self.judge(name, make, beside)

    def adapted(self) -> str:
        """The PLM after masked language modelling on the pool's pairs, each joined as a cross-encoder reads it."""
        folder = self.folder / "adapted PLM"
        if not folder.exists():
            transformers.set_seed(self.seed)
            encoder = BiEncoder.from_pretrained(self.plm, max_length=32)
            model = transformers.AutoModelForMaskedLM.from_config(encoder.model.config)
            model.base_model.load_state_dict(encoder.model.state_dict(), strict=False)
            ids = encoder.tokenizer([row[0] for row in self.pool], [row[1] for row in self.pool], max_length=64)
            rows = [{"input_ids": each[:64]} for each in ids["input_ids"]]
            with tempfile.TemporaryDirectory() as checkpoints:
                arguments = transformers.TrainingArguments(
                    checkpoints,
                    per_device_train_batch_size=32,
                    num_train_epochs=max(1, min(5, 4000 // len(rows))),
                    learning_rate=5e-5,
                    warmup_steps=0.1,
                    seed=self.seed,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                )
                collator = transformers.DataCollatorForLanguageModeling(encoder.tokenizer)
                transformers.Trainer(model, arguments, collator, rows).train()
            encoder.model.load_state_dict(model.base_model.state_dict(), strict=False)
            encoder.save_pretrained(folder)
        return str(folder)

    def between(self, name: str, one: str, two: str, beside: str) -> Scores:
        """The encoder whose weights are the mean of two students'."""
        kind: Any = CrossEncoder if "cross" in one else BiEncoder
        folders = [str(self.folder / each) for each in (one, two)]
        return self.judge(name, lambda: halfway(*map(kind.from_pretrained, folders)), beside)


def with_values_of(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The values of labels, in the order of other scores."""
    values = np.empty_like(labels)
    values[np.argsort(order, kind="stable")] = np.sort(labels)
    return values


def make(run: Run, cycles: int) -> None:
    """Train all students of a run."""
    first = run.scores["start"].given
    second = run.student("cross-encoder", first)
    evenly = run.student("cross-encoder, spread labels", quantiles(first), "cross-encoder")
    adapted = run.student("cross-encoder, adapted", first, "cross-encoder", run.adapted())
    third = run.student("bi-encoder", second.given)
    run.student("bi-encoder, rank loss", second.given, "bi-encoder", loss="cosent")
    run.student("bi-encoder, spread labels", evenly.given, "bi-encoder")
    run.student("bi-encoder, spread and back", with_values_of(first, evenly.given), "bi-encoder")
    run.student("bi-encoder, adapted", adapted.given, "bi-encoder")
    run.student("bi-encoder, of both encoders", (first + second.given) / 2, "bi-encoder")
    run.student("bi-encoder, of both encoders, rank loss", (first + second.given) / 2, "bi-encoder", loss="cosent")
    run.student("bi-encoder, of both orders", (second.given + second.exchanged) / 2, "bi-encoder")
    run.between("bi-encoder, halfway", "start", "bi-encoder", "bi-encoder")
    run.student("own labels", first)
    run.student("own labels, rank loss", first, loss="cosent")
    run.student("constant label", np.full_like(first, first.mean()))
    shuffled = np.random.default_rng(run.seed).permutation(second.given)
    run.student("shuffled labels", shuffled)
    run.student("shuffled labels, rank loss", shuffled, loss="cosent")
    if cycles == 1:
        return
    fourth = run.student("cross-encoder 2", third.given)
    run.student("cross-encoder 2, of both cycles", (first + third.given) / 2, "cross-encoder 2")
    run.between("cross-encoder, mean weights", "cross-encoder", "cross-encoder 2", "cross-encoder 2")
    run.student("bi-encoder 2", fourth.given)
    run.student("bi-encoder 2, of both cycles", (second.given + fourth.given) / 2, "bi-encoder 2")
    run.between("bi-encoder, mean weights", "bi-encoder", "bi-encoder 2", "bi-encoder 2")


def table(runs: dict[str, dict[str, Scores]]) -> str:
    """All students of all runs in Markdown."""
    students = {name: scores.beside for run in runs.values() for name, scores in run.items()}
    lines = [f"| | {' | '.join(runs)} | beside | difference | better in |"]
    lines += ["| --- |" + " ---: |" * len(runs) + " --- | ---: | ---: |"]
    for name, beside in students.items():
        cells = [f"{run[name].gold:.2f}" if name in run else "" for run in runs.values()]
        gains = [run[name].gold - run[beside].gold for run in runs.values() if name in run]
        better = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
        lines.append(f"| {' | '.join([name, *cells, beside, f'{np.mean(gains):+.2f}', better])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", help="a bi-encoder of yours, as sentence-transformers saves it")
    parser.add_argument("--plm", help="the PLM that its cross-encoders start from")
    parser.add_argument("--pairs", type=int, default=4000, help="of STS-B and STS12-15, for a start of yours")
    parser.add_argument("--bi-epochs", type=float, help="default: as many as make 200 steps, at most 5")
    parser.add_argument("--cycles", type=int, choices=(1, 2), default=2)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    runs: dict[str, dict[str, Scores]] = {}
    if options.start:
        found = {(row[0], row[1]): row for task in ("stsb", *STS) for row in read(options.data_dir, task)}
        pool = random.Random(1).sample(list(found.values()), options.pairs)
        gold = [read(options.data_dir, "stsb", "test"), read(options.data_dir, "sts13")]
        start = BiEncoder.from_pretrained(options.start, max_length=32)
        run = Run(options.output / "start", start, options.plm or options.start, pool, gold, spearman)
        run.epochs = options.bi_epochs
        make(run, options.cycles)
        runs["score"] = run.scores
    else:
        for pooling, task, pairs in RUNS:
            pool = random.Random(1).sample(rows_of(options.data_dir, task, gold=False), pairs)
            gold = [random.Random(0).sample(rows_of(options.data_dir, task, gold=True), DEV + TEST)]
            metric: Metric = roc_auc if task in {"mrpc", "qnli"} else spearman
            start = BiEncoder.from_pretrained(MINILM, pooling=STARTS[pooling], max_length=32)
            run = Run(options.output / f"{pooling} {task} {pairs}", start, MINILM, pool, gold, metric)
            run.epochs, run.both_orders = options.bi_epochs, task != "qnli"
            make(run, options.cycles)
            runs[f"{pooling}, {task}"] = run.scores
    print(table(runs))


if __name__ == "__main__":
    main()
