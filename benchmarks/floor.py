"""The arithmetic floor of a run's stages, and how much of it each stage reaches.

    python benchmarks/floor.py runs/quickstart
    python benchmarks/floor.py runs/benchmark/te_trainer-?          # medians of runs that differ in their seed

A stage cannot be faster than its matrix products: 2 operations for each weight of the encoder's matrices and each real
token going forward, and twice as many more going backward, at the rate of a product of that model's shape, in the run's
precision, on this machine. Run it on the machine that made the run, when that has nothing else to do. Products of
attention, embeddings, evaluations of the dev set while training, loading and saving are not in the floor.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from datasets import Dataset
from torch import nn
from transformers import AutoModel, AutoTokenizer

from te_trainer.runs.quiet import quiet_libraries

TOKENS = 4096  # rows of the measured product
STAGES = {"label_bi": 2, "train_cross": 6, "label_cross": 2, "train_bi": 6}  # operations a weight and token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs of one model, alike but in seed")
    arguments = parser.parse_args()
    quiet_libraries()
    runs = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in arguments.runs]
    results = runs[0]
    (final,) = results["final"].values()
    model = AutoModel.from_pretrained(final["bi-encoder"]["path"])
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    weights = sum(matrix.numel() for matrix in matrices)
    dtype = getattr(torch, results["environment"]["precision"])
    rate = product_rate(max(matrices, key=lambda matrix: matrix.numel()).shape, dtype)
    print(f"{weights / 1e6:.1f} M weights in matrices; {rate / 1e9:.0f} GFLOP/s in {dtype}\n")
    counts = real_tokens(arguments.runs[0])
    print("| stage | real tokens | floor | measured | share |\n| --- | ---: | ---: | ---: | ---: |")
    for stage, operations in STAGES.items():
        tokens = counts[stage]
        seconds = median(run["seconds"][stage] for run in runs)
        floor = operations * weights * tokens / rate
        print(f"| {stage} | {tokens:,} | {floor:.1f} s | {seconds:.1f} s | {floor / seconds:.0%} |")


def real_tokens(run: Path) -> dict[str, int]:
    """Tokens without padding that encoders read in each stage of a finished run of one model, from the run's texts."""
    config = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    (resolved,) = config["resolved"].values()
    (final,) = json.loads((run / "results.json").read_text(encoding="utf-8"))["final"].values()
    pairs = Dataset.from_file(str(run / "pool" / "pairs.arrow"))
    one, two = list(pairs["sentence1"]), list(pairs["sentence2"])

    def count(kind: str, *texts: list[str]) -> int:
        tokenizer = AutoTokenizer.from_pretrained(final[kind]["path"])
        length = tokenizer.model_max_length
        return sum(map(len, tokenizer(*texts, truncation="longest_first", max_length=length)["input_ids"]))

    epochs = {kind: float(values["num_train_epochs"]) for kind, values in resolved.items()}
    sentences = count("bi-encoder", one) + count("bi-encoder", two)
    in_one_order, in_other_order = count("cross-encoder", one, two), count("cross-encoder", two, one)
    once = {
        "label_bi": count("bi-encoder", sorted({*one, *two})),
        "train_cross": epochs["cross-encoder"] * (in_one_order + in_other_order),
        "label_cross": in_one_order,
        "train_bi": epochs["bi-encoder"] * sentences,
    }
    return {stage: round(config["cycles"] * tokens) for stage, tokens in once.items()}


def product_rate(shape: Any, dtype: torch.dtype, seconds: float = 3) -> float:
    """Operations a second of the fastest of many products of `TOKENS` rows with a matrix of this shape."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.randn(tuple(shape), device=device, dtype=dtype)
    rows = torch.randn(TOKENS, weight.shape[1], device=device, dtype=dtype)
    fastest = float("inf")
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            began = time.perf_counter()
            F.linear(rows, weight)
            if device == "cuda":
                torch.cuda.synchronize()
            fastest = min(fastest, time.perf_counter() - began)
    return 2 * TOKENS * weight.numel() / fastest


if __name__ == "__main__":
    main()
