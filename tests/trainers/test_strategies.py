"""When trainers evaluate and save: as their arguments say, and by the paper's procedure where they say nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from test_trainer_evaluation import make
from tiny_trainings import checkpoints, curve_of, labelled
from transformers import TrainerCallback, TrainingArguments

from te_trainer.errors import InputError
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments, CrossEncoderTrainingArguments
from te_trainer.trainers.checkpoint_mark import WHOLE_MARK


def trained(model: str, output: Path, dev: bool = True, **values: Any) -> tuple[Any, list[int], list[int]]:
    """A trainer after two epochs of five batches, the steps at which it evaluated, and those of its checkpoints."""
    settings = {"num_train_epochs": 2, "save_total_limit": None, **values}
    trainer = make("bi-encoder", model, output, labelled(), labelled(8) if dev else None, **settings)
    trainer.train()
    return trainer, list(curve_of(trainer)), checkpoints(output)


@pytest.mark.parametrize(
    ("values", "evaluated", "saved", "best"),
    [
        ({}, [5, 10], [5, 10], True),
        ({"eval_steps": 4}, [4, 5, 8, 10], [4, 5, 8, 10], True),
        # five batches an epoch, two to a step: the third step of an epoch has one
        ({"eval_steps": 2, "gradient_accumulation_steps": 2}, [2, 3, 4, 6], [2, 3, 4, 6], True),
        ({"eval_steps": 4, "eval_delay": 6}, [8, 10], [4, 5, 8, 10], True),
        ({"eval_strategy": "no"}, [], [10], False),
        ({"eval_strategy": "no", "save_strategy": "no"}, [], [], False),
        ({"eval_strategy": "epoch"}, [5, 10], [5, 10], True),
        ({"save_strategy": "epoch"}, [5, 10], [5, 10], True),
        # a Trainer's steps end with the last one
        ({"eval_strategy": "steps", "eval_steps": 4}, [4, 8, 10], [4, 8, 10], True),
        ({"eval_strategy": "steps", "eval_steps": 2, "save_steps": 4}, [2, 4, 6, 8, 10], [4, 8, 10], False),
        ({"eval_steps": 4, "save_strategy": "no"}, [4, 5, 8, 10], [], False),
        ({"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 4}, [5, 10], [4, 8, 10], False),
        ({"eval_steps": 4, "load_best_model_at_end": False}, [4, 5, 8, 10], [4, 5, 8, 10], False),
        ({"dev": False}, [], [5, 10], False),
        ({"dev": False, "save_strategy": "no"}, [], [], False),
        ({"dev": False, "save_strategy": "epoch"}, [], [5, 10], False),
        ({"dev": False, "save_strategy": "steps", "save_steps": 4}, [], [4, 8, 10], False),
    ],
)
def test_what_is_set_is_done(
    values: dict[str, Any], evaluated: list[int], saved: list[int], best: bool, models: dict[str, str], tmp_path: Path
) -> None:
    """Never twice at one step."""
    trainer, *found = trained(models["bert"], tmp_path, **values)
    assert found == [evaluated, saved]
    assert trainer.args.load_best_model_at_end is best
    assert all(Path(tmp_path, f"checkpoint-{step}", WHOLE_MARK).is_file() for step in saved)


def test_an_evaluation_of_a_callback_stands_for_no_other(models: dict[str, str], tmp_path: Path) -> None:
    class Watch(TrainerCallback):
        trainer: Any = None
        found: ClassVar[list[float]] = []

        def on_step_end(self, *_: Any, **kwargs: Any) -> None:
            self.found.append(self.trainer.evaluate(labelled(7), metric_key_prefix="watch")["watch_spearman"])

    Watch.trainer = trainer = make(
        "bi-encoder", models["bert"], tmp_path, labelled(), labelled(8), callbacks=[Watch()], eval_steps=3
    )
    trainer.train()
    assert len(Watch.found) == 5
    assert list(curve_of(trainer)) == [3, 5]


def test_the_best_may_be_the_least(models: dict[str, str], tmp_path: Path) -> None:
    def distance(scores: np.ndarray, gold: np.ndarray) -> float:
        return float(np.abs(scores - gold).mean())

    trainer = make(
        "bi-encoder", models["bert"], tmp_path, labelled(), labelled(8), metric=distance, greater_is_better=False,
        eval_steps=1, learning_rate=1e-3,
    )  # fmt: skip
    trainer.train()
    curve = curve_of(trainer, "eval_distance")
    assert trainer.state.best_global_step == min(curve, key=lambda step: curve[step])
    assert trainer.state.best_metric == min(curve.values())


def test_only_a_better_checkpoint_may_be_saved(models: dict[str, str], tmp_path: Path) -> None:
    trainer, evaluated, saved = trained(models["bert"], tmp_path, save_strategy="best", eval_steps=2)
    assert evaluated == [2, 4, 5, 6, 8, 10]
    assert saved == [step for step in evaluated if step in saved]
    assert saved[-1] == trainer.state.best_global_step


def test_arguments_may_be_copied(models: dict[str, str], tmp_path: Path) -> None:
    """What was left open stays open."""
    args = BiEncoderTrainingArguments(str(tmp_path), eval_steps=4)
    for copied in (replace(args, seed=1), BiEncoderTrainingArguments(**{"output_dir": str(tmp_path), "eval_steps": 4})):
        trainer = BiEncoderTrainer(models["bert"], copied, labelled(), labelled(8))
        assert (trainer.args.eval_strategy, trainer.args.save_steps) == ("steps", 4)
        assert trainer.args.load_best_model_at_end is True


def test_fractions_of_a_training_may_fit(models: dict[str, str], tmp_path: Path) -> None:
    values: dict[str, Any] = BEST | {"eval_strategy": "steps", "save_strategy": "steps"}
    args = BiEncoderTrainingArguments(str(tmp_path), eval_steps=0.1, save_steps=0.3, **values)
    assert BiEncoderTrainer(models["bert"], args, labelled(), labelled(8)).args.load_best_model_at_end is True


DEV, UNBOUNDED = labelled(8), labelled(8).map(lambda row: {"label": 9 * row["label"]})
BEST: dict[str, Any] = {"load_best_model_at_end": True}


@pytest.mark.parametrize(
    ("values", "dev", "message"),
    [
        ({"eval_strategy": "steps"}, None, "eval_strategy: 'steps' needs an eval_dataset"),
        (BEST, None, "load_best_model_at_end: only an eval_dataset"),
        (BEST | {"eval_strategy": "no"}, DEV, "load_best_model_at_end: not every checkpoint has an evaluation"),
        (BEST | {"save_strategy": "no"}, DEV, "load_best_model_at_end: not every checkpoint has an evaluation"),
        (BEST | {"save_steps": 300}, DEV, "load_best_model_at_end: not every checkpoint .*save_steps 300"),
        (BEST | {"compute_metrics": lambda prediction: {}}, DEV, "metric_for_best_model: name the metric"),
        (
            {"metric_for_best_model": "spearman"},
            {"a": DEV, "b": DEV},
            "metric_for_best_model: 'spearman' is not measured; choose one of a_spearman, b_spearman, a_loss, b_loss ",
        ),
        ({"metric_for_best_model": "eval_loss"}, UNBOUNDED, "metric_for_best_model: 'eval_loss' is not measured"),
        ({"prediction_loss_only": True}, UNBOUNDED, "prediction_loss_only: the labels"),
        ({"label_smoothing_factor": 0.1}, None, "label_smoothing_factor: '0.1' cannot be used here, only 0.0$"),
        ({"include_for_metrics": ["inputs"]}, None, "include_for_metrics: 'inputs'"),
        ({"batch_eval_metrics": True}, None, "batch_eval_metrics: a rank correlation"),
        ({"eval_do_concat_batches": False}, None, "eval_do_concat_batches: 'False' cannot be used here, only True$"),
        ({"parallelism_config": "x"}, None, "parallelism_config: 'x' cannot be used here, only None$"),
        ({"hub_strategy": "checkpoint"}, None, "hub_strategy: 'checkpoint' cannot be used here, only end, every_save$"),
        ({"precision": "bf16"}, None, "precision: 'bf16' cannot be used here, only auto, float32, bfloat16, float16$"),
        ({"precision": "float16", "use_cpu": True}, None, "precision: float16 is for trainings on a GPU"),
        ({"fp16": True, "use_cpu": True}, None, "precision: float16 is for trainings on a GPU"),
        ({"train_sampling_strategy": "sequential"}, None, "train_sampling_strategy: 'sequential' cannot be used"),
        ({"loss": "mae"}, None, "loss: 'mae' is none of mse, bce, cosent, info_nce$"),
        ({"metric": "spearman"}, None, "metric: a str where a function of scores and labels is expected"),
    ],
)
def test_what_cannot_be_done_is_refused_before_a_training(
    values: dict[str, Any], dev: Any, message: str, models: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        make("bi-encoder", models["bert"], tmp_path, None, dev, **values)
    assert "\n" not in str(caught.value)


def test_plain_training_arguments_are_taken_as_they_are(models: dict[str, str], tmp_path: Path) -> None:
    args = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, learning_rate=1e-3, max_steps=3, save_strategy="no", use_cpu=True
    )
    trainer = BiEncoderTrainer(models["bert"], args, labelled(), labelled(8))
    assert type(trainer.args) is BiEncoderTrainingArguments
    assert (trainer.args.learning_rate, trainer.args.weight_decay, trainer.args.loss) == (1e-3, 0.0, "mse")
    assert (trainer.args.eval_strategy, trainer.args.precision, trainer.args.bf16) == ("no", "float32", False)
    trainer.train()
    assert trainer.state.global_step == 3
    assert "eval_spearman" in trainer.evaluate()
    best = TrainingArguments(
        str(tmp_path), eval_strategy="steps", eval_steps=2, save_steps=2, load_best_model_at_end=True, use_cpu=True
    )
    assert BiEncoderTrainer(models["bert"], best, labelled(), labelled(8)).args.metric_for_best_model == "loss"


def test_arguments_of_another_trainer_are_refused(models: dict[str, str], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformerTrainingArguments

    with pytest.raises(InputError, match=r"^args: a CrossEncoderTrainingArguments where BiEncoderTrainingArguments"):
        BiEncoderTrainer(models["bert"], CrossEncoderTrainingArguments(str(tmp_path)), labelled())
    theirs = SentenceTransformerTrainingArguments(str(tmp_path), prompts="query: ", use_cpu=True)
    with pytest.raises(InputError, match=r"^args: SentenceTransformerTrainingArguments.prompts means nothing here"):
        BiEncoderTrainer(models["bert"], theirs, labelled())
