"""What both trainers do from the first step to the last: gradients, order, evaluation, checkpoints, precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_trainings import (
    KINDS,
    PAIRS,
    At,
    Gradients,
    Killed,
    checkpoints,
    curve_of,
    kill,
    labelled,
    load,
    recording,
    same,
    trainer_of,
    weights,
    without_dropout,
)
from transformers import Trainer as TransformersTrainer
from transformers import TrainerCallback, set_seed

from te_trainer.errors import DivergedError, InputError
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import Encoder
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments, CrossEncoderTrainer
from te_trainer.trainers.checkpoint_mark import WHOLE_MARK, last_whole_checkpoint


@pytest.fixture(autouse=True)
def not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.fixture(scope="module")
def model(models: dict[str, str]) -> str:
    return models["bert"]


# ------------------------------------------------------------ gradients


@pytest.mark.parametrize("pairs", [16, 22])  # the last step of 22 has micro-batches of 3 where others have 4
@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_gradients_equal_those_of_the_whole_batch(
    kind: str, pairs: int, model: str, tmp_path: Path
) -> None:
    """transformers takes a custom loss for already scaled, which would make them four times too large."""

    found = []
    for batch, accumulation in ((16, 1), (4, 4)):
        gradients = Gradients()
        trainer = trainer_of(
            without_dropout(load(kind, model)),
            tmp_path,
            labelled(pairs),
            callbacks=[gradients],
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            max_grad_norm=0.0,
            **({"both_orders": False} if kind == "cross-encoder" else {}),
        )
        trainer.train()
        assert trainer.state.global_step == math.ceil(pairs / 16)
        found.append(gradients.found)
    for whole, accumulated in zip(*found, strict=True):
        assert max(gradient.abs().max() for gradient in whole.values()) > 1e-2
        for name, gradient in whole.items():
            torch.testing.assert_close(
                accumulated[name], gradient, rtol=0, atol=1e-6, msg=lambda text, n=name: n + text
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plm", ["tiny", "tiny_roberta"])
def test_all_trainable_parameters_change(kind: str, plm: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trainer = trainer_of(load(kind, str(request.getfixturevalue(plm))), tmp_path, labelled(), num_train_epochs=1)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    parameters = dict(trainer.model.named_parameters())
    assert all(parameter.requires_grad for parameter in parameters.values())
    assert [name for name in parameters if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_labels_are_learnt(kind: str, model: str, tmp_path: Path) -> None:
    pairs = labelled()
    encoder = without_dropout(load(kind, model))
    before = spearman(score_pairs(encoder, pairs), np.array(pairs["label"]))
    trainer_of(encoder, tmp_path, pairs, num_train_epochs=15).train()
    after = spearman(score_pairs(encoder, pairs), np.array(pairs["label"]))
    assert after > max(0.8, before + 0.3)


# ------------------------------------------------------------ one process, many trainings


def test_operations_are_counted_as_the_trainer_counts_them(model: str, tmp_path: Path) -> None:
    """Once a training, and anew where a model grew between two of them."""

    class Counting(CrossEncoderTrainer):
        theirs = 0

        def floating_point_ops(self, inputs: dict[str, Any]) -> int:
            self.theirs += TransformersTrainer.floating_point_ops(self, inputs)
            return super().floating_point_ops(inputs)

    trainer = trainer_of(load("cross-encoder", model), tmp_path, labelled(), base=lambda made: Counting)
    count = Mock(side_effect=trainer.model.num_parameters)
    trainer.model.num_parameters = count
    for width in (1, 5):
        trainer.model.register_parameter("extra", torch.nn.Parameter(torch.zeros(width)))
        trainer.theirs = 0
        count.reset_mock()
        trainer.train()
        assert trainer.state.total_flos == trainer.theirs > 0
        # the Trainer counts in each step
        assert count.call_count == trainer.state.global_step + 1


def test_trainers_one_after_another_in_one_process(model: str, tmp_path: Path) -> None:
    """Each TrainingArguments resets the state below all trainers; a training leaves nothing to the next one."""
    found = []
    stages = [("bi-encoder", "no"), ("cross-encoder", "bf16"), ("bi-encoder", "bf16"), ("cross-encoder", "no")]
    for number, (kind, precision) in enumerate(stages * 2):
        trainer = trainer_of(
            load(kind, model), tmp_path / str(number), labelled(), labelled(8), bf16=precision == "bf16", max_steps=2
        )
        assert trainer.accelerator.mixed_precision == precision
        trainer.train()
        trainer.save_model(str(tmp_path / f"{number}-saved"))
        found.append(load_file(tmp_path / f"{number}-saved" / "model.safetensors"))
        trainer.accelerator.free_memory()
        del trainer
    for first, second in zip(found[:4], found[4:], strict=True):
        assert same(first, second)
    assert not same(found[0], found[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_round_follows_from_the_seed(kind: str, model: str, tmp_path: Path) -> None:
    """A new head is drawn before transformers' Trainer seeds anything."""
    found = []
    for noise, seed in ((1, 11), (2, 11), (3, 12)):
        torch.manual_seed(noise)
        trainer = trainer_of(model, tmp_path, labelled(), kind=kind, seed=seed, max_steps=2)
        trainer.train()
        found.append(weights(trainer))
    assert not same(found[0], found[2])
    assert same(found[0], found[1])


# ------------------------------------------------------------ the order of examples


def test_every_epoch_trains_each_example_once_in_an_order_of_its_own(model: str, tmp_path: Path) -> None:
    def orders(**values: Any) -> list[tuple[float, ...]]:
        """The order of 22 examples in each of two epochs."""
        seen: list[list[float]] = []
        pairs = labelled(22)
        trainer_of(load("bi-encoder", model), tmp_path, pairs, base=recording(seen), **values).train()
        assert [len(batch) for batch in seen] == [4, 4, 4, 4, 4, 2] * 2
        epochs = [tuple(label for batch in seen[start : start + 6] for label in batch) for start in (0, 6)]
        assert [sorted(epoch) for epoch in epochs] == [sorted(np.float32(pairs["label"]).tolist())] * 2
        return epochs

    first, other = orders(seed=1), orders(seed=2)
    assert len({*first, *other}) == 4
    assert orders(seed=3, data_seed=2, learning_rate=1e-5) == other


def test_an_epoch_after_one_that_was_cut_short_has_an_order_of_its_own(model: str, tmp_path: Path) -> None:
    class StopAfterTwoSteps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_epoch_stop |= state.global_step == 2

    def batches(*callbacks: TrainerCallback) -> list[list[float]]:
        seen: list[list[float]] = []
        encoder = load("bi-encoder", model)
        trainer_of(encoder, tmp_path, labelled(16), base=recording(seen), callbacks=[*callbacks]).train()
        return seen

    whole = batches()
    assert batches(StopAfterTwoSteps())[:6] == whole[:2] + whole[4:8]


# ------------------------------------------------------------ evaluation and checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_checkpoint_by_dev_is_loaded_at_the_end(kind: str, model: str, tmp_path: Path) -> None:
    """Gold is what the encoder says at first and labels are the opposite, so that dev falls from the start."""
    encoder = without_dropout(load(kind, model))
    pairs = labelled(40)
    gold = score_pairs(encoder, pairs)
    dev = pairs.remove_columns("label").add_column("label", 5 * gold)
    train = pairs.remove_columns("label").add_column("label", gold.min() + gold.max() - gold)
    trainer = trainer_of(encoder, tmp_path, train, dev, eval_steps=4, save_total_limit=2, per_device_eval_batch_size=16)
    trainer.train()
    curve = curve_of(trainer)
    best, last = max(curve, key=lambda step: curve[step]), max(curve)
    assert best < last
    assert curve[best] > curve[last] + 0.01
    assert trainer.state.best_global_step == best
    assert checkpoints(tmp_path) == [best, last]
    assert same(weights(trainer), load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors"))
    assert not same(weights(trainer), load_file(tmp_path / f"checkpoint-{last}" / "model.safetensors"))
    assert spearman(score_pairs(encoder, pairs), gold) == pytest.approx(curve[best], abs=1e-4)
    trainer.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    # with the pooler of its start, which no bi-encoder trains
    assert same(weights(trainer), {name: weight for name, weight in saved.items() if not name.startswith("pooler.")})


# ------------------------------------------------------------ losses and scores that are no numbers


def poison(model: torch.nn.Module) -> None:
    with torch.no_grad():
        next(iter(model.parameters())).fill_(math.nan)


@pytest.mark.parametrize(("kind", "accumulation"), [("bi-encoder", 1), ("cross-encoder", 2)])
def test_a_loss_that_is_nan_stops_at_its_step(kind: str, accumulation: int, model: str, tmp_path: Path) -> None:
    trainer = trainer_of(
        load(kind, model),
        tmp_path,
        labelled(PAIRS * accumulation),
        labelled(8),
        callbacks=[At(7, poison)],
        eval_steps=2,
        logging_steps=1000,
        gradient_accumulation_steps=accumulation,
    )
    with pytest.raises(DivergedError, match=r"at step 7\b"):
        trainer.train()
    assert checkpoints(tmp_path) == [2, 4, 5, 6]
    last = last_whole_checkpoint(tmp_path)
    assert last == str(tmp_path / "checkpoint-6")
    assert all(weight.isfinite().all() for weight in load_file(Path(last, "model.safetensors")).values())


@pytest.mark.parametrize("bad", ["a score of step 1", "the loss of step 2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_learning_rate_beyond_reason_stops_before_a_checkpoint(
    kind: str, bad: str, model: str, tmp_path: Path
) -> None:
    """The loss of the first step is finite still, and its scores are not."""
    step = int(bad[-1])
    trainer = trainer_of(load(kind, model), tmp_path, labelled(), labelled(8), eval_steps=step, learning_rate=1e30)
    with pytest.raises(DivergedError, match=rf"{bad.split()[1]} is nan or infinite at step {step}\b"):
        trainer.train()
    assert checkpoints(tmp_path) == []


def constant(encoder: Encoder) -> Encoder:
    """An encoder that says the same of all pairs, and learns nothing."""
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.zero_()
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_that_score_all_pairs_the_same_are_ranked_too(kind: str, model: str, tmp_path: Path) -> None:
    """They have no order and so no correlation, which is a number; a better one may follow."""
    encoder = load(kind, model)
    before = {name: weight.clone() for name, weight in encoder.model.state_dict().items()}

    def awake(plm: torch.nn.Module) -> None:
        plm.load_state_dict(before)

    pairs = labelled()
    callbacks = [At(8, awake)]
    trainer = trainer_of(constant(encoder), tmp_path, pairs, pairs, callbacks=callbacks, eval_steps=3, logging_steps=1)
    trainer.train()
    curve = curve_of(trainer)
    assert [curve[step] for step in (3, 5, 6)] == [0, 0, 0]
    assert max(curve[9], curve[10]) > 0
    assert trainer.state.best_global_step == max((9, 10), key=lambda step: curve[step])


def test_gold_that_orders_nothing_is_refused(model: str, tmp_path: Path) -> None:
    dev = labelled(8).remove_columns("label").add_column("label", [0.5] * 8)
    trainer = trainer_of(load("bi-encoder", model), tmp_path, None, dev)
    with pytest.raises(InputError, match="eval_dataset: spearman is nan, as it is of labels"):
        trainer.evaluate()


# ------------------------------------------------------------ resuming


@pytest.mark.parametrize(
    ("kind", "eval_steps", "values", "killed_at", "last_whole"),
    [
        ("bi-encoder", 4, {}, 10, 8),
        ("cross-encoder", 4, {}, 10, 8),
        ("cross-encoder", 4, {"gradient_accumulation_steps": 2}, 10, 8),
        ("bi-encoder", 100, {}, 7, 5),  # between two epochs
    ],
)
def test_resuming_changes_no_bit(
    kind: str, eval_steps: int, values: dict[str, Any], killed_at: int, last_whole: int, model: str, tmp_path: Path
) -> None:
    """With dropout; the random state at the time of resuming plays no part."""

    def make(name: str, *callbacks: TrainerCallback) -> Any:
        return trainer_of(
            load(kind, model),
            tmp_path / name,
            labelled(PAIRS * values.get("gradient_accumulation_steps", 1)),
            labelled(12),
            callbacks=list(callbacks),
            num_train_epochs=3,
            eval_steps=eval_steps,
            **values,
        )

    whole = make("whole")
    assert min(module.p for module in whole.model.modules() if isinstance(module, torch.nn.Dropout)) == 0.1
    whole.train()
    with pytest.raises(Killed):
        make("killed", At(killed_at, kill)).train()
    last = last_whole_checkpoint(tmp_path / "killed")
    assert last == str(tmp_path / "killed" / f"checkpoint-{last_whole}")
    set_seed(12345)
    resumed = make("killed")
    resumed.train(resume_from_checkpoint=last)

    assert same(weights(resumed), weights(whole))
    assert checkpoints(tmp_path / "whole") == checkpoints(tmp_path / "killed")
    for step in checkpoints(tmp_path / "whole"):
        files = [tmp_path / name / f"checkpoint-{step}" / "model.safetensors" for name in ("whole", "killed")]
        assert files[0].read_bytes() == files[1].read_bytes(), step
    assert curve_of(resumed) == curve_of(whole)


@pytest.mark.parametrize(
    ("length", "by_name"), [({"max_steps": 4}, True), ({"num_train_epochs": 1.4}, False), ({"max_steps": 5}, True)]
)
def test_a_training_that_was_killed_behind_its_last_step_makes_none_more(
    length: dict[str, Any], by_name: bool, model: str, tmp_path: Path
) -> None:
    def make() -> Any:
        values = {"save_strategy": "steps", "save_steps": 100, "lr_scheduler_type": "constant", **length}
        return trainer_of(load("bi-encoder", model), tmp_path, labelled(), **values)

    whole = make()
    whole.train()
    resumed = make()
    resumed.train(resume_from_checkpoint=last_whole_checkpoint(tmp_path) if by_name else True)
    assert resumed.state.global_step == whole.state.global_step == length.get("max_steps", 7)
    assert same(weights(resumed), weights(whole))


def test_a_checkpoint_cut_short_is_not_resumed_from(model: str, tmp_path: Path) -> None:
    def dying(base: type) -> type:
        class DiesWhileSaving(base):  # type: ignore[misc, valid-type]
            def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
                super().save_model(output_dir, _internal_call)
                if self.state.global_step == 10:
                    raise Killed

        return DiesWhileSaving

    encoder = load("bi-encoder", model)
    with pytest.raises(Killed):
        trainer_of(encoder, tmp_path, labelled(), base=dying, save_strategy="epoch").train()
    assert (tmp_path / "checkpoint-10" / "model.safetensors").is_file()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")


def test_the_last_whole_checkpoint_is_the_one_of_most_steps_with_the_mark(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path / "absent") is None
    for step, expected in ((1000, None), (9, 9), (200, 200), (10, 200)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        if expected is not None:
            (folder / WHOLE_MARK).touch()
        found = last_whole_checkpoint(tmp_path)
        assert found == (None if expected is None else str(tmp_path / f"checkpoint-{expected}"))


# ------------------------------------------------------------ precision


@pytest.mark.parametrize(
    ("values", "hardware", "launcher", "expected"),
    [
        ({}, {"avx512_bf16": True}, "no", "bf16"),
        ({"precision": "float32"}, {"avx512_bf16": True}, "no", "no"),
        ({"precision": "bfloat16"}, {}, "no", "bf16"),
        ({"precision": "float32", "bf16": True}, {}, "no", "bf16"),
        # what the launcher says goes before the hardware and behind the argument
        ({}, {}, "bf16", "bf16"),
        ({"precision": "float32"}, {}, "bf16", "no"),
    ],
)
def test_the_precision_of_a_training_can_be_overridden(
    values: dict[str, Any],
    hardware: dict[str, bool],
    launcher: str,
    expected: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: hardware)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launcher)
    args = BiEncoderTrainingArguments(output_dir=str(tmp_path), **values)
    assert (args.bf16, args.fp16) == (expected == "bf16", False)
    assert BiEncoderTrainer(model, args, labelled(4)).accelerator.mixed_precision == expected
