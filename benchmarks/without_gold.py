"""What a run without gold should keep: many small runs whose gold is hidden, and what each criterion would have kept.

    python benchmarks/without_gold.py --data-dir FOLDER --output runs/without_gold
    python benchmarks/without_gold.py --data-dir FOLDER --output runs/without_gold_confirmed --confirm
    python benchmarks/without_gold.py --data-dir FOLDER --output runs/without_gold_cosent --loss cosent

FOLDER holds `stsb.tsv`, `sts12.tsv` to `sts15.tsv`, `mrpc.tsv` and `qnli.tsv` (header `split score sentence1
sentence2`). A run is one cycle from all-MiniLM-L6-v2 (mean or [CLS] pooling, or its first three layers). That model was
trained on labelled pairs, so nothing here is unsupervised. Beside the cycle's two encoders a run trains a bi-encoder
that learns the mean of the start's and the cross-encoder's labels, and two controls: bi-encoders that learn the start's
own labels, and one constant label. Of each, the weights halfway between it and the start are judged too. `--confirm`
makes other runs, to try what the first ones chose. With `--loss cosent` bi-encoders learn the order of labels alone:
that of the mean of both encoders' labels, and that of their own, for ten epochs; a cross-encoder that has not learnt is
trained once more, three times as long, as in the main job. A run whose result is there is not repeated.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from cut_layers import cut_layers
from small_runs import DEV, LAYERS, MINILM, STARTS, TEST, Row, dataset, halfway, rows_of, train

from te_trainer.distillation.health import Probe, why_not_learnt
from te_trainer.distillation.trainings import ATTEMPTS
from te_trainer.labelling import score_pairs
from te_trainer.metrics import Metric, roc_auc, spearman
from te_trainer.models import BiEncoder, CrossEncoder, Encoder

RUNS = [
    *((start, task, 300, 1) for task in ("stsb", "mrpc", "qnli", "sts") for start in ("mean", "[CLS]", "three layers")),
    *((start, task, 300, 2) for task in ("mrpc", "qnli") for start in ("mean", "[CLS]")),
    *(("mean", task, 1000, 3) for task in ("stsb", "sts", "mrpc")),
    ("[CLS]", "sts", 1000, 3),
]
# Other texts, seeds and a start with other layers: what was chosen by the runs above is tried on these. Their
# bi-encoders learn as long as those of the main job, and they have a second cycle.
CONFIRMING = [
    ("mean", "sts14", 300, 4),
    ("four layers", "sts12", 300, 4),
    ("mean", "sts13", 100, 4),
    ("[CLS]", "qnli", 1000, 4),
    ("mean", "mrpc", 1000, 4),
    ("[CLS]", "sts14", 300, 4),
    ("mean", "stsb", 100, 4),
    ("mean", "sts12", 300, 4),
    ("three layers", "sts15", 1000, 4),
    ("mean", "qnli", 300, 5),
    ("four layers", "mrpc", 300, 5),
    ("mean", "sts15", 1000, 4),
]

Entry = dict[str, Any]


def run(folder: Path, path: str, start: str, task: str, pairs: int, seed: int, confirming: bool, loss: str) -> Entry:
    """One run from the model at a path; of each encoder its gold scores and its health."""
    metric: Metric = roc_auc if task in {"mrpc", "qnli"} else spearman
    rows = random.Random(seed).sample(rows_of(folder, task, gold=False), pairs)
    gold = random.Random(0).sample(rows_of(folder, task, gold=True), DEV + TEST)
    scores = np.array([row[2] for row in gold])
    pool = dataset(rows)
    probe = Probe.draw(pool, 0.1, seed)
    learnt = probe.rows_to_learn(pairs)
    overlap = np.array([word_overlap(row) for row in rows])
    entry: Entry = {"start": start, "task": task, "pairs": pairs, "seed": seed, "encoders": {}}

    def bi_encoder() -> BiEncoder:
        transformers.set_seed(seed)
        return BiEncoder.from_pretrained(path, pooling=STARTS[start], max_length=32)

    def judge(name: str, encoder: Encoder, labels: np.ndarray | None = None) -> np.ndarray:
        predictions = score_pairs(encoder, dataset(gold))
        health = probe.health(score_pairs(encoder, probe.pairs), labels)
        dev, test = (100 * metric(predictions[part], scores[part]) for part in (slice(DEV), slice(DEV, None)))
        on_pool = score_pairs(encoder, pool)
        entry["encoders"][name] = {"dev": dev, "test": test, "overlap": spearman(on_pool, overlap), **health}
        return on_pool

    def student(name: str, encoder: Encoder, labels: np.ndarray, longer: int = 1) -> np.ndarray:
        epochs = 10 if confirming or loss == "cosent" else None  # the main job's, or fewer
        train(encoder, dataset(rows, labels).select(learnt), seed, task != "qnli", epochs, loss, longer)
        return judge(name, encoder, labels)

    first = judge("start", bi_encoder())
    transformers.set_seed(seed)
    second = student("cross-encoder", CrossEncoder.from_pretrained(path), first)
    if loss == "cosent" and why_not_learnt(entry["encoders"]["cross-encoder"]):
        entry["encoders"]["cross-encoder, first training"] = entry["encoders"]["cross-encoder"]
        transformers.set_seed(seed)
        second = student("cross-encoder", CrossEncoder.from_pretrained(path), first, longer=ATTEMPTS[1])
    learn = {"mean of labels": (first + second) / 2}
    if loss == "cosent":  # a constant label has no order that could be learnt
        learn["own labels"] = first
    else:
        learn |= {"bi-encoder": second, "averaged labels": averaged(second, first)}
        learn["constant"] = np.full_like(first, first.mean())
        if not confirming:
            learn["own labels"] = first
    for name, labels in learn.items():
        encoder = bi_encoder()
        third = student(name, encoder, labels)
        judge(f"{name}, 50%", halfway(bi_encoder(), encoder), labels)
        if confirming and loss == "mse" and name == "mean of labels":
            transformers.set_seed(seed + 1)
            second = student("cross-encoder, cycle 2", CrossEncoder.from_pretrained(path), third)
            student("mean of labels, cycle 2", bi_encoder(), (first + second) / 2)
    return entry


def averaged(labels: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The mean of both, standardised, on the scale and within the range of the former."""
    one, two = ((each - each.mean()) / (each.std() or 1.0) for each in (labels, first))
    return np.clip((one + two) / 2 * labels.std() + labels.mean(), labels.min(), labels.max())


def word_overlap(row: Row) -> float:
    """Jaccard's similarity of two sentences' words."""
    one, two = (set(sentence.lower().split()) for sentence in row[:2])
    return len(one & two) / max(1, len(one | two))


def is_better_than_chance(start: Entry, cross: Entry, bi: Entry) -> bool:
    """Whether the cross-encoder puts edits in order more often than chance does."""
    return bool(cross["graded"] > 0.5)


def has_learnt(start: Entry, cross: Entry, bi: Entry) -> bool:
    """Whether the cross-encoder has learnt, as the main job sees it."""
    return why_not_learnt(cross) is None


# Where something holds of start, cross-encoder and a student, the student is kept, else the start.
CRITERIA: dict[str, tuple[str, Callable[[Entry, Entry, Entry], bool]]] = {
    "dev set": ("bi-encoder", lambda start, cross, bi: bi["dev"] > start["dev"]),
    "the start": ("bi-encoder", lambda start, cross, bi: False),
    "the last": ("bi-encoder", lambda start, cross, bi: True),
    "cross-encoder's agreement at least 0.5": ("bi-encoder", lambda start, cross, bi: cross["agreement"] >= 0.5),
    "cross-encoder's agreement at least 0.8": ("bi-encoder", lambda start, cross, bi: cross["agreement"] >= 0.8),
    "cross-encoder's edits better than chance": ("bi-encoder", is_better_than_chance),
    "bi-encoder's edits in order more often": ("bi-encoder", lambda start, cross, bi: bi["graded"] > start["graded"]),
    "bi-encoder's scores spread more": ("bi-encoder", lambda start, cross, bi: bi["std"] > start["std"]),
    "bi-encoder's scores spread less": ("bi-encoder", lambda start, cross, bi: bi["std"] < start["std"]),
    "bi-encoder follows word overlap less": ("bi-encoder", lambda start, cross, bi: bi["overlap"] < start["overlap"]),
    "agreement of both students at least 0.8": (
        "bi-encoder",
        lambda start, cross, bi: min(cross["agreement"], bi["agreement"]) >= 0.8,
    ),
    "halfway to the last": ("bi-encoder, 50%", lambda start, cross, bi: True),
    "halfway, edits better than chance": ("bi-encoder, 50%", is_better_than_chance),
    "averaged labels": ("averaged labels", lambda start, cross, bi: True),
    "averaged labels, edits better than chance": ("averaged labels", is_better_than_chance),
    "averaged labels, halfway, edits better than chance": ("averaged labels, 50%", is_better_than_chance),
    "mean of labels": ("mean of labels", lambda start, cross, bi: True),
    "mean of labels where the cross-encoder has learnt": ("mean of labels", has_learnt),
    "halfway to it where the cross-encoder has learnt": ("mean of labels, 50%", has_learnt),
    "own labels": ("own labels", lambda start, cross, bi: True),
    "constant labels": ("constant", lambda start, cross, bi: True),
}


def keep(entry: Entry, name: str, holds: Callable[[Entry, Entry, Entry], bool]) -> str:
    """The encoder of a run that a criterion keeps."""
    encoders = entry["encoders"]
    return name if holds(encoders["start"], encoders["cross-encoder"], encoders[name]) else "start"


def tables(entries: list[Entry]) -> str:
    """Both tables in Markdown."""
    is_in_all = {name for name in entries[0]["encoders"] if all(name in entry["encoders"] for entry in entries)}
    by_dev = ("bi-encoder" if "bi-encoder" in is_in_all else "mean of labels", CRITERIA["dev set"][1])
    names = ["start", "cross-encoder", "bi-encoder", "averaged labels", "mean of labels", "mean of labels, cycle 2"]
    names = [name for name in (*names, "own labels", "constant") if name in is_in_all]
    lines = [f"| start | pool | pairs | seed | {' | '.join(names)} | agreement | spread | edits |"]
    lines += ["| --- | --- |" + " ---: |" * (len(names) + 5)]
    for entry in entries:
        encoders = entry["encoders"]
        scores = [f"{encoders[name]['test']:.2f}" for name in names]
        cross = encoders["cross-encoder"]
        health = [f"{100 * cross['agreement']:.0f}", f"{cross['spread']:.2f}", f"{100 * cross['graded']:.0f}"]
        lines.append("| " + " | ".join([*map(str, list(entry.values())[:4]), *scores, *health]) + " |")
    lines += ["", "| what is kept | mean gain | worst gain | mean regret | worst regret |", "| --- |" + " ---: |" * 4]
    of_student = {"dev set": by_dev, "the start": (by_dev[0], CRITERIA["the start"][1])}
    for title, (name, holds) in (CRITERIA | of_student).items():
        if name not in is_in_all:
            continue
        gains, regrets = [], []
        for entry in entries:
            test = {name: scores["test"] for name, scores in entry["encoders"].items()}
            kept, best = keep(entry, name, holds), keep(entry, *by_dev)
            gains.append(test[kept] - test["start"])
            regrets.append(test[best] - test[kept])
        figures = (np.mean(gains), min(gains), np.mean(regrets), max(regrets))
        lines.append(f"| {title} | " + " | ".join(f"{figure:+.2f}" for figure in figures) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/without_gold"))
    parser.add_argument(
        "--part", default="1/1", help="I/N: every Nth run, from the Ith on, for N processes side by side"
    )
    parser.add_argument("--confirm", action="store_true", help="make the runs that confirm, not those that chose")
    parser.add_argument("--loss", choices=("mse", "cosent"), default="mse", help="of the bi-encoders")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    options.output.mkdir(parents=True, exist_ok=True)
    models = {}
    for start, layers in LAYERS.items():
        models[start] = str(options.output / f"{start}-{options.part.replace('/', '-')}")
        if not Path(models[start]).exists():
            cut_layers(MINILM, layers, models[start])
    runs = CONFIRMING if options.confirm else RUNS
    first, step = map(int, options.part.split("/"))
    for start, task, pairs, seed in runs[first - 1 :: step]:
        file = options.output / f"{start} {task} {pairs} {seed}.json"
        if not file.exists():
            path = models.get(start, MINILM)
            entry = run(options.data_dir, path, start, task, pairs, seed, options.confirm, options.loss)
            file.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
    files = [options.output / f"{start} {task} {pairs} {seed}.json" for start, task, pairs, seed in runs]
    print(tables([json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]))


if __name__ == "__main__":
    main()
