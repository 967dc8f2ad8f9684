"""`evaluate` and `predict` on what a user has at hand, and the metrics that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from tiny_trainings import CLASSES, KINDS, checkpoints, labelled, load
from torch.utils.data import DataLoader
from transformers import EvalPrediction, TrainerCallback

from te_trainer.errors import InputError
from te_trainer.metrics import spearman


def make(kind: str, model: Any, output: Path, train: Any = None, dev: Any = None, **values: Any) -> Any:
    """A trainer; keys that are no arguments go to its constructor."""
    trainer, arguments = CLASSES[kind]
    own = {name: values.pop(name) for name in list(values) if name not in arguments.__dataclass_fields__}
    settings = {"precision": "float32", "disable_tqdm": True, "per_device_train_batch_size": 4, **values}
    settings.setdefault("num_train_epochs", 1)
    encoder = load(kind, model) if isinstance(model, str) else model
    return trainer(encoder, arguments(output_dir=str(output), **settings), train, dev, **own)


def expected(trainer: Any, pairs: Dataset) -> np.ndarray:
    """Cosines or logits of pairs, one by one."""
    encoder = trainer.encoder
    encoder.model.eval()
    found = []
    with torch.no_grad():
        for pair in pairs:
            texts = [pair["sentence1"], pair["sentence2"]]
            if encoder.kind == "bi-encoder":
                one, two = (
                    encoder.embed(**{name: rows[name] for name in ("input_ids", "attention_mask")})
                    for rows in (encoder.tokenizer(text, return_tensors="pt") for text in texts)
                )
                found.append(float(torch.cosine_similarity(one, two)))
            else:
                found.append(float(encoder.logits(**encoder.tokenizer(*texts, return_tensors="pt"))))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_come_in_the_order_of_the_pairs(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """Pairs are sorted by length meanwhile, and group_by_length shuffles them."""
    pairs = labelled(30)
    settings = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 4}
    trainer = make(kind, models["bert"], tmp_path, metric=spearman, **settings)
    scores = expected(trainer, pairs)
    output = trainer.predict(pairs)
    np.testing.assert_allclose(output.predictions, scores, atol=1e-5)
    np.testing.assert_allclose(output.label_ids, pairs["label"][:], atol=1e-7)
    assert output.metrics["test_spearman"] == pytest.approx(spearman(scores, np.array(pairs["label"])), abs=1e-3)
    for same in (list(pairs.remove_columns("label")), pairs.remove_columns("label").with_format("torch")):
        output = trainer.predict(same)
        np.testing.assert_allclose(output.predictions, scores, atol=1e-5)
        assert output.label_ids is None
        assert "test_spearman" not in output.metrics


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_a_trainer_has_stored_are_in_the_order_of_the_pairs_and_of_a_selection(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    pairs = labelled(20)
    trainer = make(kind, models["bert"], tmp_path, pairs, pairs, per_device_eval_batch_size=4)
    assert trainer.eval_dataset["label"][:] == pairs["label"][:]
    scores, chosen = expected(trainer, pairs), [7, 2, 11, 0]
    for rows in (trainer.eval_dataset, trainer.train_dataset):
        output = trainer.predict(rows.select(chosen))
        np.testing.assert_allclose(output.predictions, scores[chosen], atol=1e-5)
        np.testing.assert_allclose(output.label_ids, np.array(pairs["label"])[chosen], atol=1e-7)


def test_a_loader_of_a_subclass_may_wrap_what_the_trainer_makes(models: dict[str, str], tmp_path: Path) -> None:
    class Small(CLASSES["bi-encoder"][0]):  # type: ignore[misc]
        def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
            rows: Any = super().get_test_dataloader(test_dataset).dataset
            return DataLoader(rows, batch_size=3, collate_fn=self.data_collator)

    pairs = labelled(10)
    arguments = CLASSES["bi-encoder"][1](str(tmp_path), precision="float32", disable_tqdm=True)
    trainer = Small(load("bi-encoder", models["bert"]), arguments)
    np.testing.assert_allclose(trainer.predict(pairs).predictions, expected(trainer, pairs), atol=1e-5)


def test_losses_and_named_outputs_are_in_the_order_of_the_pairs(models: dict[str, str], tmp_path: Path) -> None:
    pairs, seen = labelled(12), []

    def look(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        return {"one": 1.0}

    more = {"compute_metrics": look, "preprocess_logits_for_metrics": lambda scores, _: {"scores": scores}}
    more |= {"include_for_metrics": ["loss"], "per_device_eval_batch_size": 1}
    make("bi-encoder", models["bert"], tmp_path, None, pairs, **more).evaluate()
    (found,) = seen
    assert found.label_ids.tolist() == pytest.approx(pairs["label"][:])
    squares = (found.predictions["scores"] - found.label_ids) ** 2
    np.testing.assert_allclose(found.losses, squares, atol=1e-6)


def test_a_step_is_evaluated_once_whoever_asks_for_it(models: dict[str, str], tmp_path: Path) -> None:
    class AtStepFive(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_evaluate |= state.global_step == 5

    pairs = labelled(20)
    trainer = make("bi-encoder", models["bert"], tmp_path, pairs, pairs, num_train_epochs=2, callbacks=[AtStepFive()])
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "eval_spearman" in entry] == [5, 10]


@pytest.mark.parametrize("kind", KINDS)
def test_other_pairs_are_evaluated_than_those_of_the_constructor(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    one, two = labelled(40).select(range(20)), labelled(40).select(range(20, 40))
    trainer = make(kind, models["bert"], tmp_path, None, one, per_device_eval_batch_size=8)
    for pairs, metrics in ((one, trainer.evaluate()), (two, trainer.evaluate(two)), (one, trainer.evaluate())):
        gold = spearman(expected(trainer, pairs), np.array(pairs["label"]))
        assert metrics["eval_spearman"] == pytest.approx(gold, abs=1e-3)
    gold = spearman(expected(trainer, two), np.array(two["label"]))
    metrics = trainer.evaluate(two, metric_key_prefix="held_out")
    assert metrics["held_out_spearman"] == pytest.approx(gold, abs=1e-3)
    with pytest.raises(InputError, match=r"^eval_dataset: the dataset has no column 'label'"):
        trainer.evaluate(two.remove_columns("label"))


@pytest.mark.parametrize(("kind", "container"), [("bi-encoder", dict), ("cross-encoder", DatasetDict)])
def test_several_evaluation_sets_are_measured_and_the_first_one_chooses(
    kind: str, container: Any, models: dict[str, str], tmp_path: Path
) -> None:
    sets = {"news": labelled(30).select(range(15)), "forum": labelled(30).select(range(15, 30))}
    trainer = make(kind, models["bert"], tmp_path, labelled(), container(sets), eval_steps=2, learning_rate=1e-3)
    assert trainer.args.metric_for_best_model == "news_spearman"
    trainer.train()
    curves = {
        name: {
            entry["step"]: entry[f"eval_{name}_spearman"]
            for entry in trainer.state.log_history
            if f"eval_{name}_spearman" in entry
        }
        for name in sets
    }
    steps = [2, 4, 5] if kind == "bi-encoder" else [2, 4, 6, 8, 10]
    assert list(curves["news"]) == list(curves["forum"]) == steps
    assert trainer.state.best_metric == max(curves["news"].values())
    metrics = trainer.evaluate()
    for name, pairs in sets.items():
        gold = spearman(expected(trainer, pairs), np.array(pairs["label"]))
        assert metrics[f"eval_{name}_spearman"] == pytest.approx(gold, abs=1e-2)
    assert trainer.evaluate("forum")["eval_spearman"] == metrics["eval_forum_spearman"]
    assert set(trainer.evaluate({"x": sets["news"]})) >= {"eval_x_spearman"}
    with pytest.raises(InputError, match=r"no set named 'wiki' .known: news, forum"):
        trainer.evaluate("wiki")


def test_another_set_may_choose(models: dict[str, str], tmp_path: Path) -> None:
    sets = {"a": labelled(20).select(range(10)), "b": labelled(20).select(range(10, 20))}
    trainer = make("bi-encoder", models["bert"], tmp_path, None, sets, metric_for_best_model="eval_b_spearman")
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("eval_b_spearman", True)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_of_the_users_own_see_scores_and_labels_in_order(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    pairs, seen = labelled(20), []

    def accuracy(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction)
        scores, labels = prediction
        return {"accuracy": float(np.mean((scores > 0.5) == (labels > 0.5)))}

    trainer = make(
        kind,
        models["bert"],
        tmp_path,
        pairs,
        pairs,
        compute_metrics=accuracy,
        metric_for_best_model="accuracy",
        eval_steps=2,
    )
    metrics = trainer.evaluate()
    scores = expected(trainer, pairs)
    np.testing.assert_allclose(seen[0].predictions, scores, atol=1e-5)
    np.testing.assert_allclose(seen[0].label_ids, pairs["label"][:], atol=1e-7)
    assert metrics["eval_accuracy"] == np.mean((scores > 0.5) == (np.array(pairs["label"]) > 0.5))
    assert "eval_spearman" not in metrics
    assert trainer.args.load_best_model_at_end is True
    trainer.train()
    assert trainer.state.best_metric == max(
        e["eval_accuracy"] for e in trainer.state.log_history if "eval_accuracy" in e
    )
    last = make(kind, models["bert"], tmp_path, None, pairs, compute_metrics=accuracy)
    assert last.args.load_best_model_at_end is False


@pytest.mark.parametrize(("kind", "loss"), [("bi-encoder", "mse"), ("cross-encoder", "bce")])
def test_the_loss_is_measured_and_may_choose(kind: str, loss: str, models: dict[str, str], tmp_path: Path) -> None:
    pairs = labelled(20)
    trainer = make(
        kind, models["bert"], tmp_path, labelled(), pairs, metric_for_best_model="eval_loss", eval_steps=2,
        per_device_eval_batch_size=8,
    )  # fmt: skip
    scores, gold = torch.tensor(expected(trainer, pairs)), torch.tensor(pairs["label"][:], dtype=torch.float64)
    function: Any = (
        torch.nn.functional.mse_loss if loss == "mse" else torch.nn.functional.binary_cross_entropy_with_logits
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(function(scores, gold)), abs=1e-5)
    assert trainer.args.greater_is_better is False
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][1:]
    assert trainer.state.best_metric == min(losses)


def test_gold_on_a_scale_of_its_own_has_no_loss(models: dict[str, str], tmp_path: Path) -> None:
    pairs = labelled(10)
    gold = pairs.remove_columns("label").add_column("label", [float(value) for value in range(10)])
    trainer = make("bi-encoder", models["bert"], tmp_path, None, gold)
    assert "eval_loss" not in trainer.evaluate()
    assert "eval_loss" in trainer.evaluate(pairs)
    with pytest.raises(InputError, match=r"^prediction_loss_only: loss 'mse' has no value"):
        make("bi-encoder", models["bert"], tmp_path, prediction_loss_only=True).evaluate(gold)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainers_other_ways_to_evaluate(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    pairs = labelled(20)
    plain = make(kind, models["bert"], tmp_path, None, pairs, per_device_eval_batch_size=4)
    metrics, scores = plain.evaluate(), plain.predict(pairs).predictions
    only = make(kind, models["bert"], tmp_path, None, pairs, prediction_loss_only=True)
    assert only.args.metric_for_best_model == "loss"
    assert only.evaluate()["eval_loss"] == pytest.approx(metrics["eval_loss"], abs=1e-6)
    assert "eval_spearman" not in only.evaluate()
    assert only.predict(pairs).predictions is None
    piecewise = make(
        kind, models["bert"], tmp_path, None, pairs, per_device_eval_batch_size=4, eval_accumulation_steps=2,
        include_for_metrics=["loss"], preprocess_logits_for_metrics=lambda logits, labels: logits * 2,
    )  # fmt: skip
    assert piecewise.evaluate()["eval_spearman"] == pytest.approx(metrics["eval_spearman"], abs=1e-9)
    np.testing.assert_allclose(piecewise.predict(pairs).predictions, 2 * scores, atol=1e-6)
    known = make(kind, models["bert"], tmp_path)
    loss, outputs = known.compute_loss(
        known.model.eval(), known.data_collator(list(plain.eval_dataset)), return_outputs=True
    )
    assert loss.item() == pytest.approx(metrics["eval_loss"], abs=1e-5)
    np.testing.assert_allclose(np.sort(outputs[known.score_name].detach()), np.sort(scores), atol=1e-5)


def test_an_evaluation_copies_its_batches_itself(models: dict[str, str], tmp_path: Path) -> None:
    """And does not tell accelerate so, which refuses to be told under DeepSpeed."""
    trainer = make("bi-encoder", models["bert"], tmp_path, dev=labelled())
    placements: list[Any] = []
    prepare = trainer.accelerator.prepare

    def watched(*parts: Any, device_placement: Any = None) -> Any:
        placements.append(device_placement)
        return prepare(*parts, device_placement=device_placement)

    trainer.accelerator.prepare = watched
    assert trainer.get_eval_dataloader().device is None
    assert placements == [None]


def test_labels_that_are_all_the_same_predict(models: dict[str, str], tmp_path: Path) -> None:
    """Test sets come with a column of zeros where nobody knows the labels."""
    pairs = labelled(6).remove_columns("label").add_column("label", [0.0] * 6)
    output = make("bi-encoder", models["bert"], tmp_path).predict(pairs)
    assert len(output.predictions) == 6
    assert np.isnan(output.metrics["test_spearman"])


def test_an_optimiser_of_the_users_own_trains(models: dict[str, str], tmp_path: Path) -> None:
    encoder = load("bi-encoder", models["bert"])
    optimizer = torch.optim.SGD(encoder.model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = make("bi-encoder", encoder, tmp_path, labelled(), optimizers=(optimizer, scheduler), save_strategy="no")
    before = encoder.model.encoder.layer[0].output.dense.weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, encoder.model.encoder.layer[0].output.dense.weight)
    assert type(trainer.optimizer.optimizer) is torch.optim.SGD
    other = torch.optim.SGD(load("bi-encoder", models["bert"]).model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"^optimizers: the optimiser holds none of the encoder's weights"):
        make("bi-encoder", encoder, tmp_path, labelled(), optimizers=(other, None))
    named = make(
        "bi-encoder", encoder, tmp_path, labelled(), save_strategy="no", callbacks=None,
        optimizer_cls_and_kwargs=(torch.optim.Adagrad, {"lr": 0.1}),
    )  # fmt: skip
    named.train()
    assert type(named.optimizer.optimizer) is torch.optim.Adagrad
    assert checkpoints(tmp_path) == []


def test_compute_metrics_may_be_assigned(models: dict[str, str], tmp_path: Path) -> None:
    seen = []

    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        seen.append(prediction.label_ids)
        return {"mean": float(np.mean(prediction.predictions))}

    trainer = make("bi-encoder", models["bert"], tmp_path, None, labelled(9))
    trainer.compute_metrics = metrics
    assert "eval_mean" in trainer.evaluate()
    np.testing.assert_allclose(seen[0], labelled(9)["label"][:], atol=1e-7)
    trainer.compute_metrics = None
    assert "eval_spearman" in trainer.evaluate()


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_is_left_out_where_trainings_drop_the_last_batch(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    pairs = labelled(9)
    trainer = make(
        kind, models["bert"], tmp_path, pairs, pairs, dataloader_drop_last=True, per_device_eval_batch_size=4
    )
    assert len(trainer.predict(pairs).predictions) == 9
    assert trainer.evaluate()["eval_spearman"] == trainer.evaluate(pairs)["eval_spearman"]
    assert trainer.args.dataloader_drop_last
    assert len(trainer.get_train_dataloader()) == len(trainer.train_dataset) // 4


@pytest.mark.parametrize("kind", KINDS)
def test_training_in_bfloat16_scores_in_float32(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """The encoder's forward pass is autocast; scores of pairs must still differ from one another."""
    trainer = make(kind, models["bert"], tmp_path, precision="bfloat16")
    scores = trainer.predict(labelled(200)).predictions
    assert scores.dtype == np.float32
    assert len(np.unique(scores)) > 195
    exact = expected(trainer, labelled(200))
    assert not np.allclose(scores, exact, rtol=0, atol=1e-5), "nothing was autocast"
    np.testing.assert_allclose(scores, exact, rtol=0.05, atol=0.1)
