"""What sentence-transformers writes is read, kept when an encoder is saved, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build_tokenizer
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import BertTokenizer

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.encoder import check_encoder, load_encoder
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

TEXTS = ["My Router blinks red", "my router blinks red", "no sound from the speaker today", "the speaker is silent"]
PAIRS = {"sentence1": TEXTS, "sentence2": [TEXTS[1], TEXTS[2], TEXTS[3], TEXTS[0]]}


def theirs(folder: str | Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    one, two = (model.encode(texts) for texts in PAIRS.values())
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def ours(folder: str | Path, **values: Any) -> np.ndarray:
    check_encoder(str(folder))
    return score_pairs(load_encoder(str(folder), **values), PAIRS)


def written(folder: Path, file: str, **values: Any) -> Any:
    path = folder / file
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


@pytest.fixture(scope="module")
def saved_once(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that sentence-transformers saved."""
    folder = tmp_path_factory.mktemp("layout") / "saved"
    transformer = Transformer(models["bert"], max_seq_length=24)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))
    return folder


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    return shutil.copytree(saved_once, tmp_path / "saved")


def refused(folder: Path, *words: str) -> None:
    for function in (BiEncoder.check, check_encoder, BiEncoder.from_pretrained):
        with pytest.raises(InputError) as error:
            function(str(folder))
        sentence = str(error.value)
        assert sentence.startswith(f"model {folder}: ") and "\n" not in sentence
        for word in words:
            assert word in sentence


def agree(folder: Path, again: Path) -> None:
    """Both libraries score a folder alike, and also what is saved of it."""
    expected = theirs(folder)
    np.testing.assert_allclose(ours(folder), expected, rtol=0, atol=1e-5)
    load_encoder(str(folder)).save_pretrained(again)
    np.testing.assert_allclose(theirs(again), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours(again), expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- read and kept


def cased(folder: Path) -> None:
    """Let the tokenizer leave capitals as they are, so that they are unknown."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "normalizer": None}))


@pytest.mark.parametrize("tokenizer_class", ["PreTrainedTokenizerFast", "BertTokenizer"])
def test_texts_are_lower_cased_where_sentence_transformers_does_it(
    saved: Path, tmp_path: Path, tokenizer_class: str
) -> None:
    cased(saved)
    if tokenizer_class == "BertTokenizer":  # which makes its normaliser anew when it is loaded
        BertTokenizer(vocab=build_tokenizer().get_vocab(), do_lower_case=False).save_pretrained(saved)
    before = ours(saved)
    assert before[0] < 0.99
    written(saved, "sentence_bert_config.json", do_lower_case=True)
    agree(saved, tmp_path / "again")
    assert ours(saved)[0] == pytest.approx(1)
    # however often it is saved
    load_encoder(str(tmp_path / "again")).save_pretrained(tmp_path / "twice")
    assert (tmp_path / "twice" / "tokenizer.json").read_text(encoding="utf-8").count('"Lowercase"') == 1
    encoder = CrossEncoder.from_pretrained(str(saved))
    scores = score_pairs(encoder, PAIRS)
    small = score_pairs(encoder, {"sentence1": [TEXTS[1]], "sentence2": [TEXTS[1]]})
    assert scores[0] == pytest.approx(small[0], abs=1e-6)
    encoder.save_pretrained(tmp_path / "cross")
    model = TheirCrossEncoder(str(tmp_path / "cross"), device="cpu")
    np.testing.assert_allclose(model.predict(list(zip(*PAIRS.values(), strict=True))), scores, rtol=0, atol=1e-5)
    # so are those of an object, whose tokenizer sentence-transformers has changed
    TheirCrossEncoder(str(saved), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "object"))
    written(tmp_path / "object", "sentence_bert_config.json", do_lower_case=True)
    model = TheirCrossEncoder(str(tmp_path / "object"), device="cpu")
    expected = model.predict(list(zip(*PAIRS.values(), strict=True)))
    trainer = CrossEncoderTrainer(model, CrossEncoderTrainingArguments(str(tmp_path)))
    trainer.save_model(str(tmp_path / "saved_object"))
    model = TheirCrossEncoder(str(tmp_path / "saved_object"), device="cpu")
    np.testing.assert_allclose(model.predict(list(zip(*PAIRS.values(), strict=True))), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(score_pairs(trainer.encoder, PAIRS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "xlnet"])
def test_the_length_is_read_from_a_file_of_any_of_its_names(saved: Path, kind: str) -> None:
    path = saved / "sentence_bert_config.json"
    path.write_text('{"max_seq_length": 5, "do_lower_case": false}')
    path.rename(saved / f"sentence_{kind}_config.json")
    assert (
        resolve_checkpoint(str(saved)).max_length == SentenceTransformer(str(saved), device="cpu").max_seq_length == 5
    )
    np.testing.assert_allclose(ours(saved), theirs(saved), rtol=0, atol=1e-5)


def test_a_transformer_in_a_folder_of_its_own_is_read(saved: Path, tmp_path: Path) -> None:
    cased(saved)
    written(saved, "sentence_bert_config.json", do_lower_case=True, max_seq_length=6)
    inner = saved / "0_Transformer"
    inner.mkdir()
    for path in list(saved.iterdir()):
        if path.is_file() and path.name not in {"modules.json", "config_sentence_transformers.json"}:
            path.rename(inner / path.name)
    modules = json.loads((saved / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (saved / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    agree(saved, tmp_path / "again")
    assert (tmp_path / "again" / "config.json").is_file()
    CrossEncoder.check(str(saved))
    CrossEncoder.from_pretrained(str(saved))


def test_a_pooling_goes_before_the_architecture_that_the_configuration_names(saved: Path, tmp_path: Path) -> None:
    written(saved, "config.json", architectures=["BertForSequenceClassification"])
    assert resolve_checkpoint(str(saved)).kind == "bi-encoder"
    agree(saved, tmp_path / "again")


def test_normalised_vectors_stay_normalised(models: dict[str, str], tmp_path: Path) -> None:
    transformer = Transformer(models["bert"], max_seq_length=24)
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu", similarity_fn_name="dot")
    model.save(str(tmp_path / "saved"))
    agree(tmp_path / "saved", tmp_path / "again")
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(np.linalg.norm(again.encode(TEXTS), axis=1), 1, atol=1e-6)
    assert again.similarity_fn_name == "dot"
    model.prompts = {"query": "the router "}
    BiEncoderTrainer(model, BiEncoderTrainingArguments(str(tmp_path))).save_model(str(tmp_path / "trained"))
    trained = SentenceTransformer(str(tmp_path / "trained"), device="cpu")
    np.testing.assert_allclose(np.linalg.norm(trained.encode(TEXTS), axis=1), 1, atol=1e-6)
    assert trained.prompts["query"] == "the router "


def test_prompts_and_other_keys_are_kept(saved: Path, tmp_path: Path) -> None:
    prompts = {"query": "the router ", "document": "no sound "}
    written(saved, "config_sentence_transformers.json", prompts=prompts, default_prompt_name="document")
    written(saved, "sentence_bert_config.json", query_length=7, document_length=9, unpad_inputs=False)
    agree(saved, tmp_path / "again")
    before, after = (SentenceTransformer(str(path), device="cpu") for path in (saved, tmp_path / "again"))
    assert after.prompts == before.prompts and after.default_prompt_name == "document"
    for key in ("query_length", "document_length", "unpad_inputs"):
        assert getattr(after[0], key) == getattr(before[0], key)
    # another prompt stands beside them
    BiEncoder.from_pretrained(str(saved), prompt="a ").save_pretrained(tmp_path / "other")
    other = SentenceTransformer(str(tmp_path / "other"), device="cpu")
    assert other.prompts == {**before.prompts, "default": "a "} and other.default_prompt_name == "default"


def test_a_prompt_that_is_not_pooled_is_refused(saved: Path, tmp_path: Path) -> None:
    written(saved, "1_Pooling/config.json", include_prompt=False)
    agree(saved, tmp_path / "again")
    assert json.loads((tmp_path / "again/1_Pooling/config.json").read_text(encoding="utf-8"))["include_prompt"] is False
    written(saved, "config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="query")
    refused(saved, "include_prompt")
    BiEncoder.from_pretrained(str(saved), prompt="")
    BiEncoder.check(str(saved), prompt="")


def test_what_a_run_says_of_the_layout_stays_when_it_starts_from_a_cross_encoder(saved: Path, tmp_path: Path) -> None:
    written(saved, "config_sentence_transformers.json", prompts={"query": "the router "})
    CrossEncoder.from_pretrained(str(saved)).save_pretrained(tmp_path / "cross")
    layout = resolve_checkpoint(str(saved)).layout
    encoder = BiEncoder.from_pretrained(str(tmp_path / "cross"), from_cross_encoder=True, layout=layout)
    encoder.save_pretrained(tmp_path / "bi")
    assert SentenceTransformer(str(tmp_path / "bi"), device="cpu").prompts["query"] == "the router "


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "similarity_fn_name"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "euclidean"}, "similarity_fn_name"),
        ("config_sentence_transformers.json", {"truncate_dim": 8}, "truncate_dim"),
        ("config_sentence_transformers.json", {"prompts": ["query"]}, "prompts"),
        ("config_sentence_transformers.json", {"prompts": {"query": 7}}, "query"),
        ("config_sentence_transformers.json", {"default_prompt_name": "other"}, "default_prompt_name"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 4}}}, "processing_kwargs"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed", "length": 8}}, "query_expansion"),
        ("sentence_bert_config.json", {"config_args": {"is_causal": False}}, "config_args"),
        ("sentence_bert_config.json", {"tokenizer_args": {"add_eos_token": True}}, "tokenizer_args"),
        ("sentence_bert_config.json", {"model_args": ["a"]}, "model_args"),
        ("sentence_bert_config.json", {"a_key_of_tomorrow": 1}, "a_key_of_tomorrow"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pooling"),
        ("1_Pooling/config.json", {"include_prompt": "no"}, "include_prompt"),
    ],
)
def test_what_would_be_lost_or_is_wrong_is_named(saved: Path, file: str, values: dict[str, Any], words: str) -> None:
    written(saved, file, **values)
    refused(saved, words)


MODULE = "sentence_transformers.models"


@pytest.mark.parametrize(
    "modules",
    [
        "{}",
        "[7]",
        '[{"type": "sentence_transformers.models.Transformer"}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": "nowhere"}]',
        '[{"type": "custom_st.Transformer", "path": ""}]',
        '[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]',
        '[{"type": "sentence_transformers.models.StaticEmbedding", "path": ""}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": ""},'
        ' {"type": "sentence_transformers.models.Pooling", "path": "2_Pooling"}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": "", "kwargs": ["task"]}]',
    ],
)
def test_a_list_of_modules_that_cannot_be_used_is_refused(saved: Path, modules: str) -> None:
    (saved / "modules.json").write_text(modules)
    refused(saved)


@pytest.mark.parametrize(
    "file", ["modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json"]
)
@pytest.mark.parametrize("content", ["{", "[[]]", "\xff"])
def test_a_file_that_is_no_json_of_its_kind_is_named(saved: Path, file: str, content: str) -> None:
    (saved / file).write_text(content, encoding="latin-1")
    refused(saved, file.rpartition("/")[2] if content != "[[]]" else "")


@pytest.mark.parametrize("module", [lambda size: Dense(size, 8), lambda size: Normalize("token_embeddings")])
def test_a_module_that_changes_vectors_is_refused(saved: Path, module: Callable[[int], Any]) -> None:
    model = SentenceTransformer(str(saved), device="cpu")
    size = model.get_embedding_dimension()
    SentenceTransformer(modules=[*model, module(size)], device="cpu").save(str(saved))
    refused(saved)


def test_a_cross_encoders_prompt_is_refused(models: dict[str, str], tmp_path: Path) -> None:
    model = TheirCrossEncoder(models["bert"], num_labels=1, device="cpu", prompts={"q": "the router "})
    model.save_pretrained(str(tmp_path / "named"))
    scores = model.predict(list(zip(*PAIRS.values(), strict=True)))
    np.testing.assert_allclose(ours(tmp_path / "named", max_length=64), scores, rtol=0, atol=1e-5)
    model.default_prompt_name = "q"
    model.save_pretrained(str(tmp_path / "default"))
    for function in (CrossEncoder.check, check_encoder, CrossEncoder.from_pretrained):
        with pytest.raises(InputError, match="default_prompt_name"):
            function(str(tmp_path / "default"))


def test_folders_are_left_as_they_are(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    ours(saved)
    for path in copy.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (saved / path.relative_to(copy)).read_bytes()
