"""The cross-encoder's trainer against sentence-transformers, and alone in a user's hands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import labelled, sample_pairs
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from test_bi_encoder_trainer import assert_equal_gradients
from transformers import set_seed

from te_trainer.labelling import score_pairs
from te_trainer.models import CrossEncoder
from te_trainer.trainers import CrossEncoderTrainer, CrossEncoderTrainingArguments


def arguments(output: Path, **values: object) -> CrossEncoderTrainingArguments:
    settings = {"precision": "float32", "save_strategy": "no", "disable_tqdm": True, **values}
    return CrossEncoderTrainingArguments(output_dir=str(output), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_loss_and_gradients_equal_those_of_binary_cross_entropy_loss(
    model: str, tmp_path: Path, models: dict[str, str]
) -> None:
    """Labels below 0 are among the batch's."""
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(models[model])
    encoder.save_pretrained(tmp_path / "saved")
    theirs = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").eval()
    pairs = labelled(16)
    assert min(pairs["label"]) < 0
    trainer = CrossEncoderTrainer(encoder, arguments(tmp_path, both_orders=False), pairs)
    trainer.model.eval()
    assert trainer.train_dataset is not None

    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss.backward()
    columns = [pairs[name][:] for name in ("sentence1", "sentence2")]
    their_loss = BinaryCrossEntropyLoss(theirs)(columns, torch.tensor(pairs["label"][:]))
    their_loss.backward()

    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6)
    assert_equal_gradients(trainer.model, theirs)


@pytest.mark.parametrize("both_orders", [True, False])
def test_pairs_are_trained_in_both_orders_unless_switched_off(
    both_orders: bool, models: dict[str, str], tmp_path: Path
) -> None:
    seen: Counter[tuple[int, ...]] = Counter()

    class Recording(CrossEncoderTrainer):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
                seen[tuple(ids[mask.bool()].tolist())] += 1
            return super().compute_loss(model, inputs, *args, **kwargs)

    pairs = labelled(20)
    trainer = Recording(models["bert"], arguments(tmp_path, both_orders=both_orders, num_train_epochs=2), pairs)
    trainer.train()
    orders = [("sentence1", "sentence2"), ("sentence2", "sentence1")][: 2 if both_orders else 1]
    expected = Counter(
        tuple(trainer.encoder.tokenizer(pair[one], pair[two])["input_ids"])
        for pair in pairs
        for one, two in orders
        for _ in range(2)
    )
    assert seen == expected
    assert sum(seen.values()) == 2 * len(orders) * 20


def test_a_swapped_pair_keeps_its_label(models: dict[str, str], tmp_path: Path) -> None:
    pairs = labelled(20)
    trainer = CrossEncoderTrainer(models["bert"], arguments(tmp_path), pairs)
    assert trainer.train_dataset is not None
    found = {tuple(row["input_ids"]): row["label"] for row in trainer.train_dataset}
    for pair in pairs:
        for one, two in (("sentence1", "sentence2"), ("sentence2", "sentence1")):
            assert found[tuple(trainer.encoder.tokenizer(pair[one], pair[two])["input_ids"])] == pair["label"]


def test_evaluation_sees_one_order(models: dict[str, str], tmp_path: Path) -> None:
    trainer = CrossEncoderTrainer(models["bert"], arguments(tmp_path, both_orders=True), None, labelled(20))
    assert len(trainer.eval_dataset) == 20  # type: ignore[arg-type]


def test_pairs_are_cut_at_the_encoders_max_length(models: dict[str, str], tmp_path: Path) -> None:
    encoder = CrossEncoder.from_pretrained(models["bert"], max_length=9)
    pairs = labelled(8)
    trainer = CrossEncoderTrainer(encoder, arguments(tmp_path), pairs)
    assert trainer.train_dataset is not None
    cut = {len(row["input_ids"]) for row in trainer.train_dataset}
    assert max(cut) == 9
    assert max(len(encoder.tokenizer(pair["sentence1"], pair["sentence2"])["input_ids"]) for pair in pairs) > 9


def test_alone_with_a_dataset_and_a_name_it_trains_and_saves_a_cross_encoder(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = labelled(20)
    trainer = CrossEncoderTrainer(models["bert"], train_dataset=pairs)
    trainer.train()
    trainer.save_model("cross-encoder")
    before = load_file(Path(models["bert"], "model.safetensors"))["embeddings.LayerNorm.weight"]
    assert not torch.equal(before, load_file("cross-encoder/model.safetensors")["bert.embeddings.LayerNorm.weight"])

    loaded = TheirCrossEncoder("cross-encoder", device="cpu")
    assert loaded.tokenizer.model_max_length == 64
    scores = loaded.predict(list(zip(pairs["sentence1"], pairs["sentence2"], strict=True)))
    np.testing.assert_allclose(score_pairs(CrossEncoder.from_pretrained("cross-encoder"), pairs), scores, atol=1e-5)


def test_the_default_arguments_are_the_papers() -> None:
    """Table 16, bi to cross, STS; warm-up, decay, both orders and evaluation are the official code's."""
    args = CrossEncoderTrainingArguments()
    assert (args.learning_rate, args.per_device_train_batch_size, args.num_train_epochs) == (2e-5, 32, 1)
    assert (args.warmup_steps, args.weight_decay, args.eval_steps) == (0.1, 0.01, 200)
    assert args.both_orders
    assert args.lr_scheduler_type == "linear"


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_the_loss_decides_what_is_learnt_and_how_it_is_scored(
    loss: str, models: dict[str, str], tmp_path: Path
) -> None:
    """Gradients of the head are those of the formula by the logit, carried down by autograd; the score follows."""
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(models["bert"])
    encoder.activate_with("sigmoid" if loss == "mse" else "identity")
    trainer = CrossEncoderTrainer(encoder, arguments(tmp_path, both_orders=False, loss=loss), labelled(16))
    trainer.model.eval()
    assert trainer.train_dataset is not None
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.compute_loss(trainer.model, dict(batch)).backward()
    ours = trainer.model.classifier.weight.grad.clone()
    labels = batch.pop("labels")
    logits = encoder.logits(**batch)
    distance = (torch.sigmoid(logits) - labels if loss == "bce" else 2 * (logits - labels)).detach() / 16
    (theirs,) = torch.autograd.grad(logits, trainer.model.classifier.weight, grad_outputs=distance)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

    trainer.save_model(str(tmp_path / "saved"))
    pairs = sample_pairs(40)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    scores = score_pairs(CrossEncoder.from_pretrained(str(tmp_path / "saved")), columns)
    predicted = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs)
    np.testing.assert_allclose(scores, predicted, rtol=0, atol=1e-5)
    assert (scores.min() < 0) == (loss == "mse")
