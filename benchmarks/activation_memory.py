"""What torch keeps for the backward pass, beside what `te_trainer.runs.memory` says before a run begins.

python benchmarks/activation_memory.py
"""

from __future__ import annotations

import argparse
import contextlib

import torch
from transformers import BertConfig, BertModel

from te_trainer.models.packed import choose_backend, use_backend
from te_trainer.runs.memory import activation_bytes

SIZES = {"MiniLM-L6": (384, 6, 12), "BERT-base": (768, 12, 12)}  # hidden size, layers, heads
BATCHES = ((64, 32), (16, 64))  # texts, tokens of each


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| model | texts of tokens | precision | kept | of what is said |\n| --- | --- | --- | ---: | ---: |")
    for name, (hidden, layers, heads) in SIZES.items():
        config = BertConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=4 * hidden
        )
        model = BertModel(config).train()
        for texts, length in BATCHES:
            said = activation_bytes(config, texts, length)
            assert said is not None
            for precision in ("bfloat16", "float32"):
                for packed in (False, True):
                    kept = kept_bytes(model, texts, length, precision, packed)
                    how = f"{precision}{', packed' * packed}"
                    print(f"| {name} | {texts} of {length} | {how} | {kept / 1e6:.0f} MB | {100 * kept / said:.0f} % |")


def kept_bytes(model: BertModel, texts: int, length: int, precision: str, packed: bool) -> int:
    """Bytes of all tensors, but the weights, that a forward pass keeps for the backward pass."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(1000, 20_000, (texts, length))
    backend = choose_backend(model, length, torch.device("cpu"))
    with (
        use_backend(model, backend) if packed else contextlib.nullcontext(),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    del output
    return sum(kept.values())


if __name__ == "__main__":
    main()
