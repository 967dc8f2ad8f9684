"""An encoder is what transformers made of it but while a training, an evaluation or a labelling lasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tiny_trainings import KINDS, At, Killed, kill, labelled, load, trainer_of
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)

from te_trainer import labelling as labelling_module
from te_trainer.errors import InputError
from te_trainer.labelling import embed_sentences, score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.packed import choose_backend, use_backend
from te_trainer.models.packed.dropout import CPUDropout
from te_trainer.models.packed.pack import ATTENTION_NAME, is_packing
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments, computation


def built(kind: str, model: str) -> Encoder:
    """An encoder as somebody builds it who knows transformers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    torch.manual_seed(0)
    if kind == "bi-encoder":
        return BiEncoder(AutoModel.from_pretrained(model, add_pooling_layer=False), tokenizer)
    return CrossEncoder(AutoModelForSequenceClassification.from_pretrained(model, num_labels=1), tokenizer)


def state_of(model: nn.Module) -> list[Any]:
    """Types, hooks and attention of all parts, and the names of the weights."""
    parts = [
        (name, type(part), len(part._forward_hooks), len(part._forward_pre_hooks))
        for name, part in model.named_modules()
    ]
    config: Any = model.config
    return [parts, config._attn_implementation, list(model.state_dict())]


class Seen(TrainerCallback):
    """What the steps of a training find, and its evaluations."""

    def __init__(self) -> None:
        self.found: set[tuple[str, bool, bool]] = set()

    def look(self, when: str, model: nn.Module) -> None:
        dropout = any(type(part) is CPUDropout for part in model.modules())
        self.found.add((when, is_packing(model), dropout))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.look("step", kwargs["model"])

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.look("evaluation", kwargs["model"])


@pytest.mark.parametrize("make", [load, built])
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_left_as_it_came(kind: str, make: Any, models: dict[str, str], tmp_path: Path) -> None:
    encoder = make(kind, models["bert"])
    before = state_of(encoder.model)
    assert before[1] == "sdpa"
    seen = Seen()
    trainer = trainer_of(encoder, tmp_path, labelled(), labelled(), callbacks=[seen])
    assert state_of(encoder.model) == before
    trainer.evaluate()
    assert seen.found == {("evaluation", True, False)}
    assert state_of(encoder.model) == before
    trainer.train()
    assert seen.found == {("evaluation", True, False), ("evaluation", True, True), ("step", True, True)}
    assert state_of(encoder.model) == before
    score_pairs(encoder, labelled())
    if isinstance(encoder, BiEncoder):
        embed_sentences(encoder, labelled(), tmp_path)
    assert state_of(encoder.model) == before
    for folder in (tmp_path / "saved", *tmp_path.glob("checkpoint-*")):
        if folder.name == "saved":
            trainer.save_model(str(folder))
        assert "te_trainer" not in (folder / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_left_as_it_came_by_what_fails(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    encoder = load(kind, models["roberta"])
    before = state_of(encoder.model)
    trainer = trainer_of(encoder, tmp_path, labelled(), labelled(), callbacks=[At(3, kill)])
    with pytest.raises(Killed):
        trainer.train()
    assert state_of(encoder.model) == before

    def fail(share: float) -> None:
        assert is_packing(encoder.model)
        raise Killed

    with pytest.raises(Killed):
        score_pairs(encoder, labelled(), progress=fail)
    assert state_of(encoder.model) == before


def test_after_a_training_a_model_gives_all_that_it_gave(models: dict[str, str], tmp_path: Path) -> None:
    encoder: Any = load("bi-encoder", models["bert"])
    trainer_of(encoder, tmp_path, labelled()).train()
    model = encoder.model.eval()
    inputs = encoder.tokenizer(["one two", "one"], padding=True, return_tensors="pt")
    output = model(**inputs, output_hidden_states=True)
    assert [states.shape[:2] for states in output.hidden_states] == [inputs["input_ids"].shape] * 3
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
    words = model.get_input_embeddings()(inputs["input_ids"])
    again = model(inputs_embeds=words, attention_mask=inputs["attention_mask"])
    torch.testing.assert_close(again.last_hidden_state, output.last_hidden_state)


@pytest.mark.parametrize("kind", KINDS)
def test_labelling_in_the_midst_of_a_training_changes_nothing(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    weights = []
    for labels in (False, True):
        encoder = load(kind, models["bert"])
        seen, twin = Seen(), load(kind, models["bert"])

        def label(model: nn.Module, encoder: Encoder = encoder, twin: Encoder = twin) -> None:
            for each in (encoder, twin):
                score_pairs(each, labelled())

        callbacks: list[TrainerCallback] = [At(2, label), seen] if labels else [seen]
        trainer_of(encoder, tmp_path, labelled(), callbacks=callbacks).train()
        assert seen.found == {("step", True, True)}
        weights.append(encoder.model.state_dict())
        assert not is_packing(twin.model)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_each_model_that_a_training_makes_is_left_as_it_came(models: dict[str, str], tmp_path: Path) -> None:
    made: list[Any] = []

    def make() -> Any:
        made.append(load("bi-encoder", models["bert"]))
        return made[-1]

    seen = Seen()
    args = BiEncoderTrainingArguments(output_dir=str(tmp_path), max_steps=2, save_strategy="no")
    BiEncoderTrainer(model_init=make, args=args, train_dataset=labelled(), callbacks=[seen]).train()
    assert seen.found == {("step", True, True)}
    plain = state_of(load("bi-encoder", models["bert"]).model)
    assert all(state_of(encoder.model) == plain for encoder in made)


def test_models_that_cannot_pack_and_long_texts(models: dict[str, str], tmp_path: Path) -> None:
    encoder: Any = load("bi-encoder", models["bert"])
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_backend(encoder.model, 128, cpu).attention == ATTENTION_NAME
    assert choose_backend(encoder.model, 128, cpu, needs_padding=True).attention == "eager"
    assert choose_backend(encoder.model, 129, cpu).attention is None
    assert choose_backend(encoder.model, 129, cpu).fast_dropout
    for untouched in (choose_backend(encoder.model, 32, gpu), choose_backend(encoder.model, 32, cpu, compiled=True)):
        assert untouched.attention is None and not untouched.fast_dropout
    adapted = peft.get_peft_model(encoder.model, peft.LoraConfig(task_type="FEATURE_EXTRACTION"))
    assert choose_backend(adapted, 32, cpu).attention == ATTENTION_NAME
    other = AlbertModel(AlbertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, vocab_size=99))
    backend = choose_backend(other, 32, cpu)
    assert backend.attention == "eager"
    with use_backend(other, backend):
        assert other.config._attn_implementation == "eager"
    assert other.config._attn_implementation == "sdpa"
    # somebody's own choice
    other.config._attn_implementation = "flex_attention"
    assert choose_backend(other, 32, cpu).attention is None


def test_the_arithmetic_decides_who_computes(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash attention has 16 bits alone, so trainings and labellings say what they compute in."""
    asked: list[str] = []

    def asking(model: Any, max_length: int, device: Any, precision: str, **rest: Any) -> Any:
        asked.append(precision)
        return choose_backend(model, max_length, device, precision, **rest)  # type: ignore[arg-type]

    for module in (computation, labelling_module):
        monkeypatch.setattr(module, "choose_backend", asking)
    encoder = load("bi-encoder", models["bert"])
    pairs = {"sentence1": ["a cat"], "sentence2": ["a dog"]}
    for precision in ("float32", "bfloat16"):
        score_pairs(encoder, pairs, precision=precision)
        trainer_of(encoder, tmp_path, labelled(), precision=precision, max_steps=1).train()
        assert asked and set(asked) == {precision}
        asked.clear()


def test_scores_of_an_encoder_with_adapters_are_those_of_its_padded_batches(models: dict[str, str]) -> None:
    encoder: Any = load("bi-encoder", models["bert"])
    config = peft.LoraConfig(task_type="FEATURE_EXTRACTION", init_lora_weights=False)
    encoder.model = peft.get_peft_model(encoder.model, config)
    packed = score_pairs(encoder, labelled())
    encoder.max_length = 129
    np.testing.assert_allclose(score_pairs(encoder, labelled()), packed, rtol=0, atol=1e-5)
    assert not is_packing(encoder.model)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiler_gets_padded_batches(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    trainer = trainer_of(load(kind, models["bert"]), tmp_path, labelled(), torch_compile=True)
    assert trainer.groups_by_length()


@pytest.mark.parametrize(("kind", "name"), [("bi-encoder", "eager"), ("cross-encoder", "sdpa")])
def test_a_training_computes_with_the_attention_that_is_named(
    kind: str, name: str, models: dict[str, str], tmp_path: Path
) -> None:
    losses = []
    for values in ({}, {"attn_implementation": name}):
        encoder, seen, folder = load(kind, models["bert"]), Seen(), tmp_path / str(len(values))
        before = state_of(encoder.model)
        for module in encoder.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        values |= {"train_sampling_strategy": "random", "logging_steps": 1}
        trainer = trainer_of(encoder, folder, labelled(), labelled(), callbacks=[seen], **values)
        trainer.evaluate()
        trainer.train()
        is_packed = "attn_implementation" not in values
        evaluated = {("evaluation", is_packed, fast) for fast in (False, True)}
        assert seen.found == {("step", is_packed, True), *evaluated}
        assert state_of(encoder.model) == before
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        for saved in folder.glob("checkpoint-*/config.json"):
            assert "attn" not in saved.read_text(encoding="utf-8")
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)


def test_the_arguments_go_before_the_encoder_and_a_compiler_and_adapters_take_them(
    models: dict[str, str], tmp_path: Path, watched: Any
) -> None:
    calls = {name: watched(f"watched_{name}") for name in ("encoder", "arguments")}
    settings = {"max_steps": 2, "save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
    adapters = peft.LoraConfig(task_type="FEATURE_EXTRACTION")
    for values, config, expected in (
        ({}, None, "encoder"),
        ({"attn_implementation": "watched_arguments"}, None, "arguments"),
        ({"attn_implementation": "watched_arguments"}, adapters, "arguments"),
        ({"torch_compile": True, "torch_compile_backend": "eager"}, None, "encoder"),
    ):
        encoder = BiEncoder.from_pretrained(models["bert"], attn_implementation="watched_encoder")
        args = BiEncoderTrainingArguments(output_dir=str(tmp_path), **settings, **values)  # type: ignore[arg-type]
        trainer = BiEncoderTrainer(encoder, args, labelled(), peft_config=config)
        assert trainer.groups_by_length()
        trainer.train()
        assert [name for name, called in calls.items() if called] == [expected]
        assert set(calls[expected]) == {(True, True)}
        calls[expected].clear()


@pytest.mark.parametrize("name", ["flex_attention", "flash_attention_2", "spda"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_trainer_refuses_an_attention_that_cannot_train(
    kind: str, name: str, models: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^attn_implementation: '{name}' cannot be used for Bert"):
        trainer_of(load(kind, models["bert"]), tmp_path, labelled(), attn_implementation=name)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_by_a_sentences_length_gets_padded_batches(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    seen = Seen()
    values = {"neftune_noise_alpha": 5.0, "max_steps": 2}
    trainer = trainer_of(load(kind, models["bert"]), tmp_path, labelled(), callbacks=[seen], **values)
    assert trainer.groups_by_length()
    trainer.train()
    assert seen.found == {("step", False, True)}


def test_prompts_that_are_learnt_stand_in_front_of_padded_batches(models: dict[str, str], tmp_path: Path) -> None:
    encoder: Any = load("bi-encoder", models["bert"])
    args = BiEncoderTrainingArguments(output_dir=str(tmp_path), max_steps=2, save_strategy="no", learning_rate=0.1)
    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=3)
    trainer = BiEncoderTrainer(encoder, args, labelled(), peft_config=config)
    assert trainer.groups_by_length()
    (before,) = (weight.detach().clone() for weight in trainer.model.parameters() if weight.requires_grad)
    trainer.train()
    (after,) = (weight for weight in trainer.model.parameters() if weight.requires_grad)
    assert float((after - before).abs().max()) > 1e-3
