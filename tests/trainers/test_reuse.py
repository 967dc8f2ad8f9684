"""One encoder, one trainer or one set of arguments, used more than once; what a script does that a run never does."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_from_disk
from tiny_trainings import KINDS, At, Killed, checkpoints, kill, labelled, load, trainer_of

from te_trainer.errors import DivergedError, InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import tokenization
from te_trainer.trainers import BiEncoderTrainingArguments
from te_trainer.trainers.datasets import PairCheck


def arithmetic_of(encoder: Any) -> list[tuple[bool, torch.dtype]]:
    """Grows with each pass: whether it learns, and the dtype that a matrix product gives."""
    seen: list[tuple[bool, torch.dtype]] = []
    product = next(module for module in encoder.model.modules() if isinstance(module, torch.nn.Linear))
    product.register_forward_hook(lambda module, _, output: seen.append((module.training, output.dtype)))
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_every_training_and_evaluation_has_the_precision_asked_for(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    """accelerate does not prepare a model twice."""
    encoder = load(kind, models["bert"])
    seen = arithmetic_of(encoder)
    trainers = [
        trainer_of(encoder, tmp_path, labelled(), labelled(), precision="bfloat16", num_train_epochs=1)
        for _ in range(2)
    ]
    for trainer in (trainers[0], trainers[0], trainers[1]):
        trainer.evaluate()
        assert set(seen) == {(False, torch.bfloat16)}
        seen.clear()
        trainer.train()
        assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}
        seen.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_afterwards_scores_are_in_float32(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    encoder = load(kind, models["bert"])
    seen = arithmetic_of(encoder)
    expected = score_pairs(encoder, labelled())
    trainer = trainer_of(encoder, tmp_path, labelled(), labelled(), precision="bfloat16", callbacks=[At(3, kill)])
    trainer.evaluate()
    seen.clear()
    assert np.array_equal(score_pairs(encoder, labelled()), expected)
    with pytest.raises(Killed):
        trainer.train()
    seen.clear()
    score_pairs(encoder, labelled())
    trainer.evaluate()
    assert {dtype for _, dtype in seen} == {torch.float32, torch.bfloat16}
    seen.clear()
    score_pairs(encoder, labelled())
    assert {dtype for _, dtype in seen} == {torch.float32}


def test_each_epoch_of_a_second_training_is_evaluated(models: dict[str, str], tmp_path: Path) -> None:
    trainer = trainer_of(load("bi-encoder", models["bert"]), tmp_path, labelled(), labelled(), num_train_epochs=1)
    for epochs, steps in ((1, [5]), (2, [5, 10])):
        trainer.args.num_train_epochs = epochs
        trainer.train()
        assert [entry["step"] for entry in trainer.state.log_history if "eval_spearman" in entry] == steps


def test_after_a_training_that_diverged_comes_one_that_does_not(models: dict[str, str], tmp_path: Path) -> None:
    encoder = load("bi-encoder", models["bert"])
    before = {name: weight.clone() for name, weight in encoder.model.state_dict().items()}

    def spoil(model: torch.nn.Module) -> None:
        next(model.parameters()).data.fill_(float("nan"))

    trainer = trainer_of(encoder, tmp_path, labelled(), callbacks=[At(2, spoil)])
    with pytest.raises(DivergedError, match="step 2"):
        trainer.train()
    encoder.model.load_state_dict(before)
    trainer.pop_callback(At)
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    assert trainer.state.global_step == 10


def test_arguments_serve_a_second_trainer(models: dict[str, str], tmp_path: Path) -> None:
    """A dev set sets some of them."""
    encoder: Any = load("bi-encoder", models["bert"])
    trainer = trainer_of(encoder, tmp_path, labelled(), labelled())
    args = BiEncoderTrainingArguments(output_dir=str(tmp_path), max_steps=2, save_strategy="no")
    type(trainer)(encoder, args, labelled(), labelled())
    second = type(trainer)(encoder, args, labelled())
    assert second.args.eval_strategy == "no"
    second.train()
    assert checkpoints(tmp_path) == []


def test_a_process_trains_on_one_gpu(tmp_path: Path) -> None:
    """Four visible ones would make batches of 32 out of 8."""

    class FourGPUs(BiEncoderTrainingArguments):
        @cached_property
        def _setup_devices(self) -> torch.device:
            self._n_gpu = 4
            return torch.device("cpu")

    args = FourGPUs(output_dir=str(tmp_path), per_device_train_batch_size=8)
    assert (args.n_gpu, args.train_batch_size) == (1, 8)


def test_a_batch_that_is_too_large_is_made_smaller(models: dict[str, str], tmp_path: Path) -> None:
    sizes = []

    def small(made: type) -> type:
        class Small(made):  # type: ignore[misc]
            def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
                if self.pairs_in(inputs) > 4:
                    raise RuntimeError("CUDA out of memory.")
                sizes.append(self.pairs_in(inputs))
                return super().training_step(model, inputs, num_items_in_batch)

        return Small

    encoder = load("bi-encoder", models["bert"])
    values = {"auto_find_batch_size": True, "per_device_train_batch_size": 16, "num_train_epochs": 1}
    trainer_of(encoder, tmp_path, labelled(), base=small, **values).train()
    assert max(sizes) <= 4
    assert sum(sizes) == 20


def test_the_other_end_is_cut_off_when_it_is_asked_for(models: dict[str, str], tmp_path: Path) -> None:
    """What was tokenised before is found again on the disk."""
    labelled().save_to_disk(tmp_path)
    encoder: Any = load("cross-encoder", models["bert"])
    encoder.max_length = 8
    trainer = trainer_of(encoder, tmp_path / "output", None)
    found = []
    for side in ("right", "left", "right"):
        encoder.tokenizer.truncation_side = side
        rows = trainer.tokenise(load_from_disk(tmp_path), PairCheck("pairs"), training=False)
        found.append(rows["input_ids"][:])
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_with_other_labels_are_not_tokenised_again(
    kind: str, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a run's trainings see are chosen of its pool, with labels that change from cycle to cycle."""
    tokenised: list[int] = []
    plain = tokenization._encoded

    def count(tokenizer: Any, sides: Any) -> Any:
        tokenised.append(len(sides[0]))
        return plain(tokenizer, sides)

    monkeypatch.setattr(tokenization, "_encoded", count)
    labelled(30).select_columns(["sentence1", "sentence2"]).save_to_disk(tmp_path / "pool")
    chosen = np.setdiff1d(np.arange(30), [1, 9])
    orders = 1 if kind == "bi-encoder" else 2

    def train_on(labels: np.ndarray, chosen: np.ndarray, folder: str = "pool") -> Any:
        pool = load_from_disk(tmp_path / folder).add_column("label", labels)
        values = {"both_orders": True} if orders == 2 else {}
        return trainer_of(load(kind, models["bert"]), tmp_path / "o", pool.select(chosen), **values).train_dataset

    labels = np.linspace(-1, 1, 30, dtype=np.float32)
    first = train_on(labels, chosen)
    assert sum(tokenised) == 28 * 2  # both sides, or both orders
    tokenised.clear()
    files = sorted(tmp_path.rglob("cache-*"))
    second = train_on(labels / 2, chosen)
    assert tokenised == []
    assert sorted(tmp_path.rglob("cache-*")) == files
    assert second.remove_columns("label")[:] == first.remove_columns("label")[:]
    assert second["label"][:] == (labels[chosen] / 2).tolist() * orders
    assert first["label"][:] == labels[chosen].tolist() * orders
    with pytest.raises(InputError, match=r"^train_dataset: row 2: label is nan, which is no finite number"):
        train_on(np.where(np.arange(30) == 2, np.nan, labels), chosen)
    assert tokenised == []
    others = {
        "pool": np.setdiff1d(np.arange(30), [2, 8]),  # as many
        "exchanged": chosen,  # beside tokens of other sentences
    }
    exchanged = labelled(30).rename_columns({"sentence1": "sentence2", "sentence2": "sentence1"})
    exchanged.select_columns(["sentence1", "sentence2"]).save_to_disk(tmp_path / "exchanged")
    for file in files:
        shutil.copy(file, tmp_path / "exchanged")
    for folder, rows in others.items():
        tokenised.clear()
        other = train_on(labels, rows, folder)
        assert sum(tokenised) == 28 * 2
        assert other.remove_columns("label")[:] != first.remove_columns("label")[:]
