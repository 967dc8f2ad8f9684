"""Lengths, token types and vocabularies that a model cannot read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tokenizer
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.encoder import check_encoder
from te_trainer.models.limits import position_limit

LONG = " ".join(["the router blinks red"] * 60)


def small(**values: Any) -> dict[str, Any]:
    sizes = {
        "vocab_size": len(build_tokenizer()),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 66,
    }
    return {**sizes, **values}


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    """A RoBERTa of 66 positions, of which 64 can be used, and a tokenizer that names no length."""
    RobertaModel(RobertaConfig(**small(type_vocab_size=1, pad_token_id=1))).save_pretrained(tmp_path / "roberta")
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta"


def refusals(folder: Path, function: Callable[..., Any], **values: Any) -> str:
    with pytest.raises(InputError) as error:
        function(str(folder), **values)
    return str(error.value)


def with_length(start: Path, folder: Path, length: Any) -> Path:
    """A model whose tokenizer says `model_max_length`."""
    shutil.copytree(start, folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": length}
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


# ---------------------------------------------------------------- lengths


def test_texts_are_cut_to_what_a_roberta_can_read(roberta: Path, tmp_path: Path) -> None:
    assert resolve_checkpoint(str(roberta)).max_length == 64
    (roberta / "sentence_bert_config.json").write_text('{"max_seq_length": 66, "do_lower_case": false}')
    assert resolve_checkpoint(str(roberta)).max_length == 64
    (roberta / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    assert resolve_checkpoint(str(roberta)).max_length == 20
    pairs = {"sentence1": [LONG, "a router"], "sentence2": [LONG, "the light"]}
    for kind in (BiEncoder, CrossEncoder):
        encoder = kind.from_pretrained(str(roberta), max_length=64)
        assert np.isfinite(score_pairs(encoder, pairs)).all()
        encoder.save_pretrained(tmp_path / kind.__name__)
        assert resolve_checkpoint(str(tmp_path / kind.__name__)).max_length == 64


@pytest.mark.parametrize("length", [65, 4096])
def test_a_length_beyond_a_models_positions_is_refused_with_its_key(roberta: Path, length: int) -> None:
    said = f"{length:,} tokens, but model {roberta} has 64 positions"
    for check in (BiEncoder.check, CrossEncoder.check):
        assert refusals(roberta, check, max_length=length, section="some.").startswith(f"some.max_length: {said}")
        check(str(roberta), max_length=64)
    assert refusals(roberta, check_encoder, max_length=length).startswith(f"max_length: {said}")
    for kind in (BiEncoder, CrossEncoder):
        assert refusals(roberta, kind.from_pretrained, max_length=length).startswith(f"max_length: {said}")


@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
def test_a_length_that_leaves_no_token_of_a_text_is_refused(tiny: Path, tmp_path: Path, kind: type) -> None:
    check, fewest = (BiEncoder.check, 3) if kind is BiEncoder else (CrossEncoder.check, 5)
    for length in (1, 2, fewest - 1):
        said = f"{length} tokens leave none of a text beside the {2 if kind is BiEncoder else 3} special ones"
        assert refusals(tiny, check, max_length=length, section="some.").startswith(f"some.max_length: {said}")
        assert said in refusals(tiny, kind.from_pretrained, max_length=length)
    check(str(tiny), max_length=fewest)
    kind.from_pretrained(str(tiny), max_length=fewest)
    assert "tokens leave none of a text" in refusals(with_length(tiny, tmp_path / "model", 2), check)


def test_a_prompt_that_leaves_no_token_of_a_sentence_is_refused(tiny: Path) -> None:
    prompt = "my router keeps "
    tokens = len(AutoTokenizer.from_pretrained(tiny)(prompt)["input_ids"])
    said = f"prompt: its {tokens} tokens, special ones included, leave none of "
    named = refusals(tiny, BiEncoder.check, max_length=tokens, prompt=prompt, section="bi_encoder.")
    assert named.startswith(f"bi_encoder.{said}bi_encoder.max_length ({tokens})")
    assert refusals(tiny, BiEncoder.from_pretrained, max_length=tokens, prompt=prompt).startswith(said)
    BiEncoder.check(str(tiny), max_length=tokens + 1, prompt=prompt)
    encoder = BiEncoder.from_pretrained(str(tiny), max_length=tokens + 1, prompt=prompt)
    assert np.ptp(score_pairs(encoder, {"sentence1": ["a", "my"], "sentence2": ["my", "my"]})) > 0


@pytest.mark.parametrize("length", [0, "512", float("nan")])
def test_a_tokenizers_length_that_is_none_is_refused(tiny: Path, tmp_path: Path, length: Any) -> None:
    folder = with_length(tiny, tmp_path / "model", length)
    assert "model_max_length in tokenizer_config.json is" in refusals(folder, check_encoder)


# The positions that can be used of a table of 66, found by trying.
POSITIONS = {
    "bert": 66,
    "albert": 66,
    "camembert": 64,
    "data2vec-text": 64,
    "distilbert": 66,
    "esm": 64,
    "gpt2": 66,
    "longformer": 64,
    "mpnet": 64,
    "opt": 66,
    "roberta": 64,
    "xlm-roberta": 64,
}


@pytest.mark.parametrize("family", POSITIONS)
def test_the_limit_is_the_longest_input_that_a_model_reads(family: str) -> None:
    values = small(pad_token_id=1, position_embedding_type="absolute", mask_token_id=4, attention_window=8)
    if family == "gpt2":
        values |= {"n_positions": values.pop("max_position_embeddings")}
    config = AutoConfig.for_model(family, **values)
    with torch.device("meta"):
        assert position_limit(AutoModel.from_config(config)) == POSITIONS[family]
    model = AutoModel.from_config(config).eval()
    with torch.inference_mode():
        model(torch.full((1, POSITIONS[family]), 7))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, POSITIONS[family] + (8 if family == "longformer" else 1)), 7))


# ---------------------------------------------------------------- token types


def test_token_types_that_a_model_lacks_are_left_out(tiny: Path, roberta: Path, tmp_path: Path) -> None:
    assert max(resolve_checkpoint(str(tiny)).load_tokenizer()("a", "b")["token_type_ids"]) == 1
    assert max(AutoTokenizer.from_pretrained(roberta)("a", "b")["token_type_ids"]) == 1
    assert "token_type_ids" not in resolve_checkpoint(str(roberta)).load_tokenizer()("a", "b")
    CrossEncoder.check(str(roberta))
    encoder = CrossEncoder.from_pretrained(str(roberta))
    pairs = {"sentence1": ["a router", "the red light"], "sentence2": ["no sound", "it blinks"]}
    scores = score_pairs(encoder, pairs)
    encoder.save_pretrained(tmp_path / "saved")
    theirs = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(list(zip(*pairs.values(), strict=True)))
    np.testing.assert_allclose(theirs, scores, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- vocabularies


def test_a_tokenizer_of_more_tokens_than_embeddings_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["[USER]", "[AGENT]"])
    tokenizer.save_pretrained(folder)
    for function in (BiEncoder.check, CrossEncoder.check, check_encoder, BiEncoder.from_pretrained):
        sentence = refusals(folder, function)
        assert f"{rows + 2:,} tokens ('[agent]' is the last), but the model has embeddings for {rows:,}" in sentence
    model = AutoModel.from_pretrained(folder)
    model.resize_token_embeddings(rows + 2)
    model.save_pretrained(folder)
    BiEncoder.check(str(folder))


def tokenizer_without(part: str) -> PreTrainedTokenizerFast:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]
    unknown = None if part == "unknown" else "[UNK]"
    model = WordLevel({token: at for at, token in enumerate(tokens)}, **({"unk_token": unknown} if unknown else {}))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if part != "frame":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


@pytest.mark.parametrize(
    ("part", "words"), [("unknown", "cannot read every text"), ("frame", "no special tokens around a sentence")]
)
def test_a_tokenizer_that_lacks_tokens_is_refused(tiny: Path, tmp_path: Path, part: str, words: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    for path in folder.glob("token*"):
        path.unlink()
    tokenizer_without(part).save_pretrained(folder)
    for function in (BiEncoder.check, CrossEncoder.check, BiEncoder.from_pretrained, CrossEncoder.from_pretrained):
        assert words in refusals(folder, function)


@pytest.mark.parametrize(
    ("file", "content", "package"),
    [
        ("spiece.model", b"\n\x0e\n\x05<pad>", "sentencepiece"),
        ("tokenizer.model", b"YQ== 0\nYg== 1\n", "tiktoken"),
    ],
)
def test_the_package_that_reads_a_vocabulary_is_asked_for(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes, package: str
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    for path in folder.glob("token*"):
        path.unlink()
    (folder / file).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaV2Tokenizer"}))
    # neither is among the project's requirements, but may be installed
    monkeypatch.setitem(__import__("sys").modules, package, None)
    for function in (BiEncoder.check, CrossEncoder.check):
        assert f"({file}) needs the package {package}; pip install {package}" in refusals(folder, function)
