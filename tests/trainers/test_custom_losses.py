"""Losses of the user's own: a function, or a method of a subclass."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from test_trainer_evaluation import make
from tiny_trainings import CLASSES, KINDS, labelled, load, same, weights, without_dropout
from torch import Tensor

from te_trainer.trainers import BiEncoderTrainer


def squared(outputs: dict[str, Tensor], labels: Tensor, num_items_in_batch: Any) -> Tensor:
    scores = outputs["scores"] if "scores" in outputs else outputs["logits"]
    return ((scores - labels) ** 2).sum() / num_items_in_batch


@pytest.mark.parametrize(("kind", "accumulation"), [("bi-encoder", 2), ("cross-encoder", 1)])
def test_a_function_of_scores_and_labels_is_learnt(
    kind: str, accumulation: int, models: dict[str, str], tmp_path: Path
) -> None:
    """It says what mse says, so it learns the same; also of the smaller last batch."""
    found = []
    for more in ({"compute_loss_func": squared}, {}):
        trainer = make(
            kind, without_dropout(load(kind, models["bert"])), tmp_path, labelled(22), labelled(22), loss="mse",
            gradient_accumulation_steps=accumulation, learning_rate=1e-3, save_strategy="no", **more,
        )  # fmt: skip
        trainer.train()
        found.append((weights(trainer), trainer.evaluate()["eval_loss"]))
    for name, weight in found[0][0].items():
        torch.testing.assert_close(weight, found[1][0][name], rtol=0, atol=2e-5)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)
    assert not same(found[0][0], weights(make(kind, models["bert"], tmp_path)))


def test_a_loss_of_the_users_own_leaves_the_activation(models: dict[str, str], tmp_path: Path) -> None:
    encoder: Any = load("cross-encoder", models["bert"])
    encoder.activate_with("identity")
    make(
        "cross-encoder", encoder, tmp_path, labelled(), compute_loss_func=squared, max_steps=1, save_strategy="no"
    ).train()
    assert encoder.activation == "identity"


def test_a_function_sees_the_vectors(models: dict[str, str], tmp_path: Path) -> None:
    shapes = []

    def distance(outputs: dict[str, Tensor], labels: Tensor | None, num_items_in_batch: Any = None) -> Tensor:
        assert labels is None
        shapes.append((outputs["embeddings1"].shape, int(num_items_in_batch)))
        return (outputs["embeddings1"] - outputs["embeddings2"]).square().sum() / num_items_in_batch

    pairs = labelled(8).remove_columns("label")
    make(
        "bi-encoder", models["bert"], tmp_path, pairs, loss="info_nce", compute_loss_func=distance, save_strategy="no"
    ).train()
    assert shapes == [((4, 32), 4), ((4, 32), 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_of_a_subclass_is_learnt(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """Its labels are its own affair."""
    pairs = labelled(8).remove_columns("label").add_column("label", [float(value) for value in range(8)])

    class Scaled(CLASSES[kind][0]):  # type: ignore[misc]
        def loss_function(self, *inputs: Tensor) -> Tensor:
            *outputs, labels = inputs
            return super().loss_function(*outputs, labels / 8)  # type: ignore[no-any-return]

    args = CLASSES[kind][1](str(tmp_path), precision="float32", save_strategy="no", num_train_epochs=1)
    trained = []
    for trainer, given in ((Scaled, pairs), (CLASSES[kind][0], pairs.map(lambda row: {"label": row["label"] / 8}))):
        made = trainer(load(kind, models["bert"]), args, given, given)
        made.train()
        trained.append((weights(made), made.evaluate()["eval_loss"]))
    assert same(trained[0][0], trained[1][0])
    assert trained[0][1] == pytest.approx(trained[1][1], abs=1e-6)


def test_the_examples_of_the_documentation_run(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trainers.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("princeton-nlp/unsup-simcse-bert-base-uncased", models["bert"]), names)
    assert len(blocks) == 4
    assert "eval_forum_spearman" in capsys.readouterr().out
    assert isinstance(names["trainer"], BiEncoderTrainer)
    assert names["trainer"].has_custom_loss()
    assert names["trainer"].state.global_step == 2
    embeddings = torch.eye(3, requires_grad=True)
    loss = names["trainer"].loss_function(embeddings, embeddings[[0, 2, 1]], torch.tensor([0.0, 1.0, 0.5]))
    assert float(loss) == pytest.approx(float((1.1 + 1.1 + 0.1) / 9))
    halves = names["huber"]({"scores": torch.zeros(2)}, torch.ones(2), 2)
    assert float(halves) == pytest.approx(float(F.huber_loss(torch.zeros(1), torch.ones(1), delta=0.1)))
