"""In which type a layer computes while an engine trains it in bfloat16: MODEL OUTPUT. Part of the checks of engines."""

import sys
from typing import Any

import torch
from datasets import Dataset
from machine import note

from te_trainer import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from te_trainer.distributed import process_state, shutdown_process_group

state = process_state()
model, output = sys.argv[1:]
args = CrossEncoderTrainingArguments(
    output, max_steps=8, save_strategy="no", report_to="none", precision="bfloat16", disable_tqdm=True
)
encoder = CrossEncoder.from_pretrained(model)
types: set[str] = set()


def watch(module: Any, inputs: Any, hidden: torch.Tensor) -> None:
    types.add(str(hidden.dtype))


encoder.model.base_model.encoder.layer[0].intermediate.dense.register_forward_hook(watch)
rows = Dataset.from_dict({"sentence1": ["a b c"] * 64, "sentence2": ["d e f"] * 64, "label": [0.5] * 64})
trainer = CrossEncoderTrainer(encoder, args, rows)
trainer.train()
weights = sorted({str(weight.dtype) for weight in encoder.model.parameters()})
if state.is_main_process:
    note(f"{type(trainer.model_wrapped).__name__}: a layer computes in {sorted(types)}, weights are {weights}")
shutdown_process_group()
sys.exit(0 if "torch.bfloat16" in types else "NOT SO: a layer computes in bfloat16")
