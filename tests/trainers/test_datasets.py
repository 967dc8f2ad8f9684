"""Which data sets of pairs the trainers take, and the sentence for each row that cannot be meant."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset, load_from_disk
from test_trainer_evaluation import make
from tiny_trainings import KINDS, At, Killed, kill, labelled, recording, same, weights

from te_trainer.errors import InputError
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint
from te_trainer.trainers.datasets import TokenRows


def rows(count: int = 4, **changed: Any) -> list[dict[str, Any]]:
    """Rows of which the third has other values."""
    found = [dict(row) for row in labelled(count)]
    found[2] |= changed
    return found


def stream(count: int = 20) -> IterableDataset:
    def generate() -> Iterator[dict[str, Any]]:
        yield from labelled(count)

    return IterableDataset.from_generator(generate)


class Pairs(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> dict[str, Any]:
        return rows()[row]


def test_a_data_set_of_torch_is_taken(models: dict[str, str], tmp_path: Path) -> None:
    trainer = make("bi-encoder", models["bert"], tmp_path, Pairs())
    assert trainer.train_dataset["label"][:] == labelled(4)["label"][:]


def test_a_table_of_pandas_is_taken(models: dict[str, str], tmp_path: Path) -> None:
    frame = labelled(8).to_pandas()[::2]  # whose index is no column
    trainer = make("bi-encoder", models["bert"], tmp_path, frame, frame)
    expected = make("bi-encoder", models["bert"], tmp_path, labelled(8).select(range(0, 8, 2)))
    assert trainer.train_dataset[:] == expected.train_dataset[:]
    assert trainer.evaluate(frame)["eval_loss"] == trainer.evaluate()["eval_loss"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (rows(sentence1=None), "train_dataset: row 3: sentence1 is None, which is no text"),
        (rows(sentence2=None), "train_dataset: row 3: sentence2 is None, which is no text"),
        (rows(sentence1=""), "train_dataset: row 3: sentence1 is '', which is no text"),
        (rows(sentence2=" "), "train_dataset: row 3: sentence2 is ' ', which is no text"),
        (rows(label=None), "train_dataset: row 3: label is None, which is no finite number"),
        (rows(label=math.nan), "train_dataset: row 3: label is nan, which is no finite number"),
        (rows(label=math.inf), "train_dataset: row 3: label is inf, which is no finite number"),
        (
            [{**row, "sentence2": 7} for row in rows()],
            r"train_dataset: row 1: sentence2 is a number \(7\); make the column text, such as frame",
        ),
        (
            pandas.DataFrame([["a", "b", "c"]], columns=["sentence1", "sentence2", "sentence1"]),
            "train_dataset: several columns of the DataFrame are named 'sentence1'; rename all but one$",
        ),
        (
            pandas.DataFrame({"sentence1": ["one", 2], "sentence2": ["a", "b"], "label": [0.0, 1.0]}),
            "train_dataset: a column of the DataFrame holds values of several types .*; make them one type",
        ),
        (
            [{**row, "label": "0.5"} for row in rows()],
            "train_dataset: row 1: label is '0.5', which is no finite number",
        ),
        (
            [{**row, "label": [0.5]} for row in rows()],
            "train_dataset: row 1: label is .0.5., which is no finite number",
        ),
        (rows(label="high"), "train_dataset: a column holds values of several types"),
        (rows(label=5.0), "train_dataset: row 3: label is 5; loss 'mse' takes labels in .-1, 1.; scale them"),
        (rows(label=-1.5), "train_dataset: row 3: label is -1.5; loss 'mse' takes labels"),
        ([], "train_dataset: the dataset has no rows"),
        (labelled(4).with_transform(dict), r"train_dataset: the dataset has a transform .*; apply it with Dataset.map"),
        (labelled(4).select([]), "train_dataset: the dataset has no rows"),
        (["a", "b"], "train_dataset: row 1 is 'a' where a dict"),
        ([labelled(4)], r"train_dataset: row 1 is Dataset\({ features: .* where a dict"),
        ("pairs.csv", "train_dataset: a str where a datasets.Dataset or IterableDataset or a list of dicts"),
        (
            DatasetDict(train=labelled(4), test=labelled(4)),
            r"train_dataset: a DatasetDict with the keys train, test, .*train_dataset=dataset\['train'\]",
        ),
        (labelled(4).to_dict(), "train_dataset: a dict with the keys sentence1, sentence2, label, .*from_dict"),
        (
            labelled(4).rename_columns({"label": "score"}),
            r"train_dataset: .* no column 'label' among .*Dataset.rename_columns\({'score': 'label'}\)$",
        ),
        (
            labelled(4).rename_columns({"sentence1": "anchor", "sentence2": "positive"}),
            r"train_dataset: .*rename_columns\({'anchor': 'sentence1', 'positive': 'sentence2'}\)$",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_named(pairs: Any, message: str, models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        make("bi-encoder", models["bert"], tmp_path, pairs)
    assert "\n" not in str(caught.value)


def test_rows_are_looked_at_wherever_pairs_are_given(models: dict[str, str], tmp_path: Path) -> None:
    trainer = make("bi-encoder", models["bert"], tmp_path)
    for column in ("sentence1", "sentence2", "label"):
        with pytest.raises(InputError, match=f"^eval_dataset: the dataset has no column '{column}' among .*other"):
            trainer.evaluate(labelled(4).rename_column(column, "other"))
    with pytest.raises(InputError, match=r"^eval_dataset: row 3: sentence1 is None"):
        trainer.evaluate(rows(sentence1=None))
    with pytest.raises(InputError, match=r"^eval_dataset\['b'\]: row 3: label is nan"):
        make("bi-encoder", models["bert"], tmp_path, None, {"a": rows(), "b": rows(label=math.nan)})
    with pytest.raises(InputError, match=r"^test_dataset: row 3: label is None.* without labels, leave the column out"):
        trainer.predict(rows(label=None))
    with pytest.raises(InputError, match=r"^train_dataset: row 3: sentence2 is None"):
        make("bi-encoder", models["bert"], tmp_path, rows(sentence2=None), loss="info_nce")
    with pytest.raises(InputError, match=r"^train_dataset: row 3: label is nan"):
        make("bi-encoder", models["bert"], tmp_path, stream_of(rows(label=math.nan)), max_steps=1).train()


def stream_of(pairs: list[dict[str, Any]]) -> IterableDataset:
    return Dataset.from_list(pairs).to_iterable_dataset()


def test_labels_that_a_loss_can_mean_are_taken(models: dict[str, str], tmp_path: Path) -> None:
    """Cosines are rounded; a logit has no bounds; and who asks for other labels gets them."""
    make("bi-encoder", models["bert"], tmp_path, rows(label=1 + 1e-6))
    make("cross-encoder", models["bert"], tmp_path, rows(label=-1.0))
    make("cross-encoder", models["bert"], tmp_path, rows(label=5.0), loss="mse")
    make("bi-encoder", models["bert"], tmp_path, rows(label=5.0), check_labels=False)
    with pytest.raises(InputError, match=r"row 3: label is 5; loss 'bce' takes labels"):
        make("cross-encoder", models["bert"], tmp_path, rows(label=5.0))


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_may_be_assigned_to_a_trainer(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    settings = {"max_steps": 3, "save_strategy": "no", "learning_rate": 1e-3}
    found = []
    for pairs in (labelled(), list(labelled()), labelled().with_format("torch")):
        trainer = make(kind, models["bert"], tmp_path, labelled(8) if found else None, **settings)
        trainer.train_dataset = pairs
        trainer.train()
        found.append(weights(trainer))
    assert same(found[0], found[1]) and same(found[0], found[2])
    trainer.eval_dataset = {"a": list(labelled(6)), "b": labelled(7)}
    trainer.train_dataset = stream()
    trainer.train()
    measured = trainer.evaluate()
    assert measured["eval_b_spearman"] == trainer.evaluate(labelled(7))["eval_spearman"]
    with pytest.raises(InputError, match=r"^train_dataset: row 3: label is nan"):
        trainer.train_dataset = rows(label=math.nan)
    with pytest.raises(InputError, match=r"^eval_dataset\['a'\]: row 3: label is nan"):
        trainer.eval_dataset = {"a": rows(label=math.nan)}
    assert len(trainer.eval_dataset) == 2


def test_an_assigned_evaluation_set_goes_before_kept_workers(models: dict[str, str], tmp_path: Path) -> None:
    workers = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    trainer = make("bi-encoder", models["bert"], tmp_path, None, labelled(6), **workers)
    trainer.evaluate()
    trainer.eval_dataset = labelled(9)
    assert trainer.evaluate()["eval_spearman"] == trainer.predict(labelled(9)).metrics["test_spearman"]


# ------------------------------------------------------------ streams


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_trains_in_its_own_order(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """Fewer pairs than the steps need: it begins anew. A cross-encoder sees both orders of each."""
    seen: list[list[float]] = []
    count = 12 if kind == "bi-encoder" else 6
    trainer = make(kind, models["bert"], tmp_path, stream(count), max_steps=4, save_strategy="no")
    trainer.__class__ = recording(seen)(type(trainer))
    trainer.train()
    labels = torch.tensor(labelled(count)["label"][:], dtype=torch.float32).tolist()
    turn = labels if kind == "bi-encoder" else labels * 2
    assert [label for batch in seen for label in batch] == (turn * 2)[:16]
    assert trainer.state.global_step == 4


def test_each_pass_over_a_shuffled_stream_has_an_order_of_its_own(models: dict[str, str], tmp_path: Path) -> None:
    seen: list[list[float]] = []
    pairs = stream(16).shuffle(seed=1, buffer_size=16)
    trainer = make("bi-encoder", models["bert"], tmp_path, pairs, max_steps=8, save_strategy="no")
    trainer.__class__ = recording(seen)(type(trainer))
    trainer.train()
    order = [label for batch in seen for label in batch]
    assert sorted(order[:16]) == sorted(order[16:]) and order[:16] != order[16:]


def test_a_stream_is_read_when_its_turn_comes(models: dict[str, str], tmp_path: Path) -> None:
    """This one never ends."""

    def endless() -> Iterator[dict[str, Any]]:
        found = rows()
        while True:
            yield from found

    pairs = IterableDataset.from_generator(endless)
    trainer = make("bi-encoder", models["bert"], tmp_path, pairs, max_steps=3, save_strategy="no")
    # a training step copies its batches itself, and does not wait
    assert trainer.get_train_dataloader().device is None
    trainer.train()
    assert trainer.state.global_step == 3


def test_a_training_on_a_stream_resumes(models: dict[str, str], tmp_path: Path) -> None:
    def start(name: str, **values: Any) -> Any:
        return make(
            "bi-encoder", models["bert"], tmp_path / name, stream(), max_steps=5, save_strategy="steps", save_steps=2,
            learning_rate=1e-3, **values,
        )  # fmt: skip

    whole = start("whole")
    whole.train()
    with pytest.raises(Killed):
        start("killed", callbacks=[At(4, kill)]).train()
    last = last_whole_checkpoint(tmp_path / "killed")
    assert last == str(tmp_path / "killed" / "checkpoint-2")
    resumed = start("killed")
    resumed.train(resume_from_checkpoint=last)
    assert same(weights(resumed), weights(whole))


def test_what_is_left_of_a_stream_makes_no_step(models: dict[str, str], tmp_path: Path) -> None:
    """Nor does its gradient go into the next pass's first step."""
    found = []
    for count in (8, 10):
        settings = {"max_steps": 3, "save_strategy": "no", "learning_rate": 1e-3}
        trainer = make(
            "bi-encoder", models["bert"], tmp_path, stream_of(rows()[:1] * count), gradient_accumulation_steps=2,
            per_device_train_batch_size=4, **settings,
        )  # fmt: skip
        trainer.train()
        assert trainer.state.global_step == 3
        found.append(weights(trainer))
    assert same(*found)
    trainer = make(
        "bi-encoder", models["bert"], tmp_path, stream(2), max_steps=3, gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"^gradient_accumulation_steps: a pass .* holds fewer than 2 batches"):
        trainer.train()


def test_what_a_stream_cannot_do_is_said(models: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^max_steps: an IterableDataset has no length"):
        make("bi-encoder", models["bert"], tmp_path, stream())
    with pytest.raises(InputError, match=r"^train_dataset: info_nce draws its batches"):
        make("bi-encoder", models["bert"], tmp_path, stream(), max_steps=2, loss="info_nce")
    with pytest.raises(
        InputError, match=r"^train_dataset: the dataset has no column 'label' among sentence1, sentence2"
    ):
        make("bi-encoder", models["bert"], tmp_path, stream().remove_columns("label"), max_steps=2)
    trainer = make("bi-encoder", models["bert"], tmp_path, None, stream(8))
    assert len(trainer.eval_dataset) == 8


def test_a_collator_of_the_users_own_makes_the_batches(models: dict[str, str], tmp_path: Path) -> None:
    ordinary = make("bi-encoder", models["bert"], tmp_path).data_collator
    seen = []

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        seen.append(len(batch))
        assert batch[0].keys() == {"input_ids1", "input_ids2", "length", "row", "label"}
        assert type(batch[0]["input_ids1"]) is list
        made: dict[str, torch.Tensor] = ordinary(batch)
        return made

    args = BiEncoderTrainingArguments(str(tmp_path), per_device_train_batch_size=8, max_steps=2, save_strategy="no")
    BiEncoderTrainer(models["bert"], args, labelled(), data_collator=collate).train()
    assert seen[:2] == [8, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_rows(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """Arrays of a mapped file, in a worker too, that come to what lists come to."""
    labelled(30).save_to_disk(tmp_path / "pairs")
    pairs = load_from_disk(tmp_path / "pairs")
    trainer = make(kind, models["bert"], tmp_path, pairs, pairs)
    trained = trainer.get_train_dataloader().dataset
    assert isinstance(trained, TokenRows)
    assert trained.rows is trainer.train_dataset
    evaluated = trainer.get_eval_dataloader().dataset
    assert isinstance(evaluated, TokenRows)
    assert sorted(evaluated.rows["row"]) == trainer.eval_dataset["row"][:] == list(range(30))
    unlabelled = trainer.get_test_dataloader(pairs.remove_columns("label")).dataset
    selected = TokenRows(trainer.train_dataset.select([7, 3, 29, 4]))
    for rows in (trained, evaluated, unlabelled, selected):
        for source in (rows, pickle.loads(pickle.dumps(rows))):
            assert len(source) == len(rows.rows)
            indices = [2, 0, len(source) - 1, 2]
            found, expected = source.__getitems__(indices), rows.rows.__getitems__(indices)
            assert all(isinstance(row[name], np.ndarray) for row in found for name in row if name != "label")
            assert source[2].keys() == found[0].keys()
            assert all(np.array_equal(source[2][name], value) for name, value in found[0].items())
            batches = trainer.data_collator(found), trainer.data_collator(expected)
            assert batches[0].keys() == batches[1].keys()
            assert all(torch.equal(batches[0][name], values) for name, values in batches[1].items())
    assert len(pickle.dumps(trained)) < 200 + len(pickle.dumps(trainer.train_dataset))
