"""An attention that its user names: it computes instead of packing, or its name is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import labelled
from tiny_decoders import save_decoder
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, set_seed

from te_trainer.errors import InputError
from te_trainer.labelling import embed_sentences, score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, load_encoder
from te_trainer.models.attention import check_attention
from te_trainer.models.packed import AttentionBackend, choose_backend
from te_trainer.models.packed.pack import ATTENTION_NAME, UNPADDED_NAME, is_packing
from te_trainer.models.packed.when_to_pack import PACKED

KINDS: dict[str, Any] = {"bi-encoder": BiEncoder, "cross-encoder": CrossEncoder}
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_decoder(tmp_path_factory.mktemp("decoder"), "llama"))


@pytest.mark.parametrize("name", ["eager", "sdpa"])
@pytest.mark.parametrize("model", ["bert", "decoder"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_fastest_and_no_text_is_packed(
    kind: str, model: str, name: str, models: dict[str, str], decoder: str, tmp_path: Path
) -> None:
    pairs, scores, packed, seen = labelled(12), [], [], set()
    for attention in (None, name):
        set_seed(0)
        path = {**models, "decoder": decoder}[model]
        encoder = KINDS[kind].from_pretrained(path, attn_implementation=attention)

        def look(share: float, encoder: Any = encoder) -> None:
            packed.append(is_packing(encoder.model))
            seen.add(encoder.model.config._attn_implementation)

        packed.clear(), seen.clear()
        scores.append(score_pairs(encoder, pairs, progress=look))
        if kind == "bi-encoder":
            embed_sentences(encoder, pairs, tmp_path, progress=look)
        assert set(packed) == {attention is None and model != "decoder"}
        assert encoder.model.config._attn_implementation == "sdpa"
    assert seen == {name}
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=1e-5)
    encoder.save_pretrained(tmp_path / "saved")
    assert "attn" not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    assert load_encoder(str(tmp_path / "saved")).attn_implementation is None


def test_what_is_named_goes_before_what_is_fast(models: dict[str, str]) -> None:
    model, cpu, gpu = BiEncoder.from_pretrained(models["bert"]).model, torch.device("cpu"), torch.device("cuda")
    assert choose_backend(model, 32, cpu) == PACKED
    assert choose_backend(model, 32, cpu, attention="sdpa") == AttentionBackend("sdpa", fast_dropout=True)
    assert choose_backend(model, 32, gpu, "bfloat16", attention="eager").attention == "eager"
    assert choose_backend(model, 32, cpu, compiled=True, attention="eager") == AttentionBackend("eager")
    model.set_attn_implementation("flex_attention")
    assert choose_backend(model, 32, gpu, attention="sdpa").attention == "sdpa"


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/flash-attn2"])
def test_flash_attention_is_for_16_bits_alone(name: str, models: dict[str, str]) -> None:
    model, gpu = BiEncoder.from_pretrained(models["bert"]).model, torch.device("cuda")
    assert choose_backend(model, 32, gpu, "bfloat16", attention=name).attention == name
    assert choose_backend(model, 32, gpu, "float32", attention=name).attention is None


def empty(family: str, auto: Any = AutoModel, **values: Any) -> Any:
    with torch.device("meta"):
        return auto.from_config(AutoConfig.for_model(family, **{**TINY, **values}))


GPU = {"device": "cuda"}
KNOWN = "known are eager, flash_attention_2, flash_attention_3, flash_attention_4, flex_attention, sdpa"


@pytest.mark.parametrize(
    ("family", "name", "how", "reason"),
    [
        ("bert", "spda", {}, KNOWN),
        ("bert", "", {}, KNOWN),
        ("bert", "paged|eager", {}, KNOWN),
        ("bert", ATTENTION_NAME, {}, KNOWN),
        ("bert", UNPADDED_NAME, {}, KNOWN),
        ("bert", "flash_attention_2", {"device": "cpu"}, "it needs a GPU"),
        ("bert", "flash_attention_2", GPU, "FlashAttention2 has been toggled on, but it cannot be used due to the"),
        ("bert", "kernels-community/flash-attn2", GPU, "kernels"),
        ("bert", "flex_attention", {"device": "cpu"}, "it needs a GPU"),
        ("bert", "flex_attention", {"trains": True, **GPU}, "it has no dropout, and attention_probs_dropout_prob in"),
        ("gpt2", "flex_attention", {"trains": True, **GPU}, "it has no dropout, and attn_pdrop in"),
        ("deberta-v2", "sdpa", {}, "its attention is eager and no other"),
        ("mpnet", "flash_attention_2", GPU, ""),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(family: str, name: str, how: dict[str, Any], reason: str) -> None:
    model = empty(family)
    before = model.config._attn_implementation
    with pytest.raises(InputError) as caught:
        check_attention(model, name, "bi_encoder.attn_implementation", **how)
    sentence = str(caught.value)
    start = f"bi_encoder.attn_implementation: '{name}' cannot be used for {type(model).__name__} ("
    assert (
        sentence.startswith(start) and reason in sentence and "\n" not in sentence and "Please request" not in sentence
    )
    assert sentence.endswith("); name another, such as sdpa or eager, or leave the key out")
    assert model.config._attn_implementation == before


@pytest.mark.parametrize(
    ("family", "name", "how"),
    [
        ("bert", None, {}),
        ("bert", "eager", {"trains": True}),
        ("bert", "sdpa", {"trains": True}),
        ("bert", "flex_attention", GPU),
        ("llama", "flex_attention", {"trains": True, **GPU}),
        ("deberta-v2", "eager", {"trains": True}),
    ],
)
def test_a_name_that_can_be_used_changes_nothing(family: str, name: str | None, how: dict[str, Any]) -> None:
    for auto in (AutoModel, AutoModelForSequenceClassification):
        model = empty(family, auto)
        before = model.config._attn_implementation
        check_attention(model, name, "attn_implementation", **how)
        assert model.config._attn_implementation == before


@pytest.mark.parametrize("make", [BiEncoder.from_pretrained, CrossEncoder.from_pretrained, load_encoder])
def test_no_encoder_is_made_with_a_wrong_name(make: Callable[..., Any], models: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"^attn_implementation: 'spda' cannot be used for Bert\w+ \(known are"):
        make(models["bert"], attn_implementation="spda")
