"""The bi-encoder: what it starts from, what it computes, and that what it saves loads elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import MINILM, build_tokenizer, sample_pairs
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.bi_encoder import pool

Mode = Literal["cls", "mean"]
Pooled = Literal["cls", "mean", "last"]
KINDS = ["bert", "roberta"]
MODES: list[Mode] = ["cls", "mean"]

# The second last pair has sentences longer than any maximum; the last one's are alike in their first 40 words.
LONG = " ".join(word for pair in sample_pairs(60) for text in pair for word in text.lower().split() if word.isalpha())
PAIRS = [*sample_pairs(24), (LONG, " ".join(reversed(LONG.split()))), (" ".join(LONG.split()[:40]), LONG)]


def vectors(encoder: BiEncoder, sentences: list[str], max_length: int | None = None) -> Tensor:
    length = max_length or encoder.max_length
    encoded = encoder.tokenizer(sentences, padding=True, truncation=True, max_length=length, return_tensors="pt")
    with torch.inference_mode():
        return encoder.embed(encoded["input_ids"], encoded["attention_mask"])


def cosines(one: Tensor, two: Tensor) -> np.ndarray:
    return F.cosine_similarity(one, two, dim=-1).numpy()


def cosines_of(embed: Callable[[list[str]], Tensor]) -> np.ndarray:
    return cosines(*(embed([pair[side] for pair in PAIRS]) for side in (0, 1)))


def sentence_transformer(start: str, mode: str, *more: torch.nn.Module) -> SentenceTransformer:
    transformer = Transformer(start, max_seq_length=32)
    modules = [transformer, Pooling(transformer.get_word_embedding_dimension(), mode), *more]
    return SentenceTransformer(modules=modules, device="cpu")


def old_layout(folder: Path, start: str, mode: str) -> None:
    """What sentence-transformers wrote until version 5."""
    AutoModel.from_pretrained(start).save_pretrained(folder)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "max_tokens", "mean_tokens")}
    flags[f"pooling_mode_{mode}_{'token' if mode == 'cls' else 'tokens'}"] = True
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    for name, content in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 32, **flags},
    }.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


# ---------------------------------------------------------------- saved, and loaded elsewhere


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_sentence_transformers_loads_what_is_saved_and_gives_the_same_cosines(
    tmp_path: Path, starts: dict[str, str], kind: str, mode: Mode
) -> None:
    encoder = BiEncoder.from_pretrained(starts[kind], pooling=mode)
    ours = cosines_of(lambda texts: vectors(encoder, texts))
    encoder.save_pretrained(tmp_path)
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert loaded.max_seq_length == 32
    theirs = cosines_of(lambda texts: loaded.encode(texts, convert_to_tensor=True))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
    assert np.ptp(ours[:24]) > 0.1
    assert ours[-2] < 0.9
    assert ours[-1] == pytest.approx(1, abs=1e-6)
    assert loaded.similarity_fn_name == "cosine"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_transformers_loads_what_is_saved_and_gives_the_same_cosines(
    tmp_path: Path, starts: dict[str, str], kind: str, mode: Mode
) -> None:
    encoder = BiEncoder.from_pretrained(starts[kind], pooling=mode)
    encoder.save_pretrained(tmp_path)
    model, tokenizer = AutoModel.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)

    def embed(texts: list[str]) -> Tensor:
        encoded = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**encoded).last_hidden_state
        if mode == "cls":
            return hidden[:, 0]
        return torch.stack(
            [row[: mask.sum()].mean(0) for row, mask in zip(hidden, encoded.attention_mask, strict=True)]
        )

    np.testing.assert_allclose(cosines_of(embed), cosines_of(lambda texts: vectors(encoder, texts)), rtol=0, atol=1e-5)


def test_another_maximum_length_is_saved_too(tmp_path: Path, starts: dict[str, str]) -> None:
    encoder = BiEncoder.from_pretrained(starts["bert"], max_length=12)
    encoder.save_pretrained(tmp_path)
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert loaded.max_seq_length == 12
    theirs = loaded.encode([LONG], convert_to_tensor=True)
    torch.testing.assert_close(theirs, vectors(encoder, [LONG]), rtol=0, atol=1e-5)
    assert not torch.allclose(theirs, vectors(encoder, [LONG], max_length=32), atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_saved_is_read_back_as_it_was(tmp_path: Path, tiny: Path, mode: Mode) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny), pooling=mode)
    encoder.save_pretrained(tmp_path)
    again = BiEncoder.from_pretrained(str(tmp_path))
    assert again.pooling == mode
    for name, weight in encoder.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("mode", [*MODES, "last"])
def test_sentence_transformers_applies_the_prompt_that_is_saved(
    tmp_path: Path, starts: dict[str, str], mode: Pooled
) -> None:
    encoder = BiEncoder.from_pretrained(starts["bert"], pooling=mode, prompt="the router says ")
    columns = {"sentence1": [one for one, _ in PAIRS], "sentence2": [two for _, two in PAIRS]}
    ours = score_pairs(encoder, columns)
    encoder.save_pretrained(tmp_path)
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    one, two = (loaded.encode(texts, convert_to_tensor=True) for texts in columns.values())
    np.testing.assert_allclose(cosines(one, two), ours, rtol=0, atol=1e-5)
    plain = score_pairs(BiEncoder.from_pretrained(starts["bert"], pooling=mode), columns)
    assert np.abs(ours - plain).max() > 0.01


def test_a_saved_prompt_is_used_unless_another_is_given(tmp_path: Path, tiny: Path) -> None:
    assert BiEncoder.from_pretrained(str(tiny)).prompt == ""
    BiEncoder.from_pretrained(str(tiny), prompt="query: ").save_pretrained(tmp_path / "ours")
    assert BiEncoder.from_pretrained(str(tmp_path / "ours")).prompt == "query: "
    assert BiEncoder.from_pretrained(str(tmp_path / "ours"), prompt="").prompt == ""
    theirs = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    theirs.prompts, theirs.default_prompt_name = {"query": "q: ", "passage": "p: "}, "passage"
    theirs.save(str(tmp_path / "theirs"))
    assert BiEncoder.from_pretrained(str(tmp_path / "theirs")).prompt == "p: "
    theirs.default_prompt_name = None
    theirs.save(str(tmp_path / "none"))
    assert BiEncoder.from_pretrained(str(tmp_path / "none")).prompt == ""


# ---------------------------------------------------------------- starting points


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["old", "new"])
def test_pooling_is_read_from_either_layout_of_sentence_transformers(
    tmp_path: Path, starts: dict[str, str], kind: str, mode: Mode, layout: str
) -> None:
    if layout == "old":
        old_layout(tmp_path, starts[kind], mode)
    else:
        sentence_transformer(starts[kind], mode, Normalize()).save(str(tmp_path))
    written = json.loads((tmp_path / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert ("pooling_mode" in written) == (layout == "new")

    encoder = BiEncoder.from_pretrained(str(tmp_path))
    assert encoder.pooling == mode
    loaded = SentenceTransformer(str(tmp_path), device="cpu")
    loaded.max_seq_length = 32
    np.testing.assert_allclose(
        cosines_of(lambda texts: loaded.encode(texts, convert_to_tensor=True)),
        cosines_of(lambda texts: vectors(encoder, texts)),
        rtol=0,
        atol=1e-5,
    )


def test_pooling_that_is_given_goes_before_what_the_checkpoint_says(tmp_path: Path, tiny: Path) -> None:
    old_layout(tmp_path, str(tiny), "mean")
    assert BiEncoder.from_pretrained(str(tmp_path), pooling="cls").pooling == "cls"


def test_a_plain_plm_is_pooled_by_its_first_token(tiny: Path) -> None:
    assert BiEncoder.from_pretrained(str(tiny)).pooling == "cls"


def test_the_packaged_encoder_is_found_with_its_own_pooling() -> None:
    assert BiEncoder.from_pretrained(MINILM).pooling == "mean"


@pytest.mark.parametrize("layout", ["old", "new"])
def test_other_poolings_must_be_replaced_by_name(tmp_path: Path, tiny: Path, layout: str) -> None:
    if layout == "old":
        old_layout(tmp_path, str(tiny), "max")
    else:
        sentence_transformer(str(tiny), "max").save(str(tmp_path))
    with pytest.raises(InputError, match=r"none of cls, mean and last; choose one with the key pooling"):
        BiEncoder.from_pretrained(str(tmp_path))
    assert BiEncoder.from_pretrained(str(tmp_path), pooling="mean").pooling == "mean"


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_dense_layer_is_refused(tmp_path: Path, tiny: Path, pooling: Mode | None) -> None:
    sentence_transformer(str(tiny), "mean", Dense(32, 16)).save(str(tmp_path))
    with pytest.raises(InputError, match="its modules are Transformer, Pooling, Dense"):
        BiEncoder.from_pretrained(str(tmp_path), pooling=pooling)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_checkpoint_becomes_float32(tmp_path: Path, starts: dict[str, str], kind: str) -> None:
    AutoModel.from_pretrained(starts[kind]).bfloat16().save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(starts[kind]).save_pretrained(tmp_path / "half")
    assert AutoModel.from_pretrained(tmp_path / "half").dtype == torch.bfloat16

    encoder = BiEncoder.from_pretrained(str(tmp_path / "half"))
    assert {weight.dtype for weight in encoder.model.parameters()} == {torch.float32}
    encoder.save_pretrained(tmp_path / "saved")
    assert AutoModel.from_pretrained(tmp_path / "saved").dtype == torch.float32
    assert {weight.dtype for weight in SentenceTransformer(str(tmp_path / "saved")).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "kind",
    [
        *("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert", "data2vec-text", "ernie", "ibert"),
        *("distilbert", "electra", "deberta-v2", "modernbert"),
        *("megatron-bert", "rembert", "xlm-roberta-xl", "jina_embeddings_v3"),
    ],
)
def test_every_weight_of_every_kind_of_encoder_takes_part(tmp_path: Path, kind: str) -> None:
    tokenizer = build_tokenizer()
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=0,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = BiEncoder.from_pretrained(str(tmp_path))
    encoded = encoder.tokenizer([*PAIRS[0], *PAIRS[1]], padding=True, return_tensors="pt")
    embedded = encoder.embed(encoded["input_ids"], encoded["attention_mask"])
    F.cosine_similarity(embedded[:2], embedded[2:]).sum().backward()
    assert [name for name, weight in encoder.model.named_parameters() if weight.grad is None] == []


def test_a_cross_encoder_is_refused_unless_its_encoder_is_asked_for(tmp_path: Path, tiny: Path) -> None:
    set_seed(3)
    cross = CrossEncoder.from_pretrained(str(tiny))
    with torch.no_grad():
        cross.model.bert.embeddings.word_embeddings.weight.add_(1)
    cross.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a cross-encoder .* where a bi-encoder's start is expected"):
        BiEncoder.from_pretrained(str(tmp_path))
    encoder = BiEncoder.from_pretrained(str(tmp_path), from_cross_encoder=True)
    body = cross.model.bert.state_dict()
    for name, weight in encoder.model.state_dict().items():
        assert torch.equal(weight, body[name])


def test_what_is_no_encoder_is_refused(tmp_path: Path, tiny: Path) -> None:
    config = AutoConfig.for_model("t5", d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=50)
    AutoModel.from_config(config).save_pretrained(tmp_path / "both")
    with pytest.raises(InputError, match="T5Model is neither an encoder nor a decoder alone"):
        BiEncoder.from_pretrained(str(tmp_path / "both"))

    AutoModel.from_pretrained(tiny).save_pretrained(tmp_path / "unpadded")
    tokenizer = build_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "unpadded")
    with pytest.raises(InputError, match="its tokenizer has no padding token"):
        BiEncoder.from_pretrained(str(tmp_path / "unpadded"))

    (tmp_path / "empty").mkdir()
    for name, message in {
        str(tmp_path / "empty"): "no model in that folder",
        "nobody/nothing": "no model here or on the Hub",
        "no_such_package:model": "the package 'no_such_package' is not installed",
        f"{MINILM}s": "has no folder 'models'",
    }.items():
        with pytest.raises(InputError, match=message):
            BiEncoder.from_pretrained(name)


def test_a_classifier_of_several_labels_is_a_cross_encoder_too(tmp_path: Path, tiny: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=3).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a cross-encoder"):
        BiEncoder.from_pretrained(str(tmp_path))


# ---------------------------------------------------------------- vectors


def test_pooling_takes_the_first_token_or_the_mean_of_the_real_ones() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(hidden, mask, "cls").tolist() == [[1, 2], [1, 0]]
    assert pool(hidden, mask, "mean").tolist() == [[2, 4], [2, 2]]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tokens_are_pooled_in_float32(mode: Mode, dtype: torch.dtype) -> None:
    hidden = torch.randn(8, 21, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    mask = torch.ones(8, 21, dtype=torch.long)
    pooled = pool(hidden, mask, mode)
    assert pooled.dtype == torch.float32
    expected = hidden[:, 0].double() if mode == "cls" else hidden.double().mean(1)
    torch.testing.assert_close(pooled.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_vectors_of_a_model_in_half_precision_are_float32(starts: dict[str, str], mode: Mode) -> None:
    encoder = BiEncoder.from_pretrained(starts["bert"], pooling=mode)
    sentences = [pair[0] for pair in sample_pairs(200)]
    plain = vectors(encoder, sentences)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = vectors(encoder, sentences)
    encoder.model.bfloat16()
    for half in (autocast, vectors(encoder, sentences)):
        assert half.dtype == torch.float32
        assert not torch.equal(half, plain)
        scores = cosines(half[:-1], half[1:])
        assert np.corrcoef(scores, cosines(plain[:-1], plain[1:]))[0, 1] > 0.99
        assert len(np.unique(scores)) > 0.98 * len(scores)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_padding_changes_no_vector(starts: dict[str, str], kind: str, mode: Mode) -> None:
    encoder = BiEncoder.from_pretrained(starts[kind], pooling=mode)
    sentences = ["why", "why is my router so slow", LONG]
    alone = torch.cat([vectors(encoder, [sentence]) for sentence in sentences])
    torch.testing.assert_close(vectors(encoder, sentences), alone, rtol=0, atol=1e-5)


def test_another_model_may_stand_for_the_plain_one(starts: dict[str, str]) -> None:
    encoder, other = (BiEncoder.from_pretrained(starts[kind]) for kind in KINDS)
    encoded = encoder.tokenizer("why is my router so slow", return_tensors="pt")
    with torch.inference_mode():
        inputs = encoded["input_ids"], encoded["attention_mask"]
        assert torch.equal(encoder.embed(*inputs, model=other.model), other.embed(*inputs))
