"""LoRA: what is trained, that an adapter resumes and merges without a difference, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny_trainings import KINDS, At, Killed, kill, labelled, load, same
from tiny_trainings import trainer_of as any_trainer_of
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    MixtralConfig,
    SqueezeBertConfig,
    TrainerCallback,
    set_seed,
)

from te_trainer.config.schema import LoraConfig
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import Encoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.lora import merge_saved, parameter_counts, peft_config, put_adapters
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint

SETTINGS = LoraConfig(rank=4)
AUTO: dict[str, Any] = {"bi-encoder": AutoModel, "cross-encoder": AutoModelForSequenceClassification}
ADAPTER = "adapter_model.safetensors"
# a bi-encoder has no head, in which the two would differ
PLMS = [("bert", "bi-encoder"), ("bert", "cross-encoder"), ("roberta", "cross-encoder")]


def trainer_of(
    encoder: Encoder, output: Path, dev: Dataset | None = None, train: Dataset | None = None, **values: Any
) -> Any:
    """A trainer of adapters, five steps an epoch."""
    values = {"learning_rate": 3e-3, **values}
    return any_trainer_of(encoder, output, train or labelled(), dev, peft=SETTINGS, **values)


def trained_weights(trainer: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad}


# ------------------------------------------------------------ what is trained


@pytest.mark.parametrize(("plm", "kind"), PLMS)
def test_adapters_and_the_whole_head_are_trained_and_nothing_else(
    plm: str, kind: str, starts: dict[str, str], tmp_path: Path
) -> None:
    encoder = load(kind, starts[plm])
    trainer = trainer_of(encoder, tmp_path, num_train_epochs=1)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, weight in trainer.model.named_parameters() if not torch.equal(before[name], weight)}
    assert changed == {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    beside_adapters = {name.split(".modules_to_save.default.")[0] for name in changed if "lora_" not in name}
    # one head is a layer behind a pooler, the other has two layers of its own
    heads = {"bert": {"bert.pooler", "classifier"}, "roberta": {"classifier"}}[plm]
    assert beside_adapters == ({f"base_model.model.{head}" for head in heads} if kind == "cross-encoder" else set())
    assert len([name for name in changed if "lora_" in name]) == 2 * 2 * 6  # two matrices for six layers of each block


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_as_they_are_in_the_plain_model(kind: str, start: str) -> None:
    plain = load(kind, start).model
    empty = resolve_checkpoint(start).empty_model(kind)  # type: ignore[arg-type]
    adapted: Any = put_adapters(empty, kind, SETTINGS, "bert")  # type: ignore[arg-type]
    trainable, total = parameter_counts(adapted)
    lora = sum(weight.numel() for name, weight in adapted.named_parameters() if "lora_" in name)
    head = sum(
        weight.numel() for name, weight in plain.named_parameters() if name.startswith(("classifier", "bert.pooler"))
    )
    assert (trainable, total) == (lora + head, lora + plain.num_parameters())
    assert lora == 2 * (4 * 4 * (32 + 32) + 2 * 4 * (32 + 64))  # rank 4; hidden size 32, intermediate size 64
    assert parameter_counts(plain) == (plain.num_parameters(),) * 2


def test_what_is_configured_reaches_peft(start: str) -> None:
    model = load("bi-encoder", start).model
    settings = LoraConfig(rank=3, alpha=5, dropout=0.2, target_modules="query")
    found = peft_config(model, "bi-encoder", settings)
    assert (found.r, found.lora_alpha, found.lora_dropout, found.target_modules) == (3, 5, 0.2, {"query"})
    assert peft_config(model, "bi-encoder", LoraConfig(rank=3)).lora_alpha == 6


def test_the_trained_head_computes_in_float32_under_autocast(start: str, tmp_path: Path) -> None:
    """peft trains a copy of the head: it must be the copy that does."""
    pairs = labelled(300)
    encoder = load("cross-encoder", start)
    trainer = trainer_of(encoder, tmp_path, num_train_epochs=1, learning_rate=3e-2)
    trainer.train()
    with torch.no_grad():
        trainer.model.base_model.model.classifier.modules_to_save["default"].bias.fill_(5)
    inputs = encoder.tokenizer(pairs["sentence1"][:], pairs["sentence2"][:], padding=True, return_tensors="pt")
    encoder.model.eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits = encoder.logits(**inputs)
    assert logits.dtype == torch.float32
    assert len(logits.unique()) > 0.98 * len(pairs)
    assert len(logits.bfloat16().unique()) < len(pairs) / 2


# ------------------------------------------------------------ merged


@pytest.mark.parametrize(("plm", "kind"), PLMS)
def test_merged_scores_equal_those_of_the_adapter(plm: str, kind: str, starts: dict[str, str], tmp_path: Path) -> None:
    pairs = labelled(60)
    encoder = load(kind, starts[plm])
    start = score_pairs(encoder, pairs)
    trainer = trainer_of(encoder, tmp_path / "training", learning_rate=2e-2)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    adapted = score_pairs(encoder, pairs)
    assert np.abs(adapted - start).max() > 0.01

    merged = load(kind, starts[plm])
    merge_saved(merged, tmp_path / "adapter")
    assert not isinstance(merged.model, peft.PeftModel)
    assert {name for name, _ in merged.model.named_parameters()} == {
        name for name, _ in load(kind, starts[plm]).model.named_parameters()
    }
    np.testing.assert_allclose(score_pairs(merged, pairs), adapted, rtol=0, atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    again = load(kind, str(tmp_path / "merged"))
    weights = again.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in merged.model.state_dict().items())
    # products may round otherwise where a weight lies elsewhere in memory
    np.testing.assert_allclose(score_pairs(again, pairs), score_pairs(merged, pairs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_that_is_wrapped_already_is_trained_too(kind: str, start: str, tmp_path: Path) -> None:
    encoder = load(kind, start)
    settings = peft_config(encoder.model, encoder.kind, SETTINGS)
    encoder.model = peft.get_peft_model(encoder.model, settings)  # type: ignore[assignment]
    trainer = any_trainer_of(encoder, tmp_path, labelled(), max_steps=2)
    before = trained_weights(trainer)
    trainer.train()
    assert trained_weights(trainer).keys() == before.keys()
    assert not same(trained_weights(trainer), before)


# ------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_from_an_adapter_changes_no_bit(kind: str, start: str, tmp_path: Path) -> None:
    """With dropout; the random state at the time of resuming plays no part."""

    def make(name: str, *callbacks: TrainerCallback) -> Any:
        return trainer_of(load(kind, start), tmp_path / name, labelled(12), callbacks=list(callbacks), eval_steps=4)

    whole = make("whole")
    whole.train()
    with pytest.raises(Killed):
        make("killed", At(9, kill)).train()
    last = last_whole_checkpoint(tmp_path / "killed")
    assert last == str(tmp_path / "killed" / "checkpoint-8")
    assert not list(Path(last).glob("model*")), "the checkpoint holds more than the adapter"
    resumed = make("killed")
    set_seed(12345)
    resumed.train(resume_from_checkpoint=last)
    assert same(trained_weights(resumed), trained_weights(whole))
    files = [tmp_path / name / "checkpoint-10" / ADAPTER for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_adapter_is_loaded_at_the_end_and_the_head_with_it(kind: str, start: str, tmp_path: Path) -> None:
    """Gold is what the encoder says at first and labels are the opposite, so that dev falls from the start."""
    encoder = load(kind, start)
    pairs = labelled()
    gold = score_pairs(encoder, pairs)
    dev = pairs.remove_columns("label").add_column("label", gold)
    train = pairs.remove_columns("label").add_column("label", gold.min() + gold.max() - gold)
    trainer = trainer_of(encoder, tmp_path, dev, train, eval_steps=4)
    trainer.train()
    best = trainer.state.best_global_step
    assert best < trainer.state.global_step
    loaded = peft.get_peft_model_state_dict(trainer.model)
    assert any("classifier" in name for name in loaded) == (kind == "cross-encoder")
    assert same(loaded, load_file(tmp_path / f"checkpoint-{best}" / ADAPTER))
    assert not same(loaded, load_file(tmp_path / "checkpoint-10" / ADAPTER))


# ------------------------------------------------------------ refused


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "q_proj", ["LayerNorm"], ".*query"])
def test_layers_that_are_not_there_or_cannot_be_adapted_are_named(
    kind: Any, targets: list[str] | str, start: str
) -> None:
    with pytest.raises(InputError, match=r"lora\.target_modules: .*some of .*key, .*query, value"):
        empty = resolve_checkpoint(start).empty_model(kind)
        put_adapters(empty, kind, LoraConfig(rank=4, target_modules=targets), "bert")


SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_of_experts_takes_adapters_without_dropout(kind: Any) -> None:
    def empty() -> Any:
        with torch.device("meta"):
            return AUTO[kind].from_config(MixtralConfig(**SMALL, num_key_value_heads=2, num_labels=1))

    with pytest.raises(InputError, match=r"^lora\.dropout: 0\.05, .* model mixtral .*; set lora\.dropout to 0$"):
        put_adapters(empty(), kind, SETTINGS, "mixtral")
    trained, _ = parameter_counts(put_adapters(empty(), kind, LoraConfig(rank=4, dropout=0), "mixtral"))
    assert trained > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", ["all-linear", ["dense"]])
def test_adapters_on_the_pooler_alone_are_refused(kind: Any, targets: list[str] | str) -> None:
    """SqueezeBERT's other layers are convolutions."""
    with torch.device("meta"):
        empty = AUTO[kind].from_config(SqueezeBertConfig(**SMALL, embedding_size=16, num_labels=1))
    with pytest.raises(InputError, match=r"^lora\.target_modules: .* model squeezebert .*; leave lora\.rank out$"):
        put_adapters(empty, kind, LoraConfig(rank=4, target_modules=targets), "squeezebert")
