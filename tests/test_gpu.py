"""What a GPU computes is what a CPU computes. Skipped where there is none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import labelled, results_of, run_launched, sample_pairs, tiny_arguments
from torch import nn

from te_trainer import labelling
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.packed import choose_backend, use_backend
from te_trainer.models.packed.pack import is_packing
from te_trainer.models.packed.when_to_pack import PACKED_ON_GPU
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or called without -m gpu"),
]


def test_a_run_starts_with_the_scores_of_the_cpu(tiny: Path, tmp_path: Path) -> None:
    starts = {}
    for device in ("single_gpu", "cpu"):
        arguments = tiny_arguments(tiny, tmp_path / device)
        finished = run_launched(f"{device}.yaml", "trans_encoder.py", *arguments)
        assert finished.returncode == 0, finished.stderr[-4000:]
        results = results_of(tmp_path / device)
        starts[device] = results["start"]["tiny"]["bi-encoder"]["dev"]
        assert len(results["cycles"]) == 2
    assert starts["single_gpu"] == pytest.approx(starts["cpu"], abs=1e-4)


@pytest.mark.parametrize("name", ["Bert", "DistilBert", "Roberta", "XLMRoberta", "Camembert", "Electra"])
def test_a_packed_batch_gives_what_the_padded_one_gives(name: str) -> None:
    config = getattr(transformers, f"{name}Config")(
        vocab_size=100,
        hidden_size=128,
        embedding_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        num_labels=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dropout=0.0,  # DistilBERT's names
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config).cuda().train()
    lengths = torch.randint(1, 100, (37,), device="cuda")
    mask = (torch.arange(100, device="cuda") < lengths[:, None]).long()
    ids = torch.randint(5, 100, mask.shape, device="cuda").where(mask == 1, config.pad_token_id)
    backend = choose_backend(model, 100, torch.device("cuda"), "bfloat16")
    assert backend == PACKED_ON_GPU
    found = {}
    for way in ("float32", "padded", "packed"):
        with torch.autocast("cuda", torch.bfloat16, enabled=way != "float32"), ExitStack() as stack:
            if way == "packed":
                stack.enter_context(use_backend(model, backend, training=True))
            model.zero_grad()
            logits = model(input_ids=ids, attention_mask=mask).logits.float()
            logits.square().sum().backward()
        gradients = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        found[way] = (logits.detach(), gradients)
    for exact, padded, packed in zip(*found.values(), strict=True):
        # as far from float32 as the plain computation in bfloat16 is
        assert (packed - exact).norm() < 1.5 * (padded - exact).norm() + 1e-3 * exact.norm()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_in_bfloat16_computes_no_padding(compiled: bool, tiny: Path, tmp_path: Path) -> None:
    seen = []

    class Seen(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
            seen.append(is_packing(model))

    values = {"precision": "bfloat16", "max_steps": 3, "torch_compile": compiled}
    arguments = BiEncoderTrainingArguments(output_dir=str(tmp_path), **values)  # type: ignore[arg-type]
    trainer = BiEncoderTrainer(str(tiny), arguments, labelled(64), callbacks=[Seen()])
    trainer.train()
    assert seen == [True] * 3
    assert all(torch.isfinite(weight).all() for weight in trainer.encoder.model.parameters())


@pytest.fixture
def watched() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


class NoWaits(transformers.TrainerCallback):
    """Fails where a step waits for the GPU, after the first two and up to the last."""

    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        watching = 2 <= state.global_step < state.max_steps
        self.steps += watching
        torch.cuda.set_sync_debug_mode("error" if watching else "default")


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_a_training_step_waits_for_nothing(
    kind: str, precision: str, official: bool, tiny: Path, tmp_path: Path, watched: None
) -> None:
    values: Any = {"precision": precision, "official_adamw": official, "gradient_accumulation_steps": 2}
    values |= {"max_steps": 6, "per_device_train_batch_size": 4, "save_strategy": "no", "logging_strategy": "no"}
    pairs, waits = labelled(64), NoWaits()
    trainer: Any
    if kind == "bi-encoder":
        trainer = BiEncoderTrainer(
            str(tiny), BiEncoderTrainingArguments(str(tmp_path), **values), pairs, callbacks=[waits]
        )
    else:
        trainer = CrossEncoderTrainer(
            str(tiny), CrossEncoderTrainingArguments(str(tmp_path), **values), pairs, callbacks=[waits]
        )
    trainer.train()
    assert waits.steps == 4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_labelling_waits_once_a_window(
    kind: str, precision: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, watched: None
) -> None:
    monkeypatch.setattr(labelling, "WINDOW", 64)
    pairs = {f"sentence{side + 1}": [pair[side] for pair in sample_pairs(200)] for side in (0, 1)}
    encoder: Any = (BiEncoder if kind == "bi-encoder" else CrossEncoder).from_pretrained(str(tiny))
    expected = labelling.score_pairs(encoder, pairs, precision=precision, batch_tokens=300)
    count = len({text for side in pairs.values() for text in side}) if kind == "bi-encoder" else 200
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        found = labelling.score_pairs(encoder, pairs, precision=precision, batch_tokens=300)
    waits = [message for message in caught if "called a synchronizing CUDA operation" in str(message.message)]
    assert len(waits) == -(-count // 64)
    assert (found == expected).all()
