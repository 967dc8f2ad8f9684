"""What may be given as the model, and models that each training makes anew."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers import SentenceTransformer
from test_trainer_evaluation import make
from tiny_trainings import CLASSES, KINDS, labelled, load, same, weights, without_dropout
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.sentence_files import SentenceLayout


def trained(kind: str, model: Any, output: Path, loss: str | None = None, **more: Any) -> Any:
    trainer, arguments = CLASSES[kind]
    args = arguments(
        str(output), precision="float32", max_steps=3, save_strategy="no", per_device_train_batch_size=4,
        learning_rate=1e-3, train_sampling_strategy="random", disable_tqdm=True, **({"loss": loss} if loss else {}),
    )  # fmt: skip
    made = trainer(model, args, labelled(), **more)
    made.train()
    return made


def test_a_sentence_transformer_is_trained_itself(models: dict[str, str], tmp_path: Path) -> None:
    start = BiEncoder.from_pretrained(models["bert"], pooling="mean", max_length=20, prompt="say ")
    start.save_pretrained(tmp_path / "start")
    theirs = SentenceTransformer(str(tmp_path / "start"), device="cpu")
    trainer = trained("bi-encoder", theirs, tmp_path)
    encoder = trainer.encoder
    assert (encoder.pooling, encoder.max_length, encoder.prompt) == ("mean", 20, "say ")
    trainer.save_model(str(tmp_path / "saved"))
    text = labelled(1)["sentence1"][:]
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(theirs.encode(text), again.encode(text), atol=1e-5)
    before = SentenceTransformer(str(tmp_path / "start"), device="cpu")
    assert not np.allclose(theirs.encode(text), before.encode(text), atol=1e-3)


def test_a_cross_encoder_of_sentence_transformers_is_trained_itself(models: dict[str, str], tmp_path: Path) -> None:
    load("cross-encoder", models["bert"]).save_pretrained(tmp_path / "start")
    theirs = TheirCrossEncoder(str(tmp_path / "start"), device="cpu")
    pairs = [(row["sentence1"], row["sentence2"]) for row in labelled(4)]
    before = theirs.predict(pairs)
    for loss in ("bce", "mse"):
        trainer = trained("cross-encoder", theirs, tmp_path, loss=loss)
        trainer.save_model(str(tmp_path / "saved"))
        theirs.save_pretrained(str(tmp_path / "theirs"))
        after = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs)
        for one in (theirs, TheirCrossEncoder(str(tmp_path / "theirs"), device="cpu")):
            np.testing.assert_allclose(one.predict(pairs), after, atol=1e-5)
        np.testing.assert_allclose(score_pairs(trainer.encoder, labelled(4)), after, atol=1e-5)
        assert not np.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_transformers_with_its_tokenizer_trains_as_its_folder_does(
    kind: str, tiny: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    auto: Any = AutoModel if kind == "bi-encoder" else AutoModelForSequenceClassification
    more = {"add_pooling_layer": False} if kind == "bi-encoder" else {"num_labels": 1}
    model = auto.from_pretrained(tiny, dtype=torch.bfloat16, **more).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    trainer = trained(kind, model, tmp_path, processing_class=tokenizer)
    assert trainer.model is model
    assert model.dtype == torch.float32
    assert trainer.encoder.max_length == (32 if kind == "bi-encoder" else 64)
    assert len(trainer.predict(labelled(3)).predictions) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_pads_on_the_left_scores_alike_in_every_batch(kind: str, tiny: Path, tmp_path: Path) -> None:
    """Positions of BERT are counted from the first column; its folder would be read so, too."""
    theirs: Any = SentenceTransformer(str(tiny), device="cpu")
    if kind == "cross-encoder":
        theirs = TheirCrossEncoder(str(tiny), num_labels=1, device="cpu")
    theirs.tokenizer.padding_side = "left"
    encoder = trained(kind, theirs, tmp_path).encoder
    pairs = labelled(8)
    together = score_pairs(encoder, pairs)
    alone = [score_pairs(encoder, pairs.select([row]))[0] for row in range(8)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    encoder.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").padding_side == "right"


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_of_sentence_transformers_gets_its_padding_token(kind: str, tmp_path: Path) -> None:
    """Without it in the configuration, transformers computes no batch of a decoder that classifies."""
    from tiny_decoders import save_decoder

    start = str(save_decoder(tmp_path / "start", "gpt_neox"))
    AutoModel.from_pretrained(start).save_pretrained(start)  # of a causal model sentence-transformers makes another one
    theirs: Any = SentenceTransformer(start, device="cpu")
    if kind == "cross-encoder":
        theirs = TheirCrossEncoder(start, num_labels=1, device="cpu")
    theirs.tokenizer.pad_token = None if kind == "bi-encoder" else "<|endoftext|>"
    text = theirs.tokenizer("router")["input_ids"]
    trainer = make(kind, theirs, tmp_path)  # a Trainer would set it where it trains
    assert trainer.encoder.model.config.pad_token_id == theirs.tokenizer.pad_token_id is not None
    # a text ends as it has learnt that texts end
    assert trainer.encoder.tokenizer("router")["input_ids"] == text
    trainer.encoder.save_pretrained(tmp_path / "saved")
    pairs = [(row["sentence1"], row["sentence2"]) for row in labelled(6)]
    ours = score_pairs(trainer.encoder, labelled(6))
    if kind == "cross-encoder":
        scores = TheirCrossEncoder(str(tmp_path / "saved"), device="cpu").predict(pairs)
    else:
        again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        one, two = (again.encode(list(texts)) for texts in zip(*pairs, strict=True))
        scores = again.similarity_pairwise(one, two).numpy()
    np.testing.assert_allclose(ours, scores, rtol=0, atol=1e-5)


def test_a_model_of_transformers_that_gives_attentions_is_saved_without_them(tiny: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(tiny, attn_implementation="eager", output_attentions=True, return_dict=False)
    trainer = trained("bi-encoder", model, tmp_path, processing_class=AutoTokenizer.from_pretrained(tiny))
    trainer.save_model(str(tmp_path / "saved"))
    assert not AutoModel.from_pretrained(tmp_path / "saved").config.output_attentions


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_sentence_transformers_that_gives_attentions_is_saved_without_them(
    models: dict[str, str], tmp_path: Path, kind: str
) -> None:
    load(kind, models["bert"]).save_pretrained(tmp_path / "start")
    config = tmp_path / "start" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"output_attentions": True}), encoding="utf-8")
    their_class: Any = SentenceTransformer if kind == "bi-encoder" else TheirCrossEncoder
    theirs = their_class(str(tmp_path / "start"), device="cpu")
    trained(kind, theirs, tmp_path).save_model(str(tmp_path / "saved"))
    assert not AutoModel.from_pretrained(tmp_path / "saved").config.output_attentions


def test_a_classifier_whose_first_token_sees_no_other_is_refused(tiny: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1, is_decoder=True)
    with pytest.raises(InputError, match=r"the first token of a bert, .* sees no other; set is_decoder to false"):
        trained("cross-encoder", model, tmp_path, processing_class=AutoTokenizer.from_pretrained(tiny))


def test_what_a_sentence_transformer_says_of_itself_is_kept(models: dict[str, str], tmp_path: Path) -> None:
    layout = SentenceLayout({"similarity_fn_name": "dot"}, modules={"Normalize": ""})
    start = BiEncoder.from_pretrained(models["bert"], layout=layout)
    start.save_pretrained(tmp_path / "start")
    file = tmp_path / "start" / "sentence_bert_config.json"
    file.write_text(file.read_text().replace('"do_lower_case": false', '"do_lower_case": true'))
    theirs = SentenceTransformer(str(tmp_path / "start"), device="cpu")
    make("bi-encoder", theirs, tmp_path).save_model(str(tmp_path / "saved"))
    again = resolve_checkpoint(str(tmp_path / "saved")).layout
    assert "Normalize" in again.modules and again.model["similarity_fn_name"] == "dot" and again.lower_case


@pytest.mark.parametrize("kind", KINDS)
def test_a_path_and_the_tokenizer_beside_it_are_taken(kind: str, tiny: Path, tmp_path: Path) -> None:
    by_name = trained(kind, str(tiny), tmp_path)
    by_path = trained(kind, tiny, tmp_path, processing_class=AutoTokenizer.from_pretrained(tiny))
    assert same(weights(by_name), weights(by_path))


def test_what_cannot_be_the_model_is_said(models: dict[str, str], tiny: Path, letters: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    dense = SentenceTransformer(str(tiny), device="cpu")
    dense.append(torch.nn.Identity())
    dot = SentenceTransformer(str(tiny), device="cpu", similarity_fn_name="dot")
    short = SentenceTransformer(str(tiny), device="cpu", truncate_dim=8)
    prompted = TheirCrossEncoder(str(tiny), device="cpu", num_labels=1)
    prompted.prompts, prompted.default_prompt_name = {"rank": "rank: "}, "rank"
    cases: list[tuple[str, Any, Any, str]] = [
        (
            "bi-encoder",
            dot,
            None,
            "model of the SentenceTransformer: similarity_fn_name .* is 'dot'",
        ),
        ("bi-encoder", short, None, "model of the SentenceTransformer: truncate_dim in .* shortens vectors"),
        (
            "cross-encoder",
            prompted,
            None,
            "model of the CrossEncoder: default_prompt_name .* puts a text in front",
        ),
        ("bi-encoder", load("cross-encoder", models["bert"]), None, "model: a CrossEncoder where a BiEncoder"),
        ("bi-encoder", torch.nn.Linear(2, 2), None, "model: a Linear where a BiEncoder is expected"),
        ("bi-encoder", AutoModel.from_pretrained(tiny), None, "processing_class: a BertModel needs its tokenizer"),
        ("bi-encoder", AutoModelForMaskedLM.from_pretrained(tiny), tokenizer, "model: a BertForMaskedLM where one of"),
        ("cross-encoder", AutoModel.from_pretrained(tiny), tokenizer, "model: a BertModel where one of AutoModelForS"),
        ("bi-encoder", dense, None, "model: the SentenceTransformer consists of Transformer, Pooling, Identity"),
        ("bi-encoder", tiny, AutoTokenizer.from_pretrained(letters), "processing_class: it is not the model's"),
        ("bi-encoder", None, None, "model: give either a model or a model_init"),
    ]
    for kind, model, processing_class, message in cases:
        with pytest.raises(InputError, match=f"^{message}") as caught:
            CLASSES[kind][0](model, None, labelled(), processing_class=processing_class)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------ model_init


@pytest.mark.parametrize("kind", KINDS)
def test_each_training_begins_with_a_new_model(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    made = []

    def new(trial: Any) -> Any:
        made.append(without_dropout(load(kind, models["bert"])))
        return made[-1]

    trainer = make(kind, None, tmp_path, labelled(), model_init=new, save_strategy="no", learning_rate=1e-3)
    trainer.train()
    first = weights(trainer)
    assert trainer.encoder is made[1]
    assert trainer.model is made[1].model
    trainer.train()
    assert trainer.encoder is made[2]
    assert same(first, weights(trainer))
    assert not same(first, weights(make(kind, load(kind, models["bert"]), tmp_path)))
    trainer.save_model(str(tmp_path / "saved"))
    plain = make(kind, made[0], tmp_path, labelled(), save_strategy="no", learning_rate=1e-3)
    plain.train()
    assert same(first, weights(plain))
    if kind == "bi-encoder":
        lengths = iter([32, 16])
        other = make(
            kind, None, tmp_path, labelled(),
            model_init=lambda: BiEncoder.from_pretrained(models["bert"], max_length=next(lengths)),
        )  # fmt: skip
        with pytest.raises(InputError, match=r"^model_init: max_length must be the same at each call"):
            other.train()


Search = Callable[[Any, list[Any], Callable[[Any], None]], Any]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Search:
    """The Trainer's own search, with trials that are given where optuna would draw some; each is looked at."""
    from transformers import trainer as module
    from transformers.trainer_utils import BestRun, HPSearchBackend

    optuna: Any = types.ModuleType("optuna")
    optuna.__spec__ = ModuleSpec("optuna", None)
    optuna.trial = types.SimpleNamespace(BaseTrial=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "optuna", optuna)

    def begin(trainer: Any, trials: list[Any], look: Callable[[Any], None]) -> Any:
        class GivenTrials:
            def ensure_available(self) -> None:
                """Nothing is needed."""

            def run(self, trainer: Any, n_trials: int, direction: str) -> BestRun:
                found = []
                for trial in trials:
                    trainer.train(trial=trial)
                    look(trainer)
                    found.append((trainer.compute_objective(trainer.evaluate()), trial))
                best, trial = max(found, key=lambda entry: entry[0])
                return BestRun(str(trial.number), best, trial.params)

        monkeypatch.setitem(module.ALL_HYPERPARAMETER_SEARCH_BACKENDS, HPSearchBackend.OPTUNA, GivenTrials)
        return trainer.hyperparameter_search(
            hp_space=lambda trial: trial.params, compute_objective=lambda metrics: metrics["eval_spearman"],
            backend="optuna", direction="maximize",
        )  # fmt: skip

    return begin


def trials_of(name: str, *values: Any) -> list[Any]:
    return [types.SimpleNamespace(number=number, params={name: value}) for number, value in enumerate(values)]


def test_hyperparameters_are_searched(models: dict[str, str], tmp_path: Path, search: Search) -> None:
    trials, given = trials_of("learning_rate", 1e-3, 1e-30), []

    def new(trial: Any) -> Any:
        given.append(trial)
        return models["bert"]

    pairs = labelled()
    trainer = make("bi-encoder", None, tmp_path, pairs, pairs, model_init=new, num_train_epochs=4)
    best = search(trainer, trials, lambda trainer: None)
    assert given == [None, *trials]
    assert best.hyperparameters == {"learning_rate": 1e-3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0", "run-1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attn_implementation", "eager"), ("both_orders", False), ("loss", "mse"), ("official_adamw", True),
        ("precision", "bfloat16"), ("span", 3),
    ],
)  # fmt: skip
def test_what_is_fixed_with_a_trainer_is_no_value_of_a_trial(
    name: str, value: Any, models: dict[str, str], tmp_path: Path, search: Search
) -> None:
    kind = "bi-encoder" if name == "span" else "cross-encoder"
    trainer = make(kind, None, tmp_path, labelled(), labelled(), model_init=lambda: models["bert"])
    with pytest.raises(InputError, match=rf"^hp_space: {name} is fixed when a trainer is made"):
        search(trainer, trials_of(name, value), lambda made: None)


def test_a_trial_has_the_head_that_it_names(models: dict[str, str], tmp_path: Path, search: Search) -> None:
    heads: list[bool] = []

    class Watching(CLASSES["bi-encoder"][0]):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            heads.append(any("mlp" in name or "head" in name for name, _ in self.encoder.model.named_modules()))
            return super().compute_loss(*args, **kwargs)

    arguments = CLASSES["bi-encoder"][1](
        str(tmp_path), loss="info_nce", max_steps=1, per_device_train_batch_size=4, disable_tqdm=True
    )
    trainer = Watching(None, arguments, labelled(), labelled(), model_init=lambda: models["bert"])
    search(trainer, trials_of("mlp_head", True, False), lambda made: None)
    assert heads == [True, False]


def test_cross_encoders_of_one_model_score_as_the_last_training_learnt(models: dict[str, str], tmp_path: Path) -> None:
    encoder = load("cross-encoder", models["bert"])
    first, second = (make("cross-encoder", encoder, tmp_path, labelled(), loss=loss) for loss in ("bce", "mse"))
    for trainer, activation in ((first, "sigmoid"), (second, "identity")):
        trainer.train()
        assert encoder.activation == activation


def test_adapters_go_onto_each_new_model(models: dict[str, str], tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["query"])
    own = {"model_init": lambda: models["bert"], "peft_config": config}
    trainer = make("bi-encoder", None, tmp_path, labelled(), save_strategy="no", **own)
    for _ in range(2):
        trainer.train()
        trained = [name for name, weight in trainer.encoder.model.named_parameters() if weight.requires_grad]
        assert trained
        assert all("lora" in name for name in trained)


def test_an_adapter_that_is_there_is_trained_on_and_not_reset(models: dict[str, str], tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["query"])
    encoder = load("bi-encoder", models["bert"])
    trained("bi-encoder", encoder, tmp_path, peft_config=config)
    scores = score_pairs(encoder, labelled())
    with pytest.raises(InputError, match=r"^peft_config: the encoder has an adapter, which a new one would reset"):
        trained("bi-encoder", encoder, tmp_path, peft_config=config)
    assert np.array_equal(score_pairs(encoder, labelled()), scores)
    trained("bi-encoder", encoder, tmp_path).save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_model.safetensors").exists()
    assert not np.allclose(score_pairs(encoder, labelled()), scores, atol=1e-4)


def test_an_adapter_that_no_checkpoint_could_load_is_refused(tiny: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    theirs = SentenceTransformer(str(tiny), device="cpu")
    theirs.add_adapter(LoraConfig(r=2, target_modules=["query"]))
    assert len(make("bi-encoder", theirs, tmp_path).predict(labelled()).predictions) == 20
    with pytest.raises(InputError, match=r"^model: it has an adapter by add_adapter, .* as peft_config$"):
        trained("bi-encoder", theirs, tmp_path)


def test_a_decoder_is_pooled_by_its_last_token(tmp_path: Path) -> None:
    from tiny_decoders import save_decoder

    folder = save_decoder(tmp_path / "gpt2", "gpt2")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    trainer = trained("bi-encoder", model, tmp_path, processing_class=tokenizer)
    assert trainer.encoder.pooling == "last"
    assert {row["input_ids1"][-1] for row in trainer.train_dataset} == {tokenizer.eos_token_id}
