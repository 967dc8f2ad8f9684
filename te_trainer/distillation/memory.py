"""How much memory a run's trainings take, from the sizes of its models alone, to be said before work starts."""

from __future__ import annotations

import torch

from te_trainer.distillation.plan import DistillationPlan, EncoderPlan
from te_trainer.distributed import device_type
from te_trainer.models.lora import parameter_counts, put_adapters

STATES = 4 + 4 + 8  # bytes of a trained parameter in float32: the weight, its gradient, AdamW's two moments
FROZEN = 4  # bytes of any other
# Korthikanti et al. (arXiv 2205.05198, equation 1) count 16-bit activations; float32 takes twice as much, and autocast
# keeps a part of them in float32 (docs/performance.md).
ACTIVATIONS = 2


def describe_memory(plan: DistillationPlan) -> list[str]:
    """What each kind of training needs on a process, a line each, and what the device has, if it is a GPU."""
    lines = []
    for name, model in plan.models.items():
        for kind, encoder in sorted(model.encoders.items(), reverse=True):
            weights = f"{_state_bytes(plan, encoder) / 1e9:.2f} GB of memory for weights, gradients and AdamW"
            batch = activation_bytes(encoder)
            more = "" if batch is None else f", and {batch / 1e9:.2f} GB for a batch of texts of full length"
            lines.append(f"{name}: training a {kind} takes about {weights}{more}")
    if device_type() == "cuda":
        lines.append(f"The GPU has {torch.cuda.get_device_properties(0).total_memory / 1e9:.1f} GB")
    return lines


def activation_bytes(encoder: EncoderPlan) -> int | None:
    """Bytes of the activations of a full-length micro-batch; None where the configuration names its sizes otherwise."""
    config = encoder.start.config
    try:
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    except AttributeError:
        return None
    length = encoder.max_length
    texts = encoder.training["per_device_train_batch_size"] * (2 if encoder.kind == "bi-encoder" else 1)
    return int(ACTIVATIONS * texts * length * layers * (34 * hidden + 5 * heads * length))


def _state_bytes(plan: DistillationPlan, encoder: EncoderPlan) -> int:
    model, lora = encoder.start.empty_model(encoder.kind), plan.config.lora
    adapted = put_adapters(model, encoder.kind, lora, encoder.start.name) if lora.rank else model
    trained, parameters = parameter_counts(adapted)
    return int(STATES * trained + FROZEN * (parameters - trained))
