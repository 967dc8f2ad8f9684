"""Decoder-only PLMs: where sentences end, what is read off them, and that everybody reads the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from conftest import sample_pairs
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_decoders import byte_level, config_of, save_decoder
from tokenizers import processors
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    set_seed,
)

from te_trainer.config.schema import LoraConfig
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.bi_encoder import pool
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.encoder import load_encoder
from te_trainer.models.lora import merge_saved, peft_config
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)

PAIRS = [*sample_pairs(20), ("why", "why is my router so slow"), ("no", "no"), (sample_pairs(1)[0][0] * 9, "why")]
COLUMNS = {"sentence1": [one for one, _ in PAIRS], "sentence2": [two for _, two in PAIRS]}
PLMS = ["gpt2", "gpt_neox", "llama", "qwen2"]  # the tokenizer of one makes its post-processor anew when it is loaded


@pytest.fixture(scope="module")
def plms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny causal language models, by type."""
    folder = tmp_path_factory.mktemp("decoders")
    return {plm: str(save_decoder(folder / plm, plm)) for plm in PLMS}


def cross_encoder(folder: str) -> CrossEncoder:
    set_seed(1)
    return CrossEncoder.from_pretrained(folder)


# ------------------------------------------------------------ tokens


@pytest.mark.parametrize("plm", PLMS)
def test_a_sentence_ends_with_eos_and_a_pair_has_two_of_them(plm: str, plms: dict[str, str]) -> None:
    tokenizer = resolve_checkpoint(plms[plm]).load_tokenizer()
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("router", "printer"))
    eos, start = tokenizer.eos_token_id, [tokenizer.bos_token_id] if plm == "llama" else []
    assert tokenizer.eos_token == ("</s>" if plm == "llama" else "<|endoftext|>")
    # padding is a token that ends nothing where there is one
    assert tokenizer.pad_token == ("<unk>" if plm == "llama" else "<|endoftext|>")
    assert tokenizer("router")["input_ids"] == [*start, *one, eos]
    assert tokenizer("router", "printer")["input_ids"] == [*start, *one, eos, *start, *two, eos]
    cut = tokenizer("router " * 50, "printer " * 50, truncation="longest_first", max_length=20)["input_ids"]
    assert len(cut) == 20
    assert cut[-1] == eos and cut.count(eos) == 2


@pytest.mark.parametrize("plm", PLMS)
@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
def test_a_saved_tokenizer_gives_the_same_ids_to_everybody(
    plm: str, kind: Any, plms: dict[str, str], tmp_path: Path
) -> None:
    encoder = kind.from_pretrained(plms[plm])
    encoder.save_pretrained(tmp_path)
    for again in (AutoTokenizer.from_pretrained(tmp_path), resolve_checkpoint(str(tmp_path)).load_tokenizer()):
        for texts in zip(*PAIRS, strict=True):
            assert again(list(texts))["input_ids"] == encoder.tokenizer(list(texts))["input_ids"]
        columns = [COLUMNS["sentence1"], COLUMNS["sentence2"]]
        assert again(*columns)["input_ids"] == encoder.tokenizer(*columns)["input_ids"]
        assert (again.pad_token, again.padding_side) == (encoder.tokenizer.pad_token, "right")


@pytest.mark.parametrize("pair", ["<s> $A </s> $B </s>", "<s> $A </s> <s> $B </s>", "<s> $A <sep> $B </s>"])
def test_a_tokenizer_that_separates_is_left_alone(pair: str, plms: dict[str, str], tmp_path: Path) -> None:
    special = ["<unk>", "<s>", "</s>", "<sep>"]
    backend = byte_level(special)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[(token, backend.token_to_id(token)) for token in special]
    )
    plain = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    AutoModelForCausalLM.from_config(config_of("llama", len(plain))).save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    tokenizer = resolve_checkpoint(str(tmp_path)).load_tokenizer()
    for texts in (["router"], ["router", "printer"]):
        assert tokenizer(*texts)["input_ids"] == plain(*texts)["input_ids"]


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_a_decoder_that_was_trained_reads_texts_as_it_learnt_to(
    pooling: str, plms: dict[str, str], tmp_path: Path
) -> None:
    transformer = Transformer(plms["qwen2"])
    transformer.tokenizer.pad_token = "<|endoftext|>"
    theirs = sentence_transformers.SentenceTransformer(modules=[transformer, Pooling(32, pooling)], device="cpu")
    theirs.save(str(tmp_path / "bi"))
    ours = load_encoder(str(tmp_path / "bi"))
    assert isinstance(ours, BiEncoder) and ours.pooling == pooling.removesuffix("token")
    assert ours.tokenizer("router")["input_ids"] == theirs.tokenizer("router")["input_ids"]
    one, two = (theirs.encode(texts) for texts in COLUMNS.values())
    cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    np.testing.assert_allclose(score_pairs(ours, COLUMNS), cosines, rtol=0, atol=1e-5)
    # pairs, which it has not learnt to read, are separated
    eos = ours.tokenizer.eos_token_id
    assert resolve_checkpoint(str(tmp_path / "bi")).load_tokenizer()("router", "printer")["input_ids"].count(eos) == 2


def test_a_decoder_that_scores_pairs_reads_them_as_it_learnt_to(plms: dict[str, str], tmp_path: Path) -> None:
    cross_encoder(plms["qwen2"]).model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(plms["qwen2"])
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(score_pairs(load_encoder(str(tmp_path)), COLUMNS), theirs, rtol=0, atol=1e-5)


def test_a_tokenizer_without_eos_is_refused(plms: dict[str, str], tmp_path: Path) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=byte_level(["<unk>"]), unk_token="<unk>")
    AutoModelForCausalLM.from_config(config_of("llama", len(plain))).save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    for kind in (BiEncoder, CrossEncoder):
        with pytest.raises(InputError, match="its tokenizer has no EOS token"):
            kind.from_pretrained(str(tmp_path))


# ------------------------------------------------------------ vectors and logits


def test_the_last_real_token_is_taken_on_either_side_of_the_padding() -> None:
    hidden = torch.arange(24.0).reshape(2, 4, 3).bfloat16()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    assert pool(hidden, mask, "last").tolist() == [[6, 7, 8], [21, 22, 23]]
    assert pool(hidden, mask.flip(1), "last").tolist() == [[9, 10, 11], [21, 22, 23]]
    assert pool(hidden, mask.flip(1), "cls").tolist() == [[3, 4, 5], [12, 13, 14]]
    assert pool(hidden, mask, "last").dtype == torch.float32


def padded(encoder: Encoder, side: str, compute: Callable[..., Tensor]) -> Tensor:
    """All pairs in one batch."""
    encoder.model.eval()
    encoder.tokenizer.padding_side = side
    texts = (COLUMNS["sentence1"],) if isinstance(encoder, BiEncoder) else tuple(COLUMNS.values())
    with torch.inference_mode():
        return compute(
            **encoder.tokenizer(
                *texts, padding=True, truncation=True, max_length=encoder.max_length, return_tensors="pt"
            )
        )


def one_by_one(encoder: Encoder, compute: Callable[..., Tensor]) -> Tensor:
    encoder.model.eval()
    found = []
    for one, two in PAIRS:
        texts = (one,) if isinstance(encoder, BiEncoder) else (one, two)
        with torch.inference_mode():
            found.append(
                compute(
                    **encoder.tokenizer(*texts, truncation=True, max_length=encoder.max_length, return_tensors="pt")
                )
            )
    return torch.cat(found)


@pytest.mark.parametrize("plm", PLMS)
@pytest.mark.parametrize("pooling", ["last", "mean", "cls"])
def test_padding_changes_no_vector(plm: str, pooling: Any, plms: dict[str, str]) -> None:
    encoder = BiEncoder.from_pretrained(plms[plm], pooling=pooling)
    sides = [encoder.tokenizer.padding_side]
    if plm != "gpt2":  # its positions are absolute, which is why encoders are padded on the right
        sides.append("left")
    for side in sides:
        vectors = padded(encoder, side, encoder.embed)
        torch.testing.assert_close(vectors, one_by_one(encoder, encoder.embed), rtol=0, atol=1e-4)


@pytest.mark.parametrize("plm", PLMS)
def test_padding_changes_no_logit(plm: str, plms: dict[str, str]) -> None:
    encoder = cross_encoder(plms[plm])
    for side in ["right"] if plm == "gpt2" else ["right", "left"]:
        logits = padded(encoder, side, encoder.logits)
        assert logits.std() > 0.01
        torch.testing.assert_close(logits, one_by_one(encoder, encoder.logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("plm", PLMS)
def test_sentence_transformers_gives_the_same_vectors(plm: str, plms: dict[str, str], tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(plms[plm])
    assert encoder.pooling == "last"
    encoder.save_pretrained(tmp_path)
    assert BiEncoder.from_pretrained(str(tmp_path)).pooling == "last"
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    one, two = (theirs.encode(texts) for texts in COLUMNS.values())
    ours = score_pairs(encoder, COLUMNS, batch_tokens=300)
    np.testing.assert_allclose(ours, theirs.similarity_pairwise(one, two).numpy(), rtol=0, atol=1e-5)
    assert np.ptp(ours) > 0.1
    vectors = padded(encoder, "right", encoder.embed).numpy()
    np.testing.assert_allclose(vectors, one, rtol=0, atol=1e-4)


@pytest.mark.parametrize("plm", PLMS)
def test_sentence_transformers_gives_the_same_scores(plm: str, plms: dict[str, str], tmp_path: Path) -> None:
    encoder = cross_encoder(plms[plm])
    ours = score_pairs(encoder, COLUMNS, batch_tokens=300)
    encoder.save_pretrained(tmp_path)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    np.testing.assert_allclose(ours, theirs.predict(PAIRS), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(score_pairs(cross_encoder(str(tmp_path)), COLUMNS), score_pairs(encoder, COLUMNS))
    assert np.ptp(ours) > 0.01


# ------------------------------------------------------------ training


def trainer_of(encoder: Encoder, output: Path, **more: Any) -> Any:
    labels = np.random.default_rng(0).permutation(len(PAIRS)) / len(PAIRS)
    pairs = Dataset.from_dict({**COLUMNS, "label": labels})
    values: dict[str, Any] = {
        "output_dir": str(output),
        "precision": "float32",
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "max_steps": 8,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if isinstance(encoder, BiEncoder):
        return BiEncoderTrainer(encoder, BiEncoderTrainingArguments(**values), pairs, **more)
    return CrossEncoderTrainer(encoder, CrossEncoderTrainingArguments(**values), pairs, **more)


@pytest.mark.parametrize("plm", ["gpt2", "llama"])
@pytest.mark.parametrize("load", [BiEncoder.from_pretrained, cross_encoder])
def test_every_weight_is_trained(plm: str, load: Any, plms: dict[str, str], tmp_path: Path) -> None:
    trainer = trainer_of(load(plms[plm]), tmp_path)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert [name for name, weight in trainer.model.named_parameters() if torch.equal(before[name], weight)] == []


@pytest.mark.parametrize("plm", ["gpt2", "llama"])
@pytest.mark.parametrize("load", [BiEncoder.from_pretrained, cross_encoder])
def test_an_adapter_is_trained_and_merged_without_a_difference(
    plm: str, load: Any, plms: dict[str, str], tmp_path: Path
) -> None:
    encoder = load(plms[plm])
    before = score_pairs(encoder, COLUMNS)
    settings = peft_config(encoder.model, encoder.kind, LoraConfig(rank=4))
    trainer = trainer_of(encoder, tmp_path / "training", peft_config=settings)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    adapted = score_pairs(encoder, COLUMNS)
    assert np.abs(adapted - before).max() > 0.01
    merged = load(plms[plm])
    merge_saved(merged, tmp_path / "adapter")
    np.testing.assert_allclose(score_pairs(merged, COLUMNS), adapted, rtol=0, atol=1e-5)


def test_a_bidirectional_plm_is_none_of_this(tiny: Path) -> None:
    """BERT has a causal class too."""
    encoder = BiEncoder.from_pretrained(str(tiny))
    assert isinstance(encoder.model, BertModel)
    assert encoder.pooling == "cls"
    assert encoder.tokenizer.pad_token == "[PAD]"


def test_a_bert_that_is_told_to_be_a_decoder_is_one(tiny: Path, tmp_path: Path) -> None:
    """Its first token sees no other, so that vectors and logits of it would all be the same."""
    folder = shutil.copytree(tiny, tmp_path / "start")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"is_decoder": True}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    encoder = BiEncoder.from_pretrained(str(folder))
    assert encoder.pooling == "last" and encoder.tokenizer("a")["input_ids"][-1] == encoder.tokenizer.sep_token_id
    ours = score_pairs(encoder, COLUMNS)
    assert np.ptp(ours) > 1e-3
    encoder.save_pretrained(tmp_path / "saved")
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    cosines = theirs.similarity_pairwise(*(theirs.encode(texts) for texts in COLUMNS.values()))
    np.testing.assert_allclose(ours, cosines, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match=r"the first token of a bert, .* sees no other; set is_decoder to false"):
        CrossEncoder.check(str(folder))


# ------------------------------------------------------------ chats, and weights of eight bits

CHAT = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"


def with_template(folder: Path) -> Path:
    save_decoder(folder, "qwen2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def test_sentence_transformers_makes_no_chat_of_what_is_saved(tmp_path: Path) -> None:
    start = str(with_template(tmp_path / "start"))
    set_seed(1)
    cross = CrossEncoder.from_pretrained(start)
    cross.activate_with("identity")
    cross.save_pretrained(tmp_path / "cross-encoder")
    theirs = sentence_transformers.CrossEncoder(str(tmp_path / "cross-encoder"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(theirs, score_pairs(cross, COLUMNS), rtol=1e-4, atol=1e-5)
    bi = BiEncoder.from_pretrained(start)
    bi.save_pretrained(tmp_path / "bi-encoder")
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "bi-encoder"), device="cpu")
    cosines = model.similarity_pairwise(*(model.encode(texts) for texts in COLUMNS.values()))
    np.testing.assert_allclose(cosines, score_pairs(bi, COLUMNS), rtol=1e-4, atol=1e-5)


def test_encoders_of_chats_are_refused(tmp_path: Path) -> None:
    start = with_template(tmp_path / "start")
    sentence_transformers.SentenceTransformer(str(start), device="cpu").save_pretrained(str(tmp_path / "bi-encoder"))
    with pytest.raises(InputError, match=r"modality_config in sentence_bert_config\.json would be lost"):
        BiEncoder.check(str(tmp_path / "bi-encoder"))
    AutoModelForSequenceClassification.from_pretrained(start, num_labels=1).save_pretrained(tmp_path / "cross-encoder")
    AutoTokenizer.from_pretrained(start).save_pretrained(tmp_path / "cross-encoder")
    with pytest.raises(InputError, match="its tokenizer has a chat template"):
        CrossEncoder.check(str(tmp_path / "cross-encoder"))


def test_a_template_that_sentence_transformers_does_not_use_is_none(tmp_path: Path) -> None:
    """What it has saved says so, whether a chat is among what the model reads."""
    start = with_template(tmp_path / "start")
    AutoModelForSequenceClassification.from_pretrained(start, num_labels=1).save_pretrained(start)
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = None
    tokenizer.save_pretrained(start)
    (start / "chat_template.jinja").unlink(missing_ok=True)
    theirs = sentence_transformers.CrossEncoder(str(start), device="cpu")
    theirs.model.config.pad_token_id = tokenizer.pad_token_id
    theirs.tokenizer.chat_template = CHAT  # after it has seen that it reads texts alone
    theirs.save_pretrained(str(tmp_path / "trained"))
    assert AutoTokenizer.from_pretrained(tmp_path / "trained").chat_template is not None
    CrossEncoder.check(str(tmp_path / "trained"))
    scores = sentence_transformers.CrossEncoder(str(tmp_path / "trained"), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(score_pairs(load_encoder(str(tmp_path / "trained")), COLUMNS), scores, atol=1e-5)
    (tmp_path / "trained" / "modules.json").unlink()
    with pytest.raises(InputError, match="its tokenizer has a chat template"):
        CrossEncoder.check(str(tmp_path / "trained"))


def test_what_is_saved_of_a_float8_checkpoint_is_float32(tmp_path: Path) -> None:
    """As `Qwen/Qwen3-0.6B-FP8` is made."""
    tokenizer = AutoTokenizer.from_pretrained(save_decoder(tmp_path / "qwen2", "qwen2"))
    sizes = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=32, intermediate_size=128, **sizes)
    set_seed(0)
    start = tmp_path / "start"
    AutoModelForCausalLM.from_config(config).save_pretrained(start)
    tokenizer.save_pretrained(start)
    weights = {}
    for name, weight in load_file(start / "model.safetensors").items():
        weights[name] = weight
        if weight.ndim == 2 and "embed" not in name and "lm_head" not in name:
            scale = weight.abs().max() / 448
            weights[name] = (weight / scale).to(torch.float8_e4m3fn)
            weights[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "fmt": "e4m3"}
    content = json.loads((start / "config.json").read_text(encoding="utf-8")) | {"quantization_config": how}
    (start / "config.json").write_text(json.dumps(content), encoding="utf-8")
    encoder = BiEncoder.from_pretrained(str(start))
    encoder.save_pretrained(tmp_path / "saved")
    assert {weight.dtype for weight in load_file(tmp_path / "saved" / "model.safetensors").values()} == {torch.float32}
    scores = score_pairs(encoder, COLUMNS)
    np.testing.assert_allclose(score_pairs(BiEncoder.from_pretrained(str(tmp_path / "saved")), COLUMNS), scores)
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    cosines = model.similarity_pairwise(*(model.encode(texts) for texts in COLUMNS.values()))
    np.testing.assert_allclose(cosines, scores, rtol=1e-4, atol=1e-5)
