"""The bi-encoder's trainer against sentence-transformers, and alone in a user's hands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import labelled
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder
from te_trainer.models.bi_encoder import Pooling
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments


def arguments(output: Path, **values: object) -> BiEncoderTrainingArguments:
    settings = {"precision": "float32", "save_strategy": "no", "disable_tqdm": True, **values}
    return BiEncoderTrainingArguments(output_dir=str(output), **settings)  # type: ignore[arg-type]


def assert_equal_gradients(model: Any, theirs: torch.nn.Module) -> None:
    """The gradients of a model are those of an object of sentence-transformers, and are not all tiny."""
    gradients = {name.removeprefix("0.model."): weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        torch.testing.assert_close(
            weight.grad, gradients[name], rtol=0, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert max(weight.grad.abs().max() for weight in model.parameters()) > 1e-2


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_loss_and_gradients_equal_those_of_cosine_similarity_loss(
    model: str, pooling: Pooling, tmp_path: Path, models: dict[str, str]
) -> None:
    encoder = BiEncoder.from_pretrained(models[model], pooling=pooling)
    encoder.save_pretrained(tmp_path / "saved")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").eval()
    pairs = labelled(16)
    trainer = BiEncoderTrainer(encoder, arguments(tmp_path), pairs)
    trainer.model.eval()
    assert trainer.train_dataset is not None

    loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    loss.backward()
    features = [theirs.preprocess(pairs[name][:]) for name in ("sentence1", "sentence2")]
    their_loss = CosineSimilarityLoss(theirs)(features, torch.tensor(pairs["label"][:]))
    their_loss.backward()

    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6)
    assert_equal_gradients(trainer.model, theirs)


def test_both_sides_go_through_the_model_in_one_pass(models: dict[str, str], tmp_path: Path) -> None:
    trainer = BiEncoderTrainer(models["bert"], arguments(tmp_path, per_device_train_batch_size=8), labelled(8))
    shapes = []
    trainer.model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True, prepend=True
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model, batch)
    assert [shape[0] for shape in shapes] == [16]


def test_sentences_are_cut_at_the_encoders_max_length(models: dict[str, str], tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(models["bert"], max_length=5)
    trainer = BiEncoderTrainer(encoder, arguments(tmp_path), labelled(8))
    assert trainer.train_dataset is not None
    for pair, row in zip(labelled(8), trainer.train_dataset, strict=True):
        for side in "12":
            assert row[f"input_ids{side}"] == [*encoder.tokenizer(pair[f"sentence{side}"])["input_ids"][:4], 3]


def test_the_prompt_stands_in_front_of_every_sentence(models: dict[str, str], tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(models["bert"], prompt="the router says ")
    trainer = BiEncoderTrainer(encoder, arguments(tmp_path), labelled(8))
    assert trainer.train_dataset is not None
    for pair, row in zip(labelled(8), trainer.train_dataset, strict=True):
        for side in "12":
            text = f"the router says {pair[f'sentence{side}']}"
            assert row[f"input_ids{side}"] == encoder.tokenizer(text, truncation=True, max_length=32)["input_ids"]
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    assert BiEncoder.from_pretrained(str(tmp_path / "saved")).prompt == "the router says "


def test_the_evaluation_metric_can_be_chosen(models: dict[str, str], tmp_path: Path) -> None:
    def share_above_half(scores: np.ndarray, gold: np.ndarray) -> float:
        return float(np.mean((scores > 0.5) == (gold > 0.5)))

    dev = labelled(50)
    trainer = BiEncoderTrainer(models["bert"], arguments(tmp_path), None, dev, metric=share_above_half)
    expected = share_above_half(score_pairs(trainer.encoder, dev), np.array(dev["label"]))
    assert trainer.evaluate()["eval_share_above_half"] == pytest.approx(expected)
    assert trainer.args.metric_for_best_model == "share_above_half"


def test_alone_with_a_dataset_and_a_name_it_trains_and_saves_a_sentence_transformer(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = labelled(20)
    trainer = BiEncoderTrainer(models["bert"], train_dataset=pairs)
    trainer.train()
    trainer.save_model("bi-encoder")
    before = load_file(Path(models["bert"], "model.safetensors"))["embeddings.LayerNorm.weight"]
    assert not torch.equal(before, load_file("bi-encoder/model.safetensors")["embeddings.LayerNorm.weight"])

    loaded = SentenceTransformer("bi-encoder", device="cpu")
    assert loaded.max_seq_length == 32
    one, two = (loaded.encode(pairs[name][:], convert_to_tensor=True) for name in ("sentence1", "sentence2"))
    cosines = torch.cosine_similarity(one, two).numpy()
    np.testing.assert_allclose(score_pairs(BiEncoder.from_pretrained("bi-encoder"), pairs), cosines, atol=1e-5)


def test_the_default_arguments_are_the_papers() -> None:
    """Table 16, cross to bi, STS, base size; warm-up, decay and evaluation are the official code's."""
    args = BiEncoderTrainingArguments()
    assert (args.learning_rate, args.per_device_train_batch_size, args.num_train_epochs) == (5e-5, 128, 10)
    assert (args.warmup_steps, args.weight_decay, args.eval_steps) == (0, 0.01, 200)
    assert args.lr_scheduler_type == "linear"


@pytest.mark.parametrize("loss", ["mse", "bce", "cosent"])
def test_the_loss_decides_what_is_learnt(loss: str, models: dict[str, str], tmp_path: Path) -> None:
    """Gradients are those of the formula by the cosine, carried down by autograd."""
    encoder = BiEncoder.from_pretrained(models["bert"], pooling="mean")
    trainer = BiEncoderTrainer(encoder, arguments(tmp_path, loss=loss), labelled(16))
    trainer.model.eval()
    assert trainer.train_dataset is not None
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.compute_loss(trainer.model, batch).backward()
    weight = trainer.model.encoder.layer[0].output.dense.weight
    one, two = encoder.embed(batch["input_ids"], batch["attention_mask"]).chunk(2)
    cosines, labels = torch.cosine_similarity(one, two), batch["labels"]
    higher, lower = torch.nonzero(labels[:, None] > labels).T
    by_hand = {
        "mse": ((cosines - labels) ** 2).mean(),
        "bce": -(labels * cosines.sigmoid().log() + (1 - labels) * (1 - cosines.sigmoid()).log()).mean(),
        "cosent": torch.log1p(torch.exp(20 * (cosines[lower] - cosines[higher])).sum()),
    }
    (theirs,) = torch.autograd.grad(by_hand[loss], weight)
    torch.testing.assert_close(weight.grad, theirs, rtol=1e-4, atol=1e-6)
