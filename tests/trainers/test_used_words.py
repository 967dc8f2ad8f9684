"""Training the words that occur, and no others, changes no result; checkpoints hold all words all the same."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sample_pairs
from datasets import Dataset
from safetensors.torch import load_file
from test_training_loop import KINDS, At, Killed, kill, labelled, load, same, trainer_of, weights, without_dropout
from transformers import AutoTokenizer, CanineConfig, CanineModel

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import Encoder
from te_trainer.trainers.used_words import UsedWords, train_used_words, used_words


@pytest.fixture(scope="module")
def model(models: dict[str, str]) -> str:
    return models["bert"]


def words_of(model: Any) -> Any:
    return model.get_input_embeddings()


def occurring(model: str, pairs: Dataset) -> np.ndarray:
    """Rows of the word embeddings that pairs need, padding among them."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(pairs["sentence1"][:], pairs["sentence2"][:])["input_ids"]
    return np.unique([tokenizer.pad_token_id, *(token for row in ids for token in row)])


def whole(trainer: Any) -> Any:
    """A trainer of all words, as transformers' own."""
    trainer._used_words = contextlib.nullcontext
    return trainer


def other_pairs(count: int) -> Dataset:
    """Dev pairs with words that no training pair has."""
    pairs = sample_pairs(60)[-count:]
    return Dataset.from_dict(
        {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs], "label": list(range(count))}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_training_all_words(kind: str, model: str, tmp_path: Path) -> None:
    found = []
    for change in (whole, lambda trainer: trainer):
        encoder = without_dropout(load(kind, model))
        start = words_of(encoder.model).weight.detach().clone()
        trainer = change(trainer_of(encoder, tmp_path, labelled(), weight_decay=0.0))
        trainer.train()
        found.append(weights(trainer))
    assert found[0].keys() == found[1].keys()
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-5, msg=name)
    changed = (words_of(encoder.model).weight != start).any(1).nonzero().flatten().tolist()
    # a filler of batches learns nothing
    assert changed == [row for row in occurring(model, labelled()).tolist() if row != encoder.tokenizer.pad_token_id]


def test_the_padding_of_the_embeddings_never_learns(model: str) -> None:
    """It may be another token than the tokenizer pads with."""
    base = load("bi-encoder", model).model
    words = words_of(base)
    words.padding_idx = 5
    with train_used_words(base, Dataset.from_dict({"input_ids": [[8, 9]]}), 0):
        base.train()
        replaced = words_of(base)
        replaced(torch.tensor([[8, 5, 5]])).sum().backward()
        learns = [int(replaced.order[row]) for row in words.weight.grad.any(1).nonzero()]
    assert learns == [8]


def test_words_that_never_occur_do_not_decay(model: str, tmp_path: Path) -> None:
    encoder = load("bi-encoder", model)
    start = words_of(encoder.model).weight.detach().clone()
    trainer_of(encoder, tmp_path, labelled(), weight_decay=0.5).train()
    after = words_of(encoder.model).weight
    rows = np.setdiff1d(np.arange(len(start)), occurring(model, labelled()))
    assert len(rows) > 10
    assert torch.equal(after[rows], start[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimiser_holds_the_words_that_occur(kind: str, model: str, tmp_path: Path) -> None:
    encoder = load(kind, model)
    words = words_of(encoder.model)
    seen: list[Any] = []
    trainer = trainer_of(encoder, tmp_path, labelled(), callbacks=[At(2, lambda model: seen.append(words_of(model)))])
    trainer.train()
    assert isinstance(seen[0], UsedWords)
    assert seen[0].num_embeddings == words.num_embeddings
    state = trainer.optimizer.state[words.weight]
    assert state["exp_avg"].shape == (len(occurring(model, labelled())), words.embedding_dim)
    assert words_of(encoder.model) is words
    assert len(words.weight) == words.num_embeddings


@pytest.mark.parametrize("kind", KINDS)
def test_other_words_are_read_while_it_trains_and_lie_in_checkpoints(kind: str, model: str, tmp_path: Path) -> None:
    """The dev set is scored, a checkpoint is saved, and the best one loaded, with words that are not trained."""
    dev = other_pairs(12)
    encoder = load(kind, model)
    trainer = trainer_of(encoder, tmp_path, labelled(), dev, save_total_limit=None, eval_steps=2)
    trainer.train()
    new = np.setdiff1d(occurring(model, dev), occurring(model, labelled()))
    assert len(new) > 5
    best = load_file(Path(trainer.state.best_model_checkpoint, "model.safetensors"))
    assert same(best, weights(trainer))
    assert len(list(tmp_path.glob("checkpoint-*"))) > 2
    last = load_file(tmp_path / f"checkpoint-{trainer.state.global_step}" / "model.safetensors")
    (name,) = (name for name in last if name.endswith("word_embeddings.weight"))
    start = words_of(load(kind, model).model).weight
    assert torch.equal(last[name][new], start[new])
    assert not torch.equal(last[name], start)
    # what was said of the best checkpoint during the training is what it scores afterwards
    scores = score_pairs(encoder, dev)
    assert trainer.metric(scores, np.array(dev["label"])) == pytest.approx(trainer.state.best_metric, abs=1e-6)


def test_a_trainer_trains_twice(model: str, tmp_path: Path) -> None:
    found = []
    for change in (whole, lambda trainer: trainer):
        trainer = change(trainer_of(without_dropout(load("bi-encoder", model)), tmp_path, labelled(), weight_decay=0.0))
        trainer.train()
        trainer.train()
        found.append(weights(trainer))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-5, msg=name)


def test_a_trainer_goes_on_with_other_texts(model: str, tmp_path: Path) -> None:
    """Moments stay with their tokens, whether a training trains some of them or all."""
    found = []
    for change in (whole, lambda trainer: trainer):
        trainer = change(trainer_of(without_dropout(load("bi-encoder", model)), tmp_path, labelled(), weight_decay=0.0))
        trainer.args.max_steps = 4
        for pairs in (labelled(8), labelled(), labelled().to_iterable_dataset(), labelled()):
            trainer.train_dataset = pairs
            trainer.train()
        found.append(weights(trainer))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("stream", [False, True])
def test_a_checkpoint_of_other_texts_is_refused(stream: bool, model: str, tmp_path: Path) -> None:
    trainer_of(load("bi-encoder", model), tmp_path, labelled(), save_strategy="epoch").train()
    other = labelled(12).to_iterable_dataset() if stream else labelled(12)
    trainer = trainer_of(load("bi-encoder", model), tmp_path, other, save_strategy="epoch", max_steps=8)
    with pytest.raises(InputError, match=r"train_dataset: the optimiser has trained \d+ words, and \d+ are in these"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert type(words_of(trainer.model)) is torch.nn.Embedding


@pytest.mark.parametrize("optim", ["adafactor", "sgd", "adamw_torch"])
def test_any_optimiser_resumes(optim: str, model: str, tmp_path: Path) -> None:
    """Their states hold numbers, and moments of other shapes."""

    def make() -> Any:
        return trainer_of(load("bi-encoder", model), tmp_path, labelled(), save_strategy="epoch", optim=optim)

    unbroken = make()
    unbroken.train()
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert same(weights(resumed), weights(unbroken))


def test_a_model_that_changes_its_dtype_takes_its_words_along(model: str) -> None:
    base = load("bi-encoder", model).model
    start = words_of(base).weight.detach().double()
    with train_used_words(base, Dataset.from_dict({"input_ids": [[8, 9]]}), 0):
        base.double()
        for mode in (True, False):
            assert torch.equal(words_of(base.train(mode))(torch.tensor([9, 8])), start[[9, 8]])
        assert words_of(base)(torch.tensor([5])).dtype == torch.float64
        assert "Embedding" in repr(base)
    assert torch.equal(words_of(base).weight, start)


def test_a_model_without_words_trains_as_it_is() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    characters = CanineModel(CanineConfig(**sizes, num_hash_functions=4, num_hash_buckets=16, downsampling_rate=2))
    with train_used_words(characters, Dataset.from_dict({"input_ids": [[8, 9]]}), 0):
        pass


def test_an_interrupted_training_leaves_the_encoder_whole(model: str, tmp_path: Path) -> None:
    encoder = load("cross-encoder", model)
    words = words_of(encoder.model)
    with pytest.raises(Killed):
        trainer_of(encoder, tmp_path, labelled(), callbacks=[At(3, kill)]).train()
    assert words_of(encoder.model) is words
    assert len(words.weight) == words.num_embeddings
    score_pairs(encoder, other_pairs(4))


def frozen(encoder: Encoder) -> None:
    words_of(encoder.model).weight.requires_grad_(False)


def tied(encoder: Encoder) -> None:
    encoder.model.decoder = torch.nn.Linear(1, 1)
    encoder.model.decoder.weight = words_of(encoder.model).weight


@pytest.mark.parametrize("prepare", [frozen, tied])
def test_words_that_are_frozen_or_tied_are_left_alone(prepare: Any, model: str) -> None:
    encoder = load("bi-encoder", model)
    prepare(encoder)
    words = words_of(encoder.model)
    with train_used_words(encoder.model, Dataset.from_dict({"input_ids1": [[1]]}), 0):
        assert words_of(encoder.model) is words
        assert len(words.weight) == words.num_embeddings


def test_all_columns_of_a_selection_count() -> None:
    rows = {"input_ids1": [[1], [2], [3]], "input_ids2": [[], [5, 6], [7]], "length": [1, 2, 1]}
    assert np.flatnonzero(used_words(Dataset.from_dict(rows).select([1, 2]), 9)).tolist() == [2, 3, 5, 6, 7]


def test_a_wrapper_may_move_the_parameter(model: str, tmp_path: Path) -> None:
    """As accelerate does among processes; in checkpoints, for the dev set and afterwards the trained rows are there."""
    found = []
    for step in (1, 1000):  # 1000 never comes
        encoder = without_dropout(load("bi-encoder", model))
        words = words_of(encoder.model).weight

        def move(_: Any, words: Any = words) -> None:
            words.data = words.data.clone()

        trainer = trainer_of(encoder, tmp_path / str(step), labelled(), other_pairs(12), callbacks=[At(step, move)])
        trainer.train()
        found.append((trainer.state.log_history, weights(trainer)))
    curves = [[entry["eval_spearman"] for entry in history if "eval_spearman" in entry] for history, _ in found]
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]
    assert same(found[0][1], found[1][1])
