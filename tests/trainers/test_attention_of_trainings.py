"""Trainings that packed rows do not serve compute padded batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
from test_training_loop import KINDS, labelled, load, trainer_of

from te_trainer.encoders.packing import is_packed
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiler_gets_padded_batches(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    encoder = load(kind, models["bert"])
    assert is_packed(encoder.model)
    trainer_of(encoder, tmp_path, labelled(), torch_compile=True)
    assert encoder.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", KINDS)
def test_noise_by_a_sentences_length_gets_padded_batches(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    encoder = load(kind, models["bert"])
    trainer_of(encoder, tmp_path, labelled(), neftune_noise_alpha=5.0, max_steps=2).train()
    assert not is_packed(encoder.model)


def test_prompts_that_are_learnt_stand_in_front_of_padded_batches(models: dict[str, str], tmp_path: Path) -> None:
    encoder: Any = load("bi-encoder", models["bert"])
    args = BiEncoderTrainingArguments(output_dir=str(tmp_path), max_steps=2, save_strategy="no", learning_rate=0.1)
    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    trainer = BiEncoderTrainer(encoder, args, labelled(), peft_config=config)
    (before,) = (weight.detach().clone() for weight in trainer.model.parameters() if weight.requires_grad)
    trainer.train()
    (after,) = (weight for weight in trainer.model.parameters() if weight.requires_grad)
    assert float((after - before).abs().max()) > 1e-3
