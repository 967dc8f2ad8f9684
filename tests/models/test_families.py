"""Families of models score as sentence-transformers does, however pairs are batched, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build_tokenizer, sample_pairs
from datasets import Dataset
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizer,
    XLNetConfig,
    set_seed,
)

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers import CrossEncoderTrainer, CrossEncoderTrainingArguments

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 130,
    "pad_token_id": 0,
}
DISTILBERT = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 130, "bos_token_id": 2, "eos_token_id": 3}
# vectors of fewer numbers than its layers have
OPT = {"word_embed_proj_dim": 8, "ffn_dim": 16, "bos_token_id": 2, "eos_token_id": 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "big_bird": {},
    "deberta-v2": {},
    "distilbert": DISTILBERT,
    "electra": {"embedding_size": 16},
    "gpt2": GPT2,
    "longformer": {"attention_window": 8},
    "modernbert": {"cls_token_id": 2, "sep_token_id": 3, "local_attention": 8},
    "mpnet": {},
    "opt": OPT,
    "roberta": {"type_vocab_size": 1},
    "roformer": {"embedding_size": 16},
    "xlm-roberta": {"type_vocab_size": 1},
}


def plm(folder: Path, family: str, **values: Any) -> str:
    """A model of a family whose weights tell sentences apart; its tokenizer pads on the left and gives token types."""
    tokenizer = build_tokenizer()
    if family == "roberta":  # as KLUE's, whose class gives token types whatever the file says of the others
        tokenizer = BertTokenizer(vocab=tokenizer.get_vocab())
    tokenizer.padding_side = "left"
    if family in {"gpt2", "opt"}:
        tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    set_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(family, **{**SIZES, "vocab_size": len(tokenizer), **values}))
    enlarge(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def enlarge(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_sentence_transformers_in_any_batch(tmp_path: Path, family: str) -> None:
    start = plm(tmp_path / "start", family, **FAMILIES[family])
    BiEncoder.check(start)
    CrossEncoder.check(start)
    pairs = sample_pairs(8)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    bi = BiEncoder.from_pretrained(start)
    set_seed(1)
    cross = CrossEncoder.from_pretrained(start)
    cross.activate_with("identity")  # sigmoids of some families' logits are all alike
    for encoder in (bi, cross):
        scores = score_pairs(encoder, columns)
        alone = [
            score_pairs(encoder, {name: texts[row : row + 1] for name, texts in columns.items()}) for row in range(8)
        ]
        np.testing.assert_allclose(np.concatenate(alone), scores, rtol=1e-5, atol=1e-5)
        encoder.save_pretrained(tmp_path / encoder.kind)
        if encoder is bi:
            model = SentenceTransformer(str(tmp_path / encoder.kind), device="cpu")
            one, two = (model.encode(texts, batch_size=8) for texts in columns.values())
            theirs = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        else:
            theirs = TheirCrossEncoder(str(tmp_path / encoder.kind), device="cpu").predict(pairs, batch_size=8)
        np.testing.assert_allclose(theirs, scores, rtol=1e-5, atol=1e-5)
        assert np.ptp(scores) > 1e-4


def test_a_model_of_transformers_is_given_no_token_types_that_it_lacks(tmp_path: Path) -> None:
    start = plm(tmp_path / "start", "roberta", **FAMILIES["roberta"])
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1)
    pairs = sample_pairs(8)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    args = CrossEncoderTrainingArguments(str(tmp_path), precision="float32", max_steps=1, save_strategy="no")
    trainer = CrossEncoderTrainer(
        model,
        args,
        Dataset.from_dict({**columns, "label": [0.5] * 8}),
        processing_class=AutoTokenizer.from_pretrained(start),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    theirs = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs)
    np.testing.assert_allclose(theirs, score_pairs(trainer.encoder, columns), rtol=1e-5, atol=1e-5)


def test_an_xlnet_cross_encoder_pads_on_the_left_for_everybody(tmp_path: Path) -> None:
    """Its head reads the last column."""
    tokenizer = build_tokenizer()
    set_seed(0)
    sizes = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "pad_token_id": 0}
    model = AutoModel.from_config(XLNetConfig(vocab_size=len(tokenizer), **sizes))
    enlarge(model)
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    encoder = CrossEncoder.from_pretrained(str(tmp_path / "start"))
    encoder.activate_with("identity")
    pairs = sample_pairs(8)
    scores = score_pairs(encoder, dict(zip(("sentence1", "sentence2"), zip(*pairs, strict=True), strict=True)))
    alone = [score_pairs(encoder, {"sentence1": [one], "sentence2": [two]})[0] for one, two in pairs]
    np.testing.assert_allclose(alone, scores, rtol=1e-5, atol=1e-6)
    encoder.save_pretrained(tmp_path / "saved")
    theirs = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs, batch_size=8)
    np.testing.assert_allclose(theirs, scores, rtol=1e-5, atol=1e-6)
    assert np.ptp(scores) > 1e-4


def test_a_model_of_texts_and_pictures_is_refused(tmp_path: Path) -> None:
    """Its sizes are those of a part."""
    AutoConfig.for_model("gemma3").save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    for function in (BiEncoder.check, CrossEncoder.check):
        with pytest.raises(InputError, match="a gemma3 makes no vectors of tokens"):
            function(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "values", "words"),
    [
        ("convbert", {"embedding_size": 16}, "a convbert makes no vectors of tokens"),
        ("fnet", {}, "a fnet makes no vectors of tokens"),
        ("nystromformer", {}, "a nystromformer makes no vectors of tokens"),
        ("dpr", {}, "a dpr makes no vectors of tokens"),
        ("yoso", {}, "a yoso makes no vectors of tokens"),
        ("bros", {}, "a bros makes no vectors of tokens"),
        ("xmod", {"languages": ["en_XX"]}, "default_language in config.json names, and it names none"),
        ("vit", {"image_size": 8, "patch_size": 4}, "a vit makes no vectors of tokens"),
        ("blip_2_qformer", {"encoder_hidden_size": 16}, "a blip_2_qformer makes no vectors of tokens"),
        ("idefics3_vision", {}, "a idefics3_vision makes no vectors of tokens"),
    ],
)
def test_families_whose_scores_would_be_wrong_are_refused(
    tmp_path: Path, family: str, values: dict[str, Any], words: str
) -> None:
    start = plm(tmp_path / "start", family, **values)
    for function in (BiEncoder.check, CrossEncoder.check, BiEncoder.from_pretrained, CrossEncoder.from_pretrained):
        with pytest.raises(InputError, match=words):
            function(start)


def test_a_model_that_speaks_is_refused(tmp_path: Path) -> None:
    sizes = {
        "ffn_dim": 8, "flow_size": 4, "spectrogram_bins": 4, "upsample_initial_channel": 16, "upsample_rates": [2],
        "upsample_kernel_sizes": [4], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]],
        "posterior_encoder_num_wavenet_layers": 1, "prior_encoder_num_wavenet_layers": 1, "prior_encoder_num_flows": 2,
        "duration_predictor_num_flows": 1, "duration_predictor_filter_channels": 8, "depth_separable_num_layers": 1,
        "wavenet_dilation_rate": 1,
    }  # fmt: skip
    start = plm(tmp_path / "start", "vits", **sizes)
    for function in (BiEncoder.check, BiEncoder.from_pretrained):
        with pytest.raises(InputError, match="a vits has no embeddings of tokens that transformers knows; start from"):
            function(start)
