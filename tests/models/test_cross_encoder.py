"""The cross-encoder: its head, its logits, and that what it saves loads elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from conftest import build_tokenizer, sample_pairs
from telling import enlarge_weights, new_cross_encoder
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding, set_seed

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.cross_encoder import Activation
from te_trainer.models.encoder import load_encoder
from te_trainer.models.sentence_files import SentenceLayout

KINDS = ["bert", "roberta"]
LONG = " ".join(word for pair in sample_pairs(90) for text in pair for word in text.lower().split() if word.isalpha())
PAIRS = [*sample_pairs(24), (LONG, "why"), ("why", LONG), (LONG, " ".join(reversed(LONG.split())))]


def tokenise(encoder: CrossEncoder, pairs: list[tuple[str, str]], max_length: int) -> BatchEncoding:
    one, two = ([pair[side] for pair in pairs] for side in (0, 1))
    return encoder.tokenizer(one, two, padding=True, truncation=True, max_length=max_length, return_tensors="pt")


def logits(encoder: CrossEncoder, pairs: list[tuple[str, str]], max_length: int | None = None) -> Tensor:
    with torch.inference_mode():
        return encoder.logits(**tokenise(encoder, pairs, max_length or encoder.max_length))


# ---------------------------------------------------------------- saved, and loaded elsewhere


@pytest.mark.parametrize(("kind", "max_length"), [("bert", 32), ("roberta", 64)])
def test_sentence_transformers_loads_what_is_saved_and_predicts_the_same(
    tmp_path: Path, starts: dict[str, str], kind: str, max_length: int
) -> None:
    encoder = new_cross_encoder(starts[kind], max_length=max_length)
    ours = torch.sigmoid(logits(encoder, PAIRS)).numpy()
    encoder.save_pretrained(tmp_path)
    loaded = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    assert loaded.max_length == max_length
    np.testing.assert_allclose(loaded.predict(PAIRS), ours, rtol=0, atol=1e-5)
    assert np.ptp(ours[:24]) > 0.1
    whole = torch.sigmoid(logits(encoder, PAIRS[-3:], max_length=128)).numpy()
    assert (abs(whole - ours[-3:]) > 1e-3).all()


@pytest.mark.parametrize("before", ["another cross-encoder", "a bi-encoder"])
def test_nothing_of_an_encoder_that_was_saved_in_the_folder_before_stays(
    tmp_path: Path, starts: dict[str, str], before: str
) -> None:
    encoder = new_cross_encoder(starts["bert"])
    ours = torch.sigmoid(logits(encoder, PAIRS)).numpy()
    if before == "a bi-encoder":
        BiEncoder.from_pretrained(starts["bert"], layout=SentenceLayout(modules={"Normalize": ""})).save_pretrained(
            tmp_path
        )
    else:
        identity = torch.nn.Identity()
        theirs = sentence_transformers.CrossEncoder(starts["bert"], num_labels=1, activation_fn=identity, device="cpu")
        theirs.save_pretrained(str(tmp_path))
    encoder.save_pretrained(tmp_path)
    loaded = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    np.testing.assert_allclose(loaded.predict(PAIRS), ours, rtol=0, atol=1e-5)
    again = load_encoder(str(tmp_path))
    assert isinstance(again, CrossEncoder) and (again.activation, again.max_length) == ("sigmoid", 64)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    # nor of a bi-encoder's length, which may lie in a file of another name
    (tmp_path / "sentence_albert_config.json").write_text('{"max_seq_length": 5}')
    BiEncoder.from_pretrained(starts["bert"], max_length=20).save_pretrained(tmp_path)
    assert BiEncoder.from_pretrained(str(tmp_path)).max_length == 20
    assert sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu").max_seq_length == 20


@pytest.mark.parametrize(("kind", "max_length"), [("bert", 32), ("roberta", 64)])
def test_transformers_loads_what_is_saved_and_predicts_the_same(
    tmp_path: Path, starts: dict[str, str], kind: str, max_length: int
) -> None:
    encoder = new_cross_encoder(starts[kind], max_length=max_length)
    encoder.save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    one, two = ([pair[side] for pair in PAIRS] for side in (0, 1))
    with torch.inference_mode():
        theirs = model(**tokenizer(one, two, truncation=True, padding=True, return_tensors="pt")).logits[:, 0]
    np.testing.assert_allclose(theirs, logits(encoder, PAIRS), rtol=0, atol=1e-5)


def test_what_is_saved_is_read_back_with_its_head(tmp_path: Path, tiny: Path) -> None:
    encoder = new_cross_encoder(str(tiny))
    encoder.save_pretrained(tmp_path)
    set_seed(99)
    again = CrossEncoder.from_pretrained(str(tmp_path))
    for name, weight in encoder.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)


def test_what_sentence_transformers_saved_is_read_with_its_head(tmp_path: Path, tiny: Path) -> None:
    set_seed(4)
    theirs = sentence_transformers.CrossEncoder(str(tiny), num_labels=1, max_length=64, device="cpu")
    theirs.save_pretrained(str(tmp_path))
    encoder = CrossEncoder.from_pretrained(str(tmp_path))
    encoder.model.eval()
    np.testing.assert_allclose(theirs.predict(PAIRS), torch.sigmoid(logits(encoder, PAIRS)).numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["sigmoid", "identity"])
def test_scores_are_those_that_sentence_transformers_predicts_of_what_is_saved(
    tmp_path: Path, starts: dict[str, str], activation: Activation
) -> None:
    encoder = new_cross_encoder(starts["bert"])
    encoder.activate_with("identity" if activation == "sigmoid" else "sigmoid")
    encoder.activate_with(activation)
    encoder.save_pretrained(tmp_path)
    again = CrossEncoder.from_pretrained(str(tmp_path))
    again.model.eval()
    assert again.activation == activation
    with torch.inference_mode():
        ours = again.scores(**tokenise(again, PAIRS, 64)).numpy()
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
    assert (ours.min() < 0) == (activation == "identity")


def test_an_activation_that_sentence_transformers_saved_is_read(tmp_path: Path, tiny: Path) -> None:
    """In the file of version 6, in the configuration of versions 4 and 5, and as it was before."""
    saved = {}
    for name, function in (("identity", torch.nn.Identity()), ("sigmoid", torch.nn.Sigmoid()), ("no", torch.nn.Tanh())):
        theirs = sentence_transformers.CrossEncoder(str(tiny), num_labels=1, activation_fn=function, device="cpu")
        theirs.save_pretrained(str(tmp_path / name))
        saved[name] = str(tmp_path / name)
    assert CrossEncoder.from_pretrained(saved["identity"]).activation == "identity"
    assert CrossEncoder.from_pretrained(saved["sigmoid"]).activation == "sigmoid"
    with pytest.raises(InputError, match=r"its scores are the torch\.nn\.modules\.activation\.Tanh of its logits"):
        CrossEncoder.from_pretrained(saved["no"])
    Path(saved["no"], "config_sentence_transformers.json").unlink()
    config = json.loads(Path(saved["no"], "config.json").read_text())
    identity = "torch.nn.modules.linear.Identity"
    for old in (
        {"sentence_transformers": {"activation_fn": identity}},
        {"sbert_ce_default_activation_function": identity},
    ):
        Path(saved["no"], "config.json").write_text(json.dumps(config | old))
        assert CrossEncoder.from_pretrained(saved["no"]).activation == "identity"
    Path(saved["no"], "config.json").write_text(json.dumps(config))
    assert CrossEncoder.from_pretrained(saved["no"]).activation == "sigmoid"


# ---------------------------------------------------------------- starting points


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_follows_the_seed(starts: dict[str, str], kind: str) -> None:
    heads = []
    for seed in (1, 1, 2):
        set_seed(seed)
        encoder = CrossEncoder.from_pretrained(starts[kind])
        heads.append(torch.cat([weight.flatten() for weight in encoder.model.classifier.parameters()]))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_checkpoint_becomes_float32(tmp_path: Path, starts: dict[str, str], kind: str) -> None:
    encoder = new_cross_encoder(starts[kind])
    encoder.model.bfloat16().save_pretrained(tmp_path / "half")
    encoder.tokenizer.save_pretrained(tmp_path / "half")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "half").dtype == torch.bfloat16

    again = CrossEncoder.from_pretrained(str(tmp_path / "half"))
    assert {weight.dtype for weight in again.model.parameters()} == {torch.float32}
    again.save_pretrained(tmp_path / "saved")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").dtype == torch.float32


def test_every_weight_takes_part(tiny: Path) -> None:
    encoder = CrossEncoder.from_pretrained(str(tiny))
    encoder.logits(**encoder.tokenizer(*PAIRS[0], return_tensors="pt")).sum().backward()
    assert [name for name, weight in encoder.model.named_parameters() if weight.grad is None] == []


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path, tiny: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a classifier of 3 labels .* is expected; name the plain PLM"):
        CrossEncoder.from_pretrained(str(tmp_path))


# ---------------------------------------------------------------- logits


def test_one_logit_a_pair(starts: dict[str, str]) -> None:
    encoder = new_cross_encoder(starts["bert"])
    assert logits(encoder, PAIRS).shape == (len(PAIRS),)
    assert logits(encoder, PAIRS[:1]).shape == (1,)


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_logits_are_float32_and_as_many_as_pairs(starts: dict[str, str], kind: str) -> None:
    encoder = new_cross_encoder(starts[kind])
    with torch.no_grad():
        next(module for module in encoder.model.modules() if getattr(module, "out_features", 0) == 1).bias.fill_(5)
    pairs = sample_pairs(300)
    plain = logits(encoder, pairs)
    assert len(plain.unique()) == len(pairs)
    # The same weights without our class around them: the trap is there.
    untreated = AutoModelForSequenceClassification.from_pretrained(starts[kind], num_labels=1).eval()
    untreated.load_state_dict(encoder.model.state_dict())
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = logits(encoder, pairs)
        coarse = untreated(**tokenise(encoder, pairs, 64)).logits
    assert half.dtype == torch.float32
    assert len(half.unique()) == len(pairs)
    assert torch.corrcoef(torch.stack([half, plain]))[0, 1] > 0.99
    assert coarse.dtype == torch.bfloat16
    assert len(coarse.unique()) < len(pairs) / 2


def test_a_tokenizer_that_pads_on_the_left_changes_no_score(tiny: Path, tmp_path: Path) -> None:
    """The classifier of a BERT reads the first column."""
    pairs = sample_pairs(20)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(str(tiny))
    enlarge_weights(encoder.model)
    expected = score_pairs(encoder, columns)
    encoder.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "padding_side": "left"}))
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    found = score_pairs(CrossEncoder.from_pretrained(str(tmp_path)), columns)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
def test_the_length_of_a_saved_encoder_is_known_under_zero3(kind: Any, tiny: Path, tmp_path: Path) -> None:
    """transformers cannot make a model without weights there, of which the number of positions is read."""
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    kind.from_pretrained(str(tiny), max_length=20).save_pretrained(tmp_path)
    held = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    try:
        assert resolve_checkpoint(str(tmp_path)).max_length == 20
        assert is_deepspeed_zero3_enabled()
    finally:
        del held
    assert not is_deepspeed_zero3_enabled()
