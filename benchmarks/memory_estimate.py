"""How much memory a 7B PLM needs, as accelerate's and DeepSpeed's own estimators say; needs no weights and no network.

python benchmarks/memory_estimate.py [--gpus 8] [--rank 16] [--model qwen2|mistral]
"""

from __future__ import annotations

import argparse

import torch
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes
from deepspeed.runtime.zero.stage3 import (
    estimate_zero3_model_states_mem_needs,
    estimate_zero3_model_states_mem_needs_all_cold,
)
from peft import get_peft_model
from transformers import AutoModel, MistralConfig, PretrainedConfig, Qwen2Config

from te_trainer.config.schema import LoraConfig
from te_trainer.models.lora import parameter_counts, peft_config

# The sizes of Mistral-7B-v0.1 and of Qwen2-7B.
MODELS: dict[str, PretrainedConfig] = {
    "mistral": MistralConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    ),
    "qwen2": Qwen2Config(
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
}
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="qwen2")
    parser.add_argument("--gpus", type=int, default=8, help="of one node")
    parser.add_argument("--rank", type=int, default=16, help="of LoRA, on all linear layers")
    options = parser.parse_args()
    with torch.device("meta"):
        model = AutoModel.from_config(MODELS[options.model], dtype=torch.float32)
    total = model.num_parameters()
    total_bytes, (largest_bytes, names) = calculate_maximum_sizes(model)

    print(f"accelerate: one copy of the model; its largest layer is {names[0]}\n")
    print("| dtype | largest layer | weights | training with Adam |\n| --- | ---: | ---: | ---: |")
    for dtype, share in (("float32", 1), ("float16", 2)):
        training = max(estimate_training_usage(total_bytes, dtype).values())
        sizes = (largest_bytes / share, total_bytes / share, training)
        print(f"| {dtype} | " + " | ".join(f"{size / GIB:.2f} GiB" for size in sizes) + " |")

    largest = max(sum(weight.numel() for weight in module.parameters(recurse=False)) for module in model.modules())
    print("\nDeepSpeed, ZeRO-3, all weights trained\n")
    estimate_zero3_model_states_mem_needs_all_cold(total, largest, num_gpus_per_node=options.gpus, num_nodes=1)

    adapted = get_peft_model(model, peft_config(model, "bi-encoder", LoraConfig(rank=options.rank)))
    trained, _ = parameter_counts(adapted)
    _, full, gathered = estimate_zero3_model_states_mem_needs(
        total, largest, options.gpus, cpu_offload=False, cpu_offload_params=False
    )
    # te_trainer leaves weights in float32: 4 bytes a weight, and 12 more (gradient, Adam's two moments) where trained
    lora = gathered + (4 * total + 16 * trained) / options.gpus
    print(f"\nLoRA of rank {options.rank}, no offload\n")
    print("| trained | parameters | weights, gradients, optimiser states per GPU |\n| --- | ---: | ---: |")
    print(f"| all | {total / 1e6:,.1f} M | {full / GIB:.2f} GiB |")
    print(f"| adapters | {trained / 1e6:,.1f} M ({trained / (total + trained):.2%}) | {lora / GIB:.2f} GiB |")


if __name__ == "__main__":
    main()
