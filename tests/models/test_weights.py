"""A checkpoint whose weights are not those of its model is refused before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import build_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
)

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.encoder import check_encoder, load_encoder

Weights = dict[str, torch.Tensor]


def changed(start: Path, folder: Path, change: Callable[[Weights], Weights]) -> str:
    shutil.copytree(start, folder)
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return str(folder)


def with_config(start: Path, folder: Path, **values: Any) -> str:
    shutil.copytree(start, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return str(folder)


def refusal(function: Callable[[str], Any], folder: str) -> str:
    with pytest.raises(InputError) as error:
        function(folder)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def save(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def sizes() -> dict[str, int]:
    return {
        "vocab_size": len(build_tokenizer()),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 70,
    }


# ---------------------------------------------------------------- weights that are not there


WAYS: dict[str, tuple[Callable[[Weights], Weights], str, str]] = {
    "prefixed": (
        lambda weights: {f"module.{key}": weight for key, weight in weights.items()},
        "lacks 37 of the 39 weights of a BertModel, embeddings.word_embeddings.weight among them",
        "module.",
    ),
    "renamed": (
        lambda weights: {key.replace("intermediate.dense", "mlp.up"): weight for key, weight in weights.items()},
        "lacks 4 of the 39 weights",
        "encoder.layer.0.intermediate.dense.weight",
    ),
    "one lost": (
        lambda weights: {key: weight for key, weight in weights.items() if key != "embeddings.LayerNorm.bias"},
        "lacks 1 of the 39 weights",
        "embeddings.LayerNorm.bias",
    ),
    "another size": (
        lambda weights: weights | {"embeddings.position_embeddings.weight": torch.zeros(64, 32)},
        "embeddings.position_embeddings.weight is 64 x 32 in its file, but 130 x 32",
        "",
    ),
    "a layer too many": (
        lambda weights: (
            weights | {key.replace("layer.1", "layer.2"): w.clone() for key, w in weights.items() if ".layer.1." in key}
        ),
        "holds 16 weights that a BertModel of its configuration does not have",
        "encoder.layer.2.",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_weights_that_do_not_fit_are_refused_in_preparation_and_when_loaded(
    tiny: Path, tmp_path: Path, way: str
) -> None:
    change, said, named = WAYS[way]
    folder = changed(tiny, tmp_path / "model", change)
    sentence = refusal(BiEncoder.check, folder)
    assert said in sentence and named in sentence and folder in sentence
    assert refusal(check_encoder, folder) == sentence
    refusal(CrossEncoder.check, folder)
    for load in (BiEncoder.from_pretrained, CrossEncoder.from_pretrained, load_encoder):
        refusal(load, folder)


def test_a_cross_encoder_without_its_head_or_its_pooler_is_refused(tmp_path: Path) -> None:
    whole = save(BertForSequenceClassification(BertConfig(**sizes(), num_labels=1)), tmp_path / "whole")
    assert check_encoder(str(whole)) == "cross-encoder"
    for part in ("classifier", "bert.pooler"):

        def without(weights: Weights, part: str = part) -> Weights:
            return {key: weight for key, weight in weights.items() if not key.startswith(part)}

        folder = changed(whole, tmp_path / part, without)
        for function in (check_encoder, CrossEncoder.check, CrossEncoder.from_pretrained):
            sentence = refusal(function, folder)
            assert "lacks 2 of the 41 weights of a BertForSequenceClassification" in sentence
            assert f"{part}." in sentence


def test_a_plain_plm_may_get_a_head_and_a_pooler(tmp_path: Path) -> None:
    config = BertConfig(**sizes())
    for name, model in {
        "pre-trained": BertForMaskedLM(config),
        "without pooler": BertModel(config, add_pooling_layer=False),
        "distilbert": DistilBertModel(
            DistilBertConfig(vocab_size=config.vocab_size, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
        ),
    }.items():
        folder = str(save(model, tmp_path / name))
        BiEncoder.check(folder)
        CrossEncoder.check(folder)
        BiEncoder.from_pretrained(folder)
        CrossEncoder.from_pretrained(folder)


def test_a_head_that_the_configuration_does_not_name_makes_no_start(tmp_path: Path) -> None:
    """Taken for a bi-encoder, a cross-encoder would give vectors that mean nothing."""
    folder = save(BertForSequenceClassification(BertConfig(**sizes(), num_labels=1)), tmp_path / "whole")
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for named, kind in ((None, ""), ("BertForSequenceClassification", "cross-encoder"), ("BertModel", "bi-encoder")):
        path.write_text(json.dumps(content | {"architectures": named and [named]}), encoding="utf-8")
        if named is None:
            for function in (check_encoder, BiEncoder.check, BiEncoder.from_pretrained):
                sentence = refusal(function, str(folder))
                assert "no architectures, and the weights have a head (classifier.bias)" in sentence
                assert '["BertForSequenceClassification"] if it scores pairs, or ["BertModel"] if' in sentence
        else:
            assert check_encoder(str(folder)) == kind
    # without a head, a configuration need not name anything
    plain = save(BertModel(BertConfig(**sizes())), tmp_path / "plain")
    (plain / "config.json").write_text(json.dumps(content | {"architectures": None}), encoding="utf-8")
    assert check_encoder(str(plain)) == "bi-encoder"


# ---------------------------------------------------------------- files


class Stub:
    """Something that only a pickle of everything holds."""


@pytest.mark.parametrize("encoder", ["bert/bi-encoder", "bi-encoder"])
def test_a_runs_folder_is_no_model_and_an_encoder_in_it_is_named(tiny: Path, tmp_path: Path, encoder: str) -> None:
    shutil.copytree(tiny, tmp_path / encoder)
    (tmp_path / "run.yaml").write_text("seed: 1\n")
    sentence = refusal(resolve_checkpoint, str(tmp_path))
    assert sentence.endswith(f"output folder, not a model; name an encoder in it, such as {tmp_path / encoder}")
    (tmp_path / encoder / "run.yaml").write_text("seed: 1\n")
    assert resolve_checkpoint(str(tmp_path / encoder)).kind == "bi-encoder"


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 17\n"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named(tiny: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    if file.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    (folder / file).write_text(LFS)
    for function in (BiEncoder.check, CrossEncoder.check):
        sentence = refusal(function, str(folder))
        assert f"{file} is a git-lfs pointer" in sentence and "git lfs pull" in sentence


@pytest.mark.parametrize("file", ["pytorch_model.bin", "architecture.png"])
def test_a_pointer_to_what_nobody_reads_is_no_reason_to_refuse(tiny: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / file).write_text(LFS)
    BiEncoder.check(str(folder))
    BiEncoder.from_pretrained(str(folder))


def test_a_configuration_that_asks_for_tuples_is_read(tiny: Path, tmp_path: Path) -> None:
    folder = with_config(tiny, tmp_path / "model", return_dict=False)
    pairs = {"sentence1": ["the router is slow"], "sentence2": ["why is my router slow"]}
    for load in (BiEncoder.from_pretrained, CrossEncoder.from_pretrained):
        assert score_pairs(load(folder), pairs).shape == (1,)


@pytest.mark.parametrize("key", ["output_attentions", "output_hidden_states"])
def test_what_more_a_configuration_asks_for_is_neither_computed_nor_saved(tiny: Path, tmp_path: Path, key: str) -> None:
    folder = with_config(tiny, tmp_path / "model", **{key: True})
    pairs = {"sentence1": ["the router is slow"], "sentence2": ["why is my router slow"]}
    for kind in (BiEncoder, CrossEncoder):
        kind.check(folder)
        encoder = kind.from_pretrained(folder)
        score = score_pairs(encoder, pairs)
        encoder.save_pretrained(tmp_path / encoder.kind)
        saved = json.loads((tmp_path / encoder.kind / "config.json").read_text(encoding="utf-8"))
        assert not saved.get(key)
        assert score_pairs(load_encoder(str(tmp_path / encoder.kind)), pairs) == score


def test_pickles_are_read_where_they_hold_weights_alone(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    # what a Trainer leaves beside a model is no weight file
    torch.save(Stub(), folder / "training_args.bin")
    torch.save(weights, folder / "pytorch_model.bin")
    BiEncoder.check(str(folder))
    torch.save(Stub(), folder / "pytorch_model.bin")
    for function in (BiEncoder.check, CrossEncoder.check, BiEncoder.from_pretrained):
        sentence = refusal(function, str(folder))
        assert "a file of PyTorch is broken, or holds more than weights" in sentence and "weights_only" not in sentence


def test_shards_are_all_looked_at(tiny: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny).save_pretrained(tmp_path, max_shard_size="20KB")
    build_tokenizer().save_pretrained(tmp_path)
    BiEncoder.check(str(tmp_path))
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].write_bytes(shards[-1].read_bytes()[:-10])
    damaged = refusal(BiEncoder.check, str(tmp_path))
    assert f"{shards[-1].name} is damaged or cut short (" in damaged and damaged.endswith("; copy it again")
    shards[-1].write_text(LFS)
    assert f"{shards[-1].name} is a git-lfs pointer" in refusal(BiEncoder.check, str(tmp_path))
    shards[-1].unlink()
    missing = refusal(BiEncoder.check, str(tmp_path))
    assert missing.endswith(f": {shards[-1].name} of its weights is missing; copy it again")
    (tmp_path / "model.safetensors.index.json").write_text("{")
    refusal(BiEncoder.check, str(tmp_path))


@pytest.mark.parametrize("other", ["tf_model.h5", "onnx/model.onnx", "model.gguf"])
def test_weights_that_are_not_pytorchs_are_not_read(tiny: Path, tmp_path: Path, other: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / other).parent.mkdir(exist_ok=True)
    (folder / "model.safetensors").rename(folder / other)
    for function in (BiEncoder.check, CrossEncoder.check, BiEncoder.from_pretrained):
        sentence = refusal(function, str(folder))
        assert "it has no weights for PyTorch, model.safetensors or pytorch_model.bin" in sentence
        assert sentence.endswith("; name a checkpoint that has them")


@pytest.mark.parametrize("part", [0.0, 0.5])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_cut_short_are_to_be_had_again(tiny: Path, tmp_path: Path, file: str, part: float) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    if file == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), folder / file)
        (folder / "model.safetensors").unlink()
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: int(len(whole) * part)])
    said = f"{file} is damaged or cut short (" if file == "model.safetensors" else "a file of PyTorch is broken"
    for function in (BiEncoder.check, BiEncoder.from_pretrained):
        assert refusal(function, str(folder)).startswith(f"model {folder}: {said}")


@pytest.mark.parametrize("config", [True, False])
def test_the_folder_of_an_adapter_is_named(tiny: Path, tmp_path: Path, config: bool) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base", "peft_type": "LORA"}))
    if not config:
        (folder / "config.json").unlink()
    for function in (BiEncoder.check, CrossEncoder.check, check_encoder, BiEncoder.from_pretrained):
        assert "peft adapter (adapter_config.json)" in refusal(function, str(folder))


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_attention_heads", 0),
        ("hidden_size", 2**27),
        ("vocab_size", "many"),
        ("vocab_size", -1),
        ("hidden_act", "x"),
    ],
)
def test_a_configuration_of_another_model_or_of_none_is_refused(
    tiny: Path, tmp_path: Path, key: str, value: Any
) -> None:
    folder = with_config(tiny, tmp_path / "model", **{key: value})
    for function in (BiEncoder.check, CrossEncoder.check, BiEncoder.from_pretrained, CrossEncoder.from_pretrained):
        assert refusal(function, folder).startswith(f"model {folder}: ")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"hidden_act": "superlu"},
            "hidden_act in config.json is 'superlu', which transformers does not know; correct",
        ),
        (
            {"hidden_size": "32"},
            "its config.json makes no model (Validation error for field 'hidden_size': TypeError: ",
        ),
        (
            {"num_attention_heads": 5},
            "number of attention heads (5)); correct config.json, or name another checkpoint",
        ),
        ({"model_type": "superbert9"}, "model_type in config.json is 'superbert9', which transformers "),
        (
            {"model_type": None},
            "no model in that folder or repository (config.json has no model_type); add it, or name",
        ),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "); install what it needs, or name another checkpoint",
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_with_its_mend(
    tiny: Path, tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(BiEncoder.check, with_config(tiny, tmp_path / "model", **values))


def test_a_folder_without_a_configuration_is_no_model_whatever_its_name(tiny: Path, tmp_path: Path) -> None:
    """transformers takes a type that stands in the path."""
    folder = shutil.copytree(tiny, tmp_path / "bert")
    (folder / "config.json").unlink()
    sentence = refusal(resolve_checkpoint, str(folder))
    assert "no model in that folder or repository (it holds no config.json); name one" in sentence


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "\xff", '{"model_type": 5}'])
def test_a_configuration_that_is_none_is_named(tiny: Path, tmp_path: Path, content: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / "config.json").write_text(content, encoding="latin-1")
    assert refusal(BiEncoder.check, str(folder)).startswith(f"model {folder}: ")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", '{"model_max_length": "long"}'])
def test_a_tokenizer_that_is_none_is_named(tiny: Path, tmp_path: Path, file: str, content: str) -> None:
    folder = shutil.copytree(tiny, tmp_path / "model")
    (folder / file).write_text(content)
    for function in (BiEncoder.check, CrossEncoder.check, check_encoder):
        assert refusal(function, str(folder)).startswith(f"model {folder}: ")


def test_code_of_its_own_is_never_asked_for(tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    folder = with_config(tiny, tmp_path / "unknown", model_type="own_bert", auto_map=own)
    for function in (resolve_checkpoint, BiEncoder.check, check_encoder):
        assert "needs code of its own (auto_map in config.json), which te_trainer does not run" in refusal(
            function, folder
        )
    known = with_config(tiny, tmp_path / "known", auto_map=own)
    BiEncoder.check(known)
    CrossEncoder.check(known)
    tokens = shutil.copytree(tiny, tmp_path / "tokens")
    path = tokens / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    path.write_text(json.dumps(content), encoding="utf-8")
    # tokenizer.json says it all
    BiEncoder.check(str(tokens))
    (tokens / "tokenizer.json").rename(tokens / "own.model")
    assert "holds no tokenizer" in refusal(BiEncoder.check, str(tokens))
    assert "y/N" not in "".join(capfd.readouterr())
