"""What a library's author does with encoders and trainers, and what a command never does."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pyarrow as pa
import pytest
import scipy.stats
import sentence_transformers
import torch
import torch.nn.functional as F
from conftest import labelled, sample_pairs
from datasets import Dataset
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, HfArgumentParser

from te_trainer import (
    BiEncoder,
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    InputError,
    load_encoder,
    score_pairs,
)
from te_trainer.models.weights import ADAPTER_FILES
from te_trainer.trainers.publishing import last_metrics

LONG = [("a dog " * 45 + "runs", "a dog " * 45 + "sleeps")]
QUIET: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "precision": "float32"}
LORA: dict[str, Any] = {"r": 2, "target_modules": ["query"]}


def bi_arguments(folder: Path, **more: Any) -> BiEncoderTrainingArguments:
    return BiEncoderTrainingArguments(str(folder), **(QUIET | {"per_device_train_batch_size": 8} | more))


def test_a_trained_encoder_keeps_its_length(tiny: Path, tmp_path: Path) -> None:
    assert BiEncoder.from_pretrained(str(tiny)).max_length == 32
    assert CrossEncoder.from_pretrained(str(tiny)).max_length == 64
    for kind, place in ((BiEncoder, tmp_path / "bi"), (CrossEncoder, tmp_path / "cross")):
        kind.from_pretrained(str(tiny), max_length=100).save_pretrained(place)
        again, loaded = kind.from_pretrained(str(place)), load_encoder(str(place))
        assert again.max_length == loaded.max_length == 100
        assert kind.from_pretrained(str(place), max_length=20).max_length == 20
    bi = BiEncoder.from_pretrained(str(tmp_path / "bi"))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "bi"), device="cpu")
    (one, two) = LONG[0]
    expected = theirs.similarity_pairwise(theirs.encode([one]), theirs.encode([two])).numpy()
    np.testing.assert_allclose(score_pairs(bi, LONG), expected, atol=1e-5)
    trainer = BiEncoderTrainer(str(tmp_path / "bi"), bi_arguments(tmp_path / "out", max_steps=1), labelled(16))
    trainer.train()
    trainer.save_model(str(tmp_path / "trained"))
    assert sentence_transformers.SentenceTransformer(str(tmp_path / "trained"), device="cpu").max_seq_length == 100


@pytest.mark.parametrize("pooling", ["max", "Mean", ""])
def test_a_pooling_that_is_none_is_refused(tiny: Path, pooling: Any) -> None:
    with pytest.raises(InputError, match=f"^pooling: '{pooling}' is none of cls, mean, last"):
        BiEncoder.from_pretrained(str(tiny), pooling=pooling)
    encoder = BiEncoder.from_pretrained(str(tiny))
    with pytest.raises(InputError, match="is none of cls, mean, last"):
        BiEncoder(encoder.model, encoder.tokenizer, pooling)


def test_saving_leaves_a_tokenizer_as_it_was(tiny: Path, tmp_path: Path) -> None:
    encoder = CrossEncoder.from_pretrained(str(tiny), max_length=48)
    encoder.tokenizer.chat_template = "{{ messages }}"
    length = encoder.tokenizer.model_max_length
    assert length != 48
    encoder.tokenizer.save_pretrained(tmp_path / "cross")
    encoder.save_pretrained(tmp_path / "cross")
    assert (encoder.tokenizer.model_max_length, encoder.tokenizer.chat_template) == (length, "{{ messages }}")
    saved = CrossEncoder.from_pretrained(str(tmp_path / "cross"))
    assert saved.tokenizer.chat_template is None and saved.max_length == 48


def test_encoders_are_keys_and_travel(tiny: Path) -> None:
    one, two = (BiEncoder.from_pretrained(str(tiny)) for _ in range(2))
    assert len({one: 1, two: 2}) == 2
    assert score_pairs(pickle.loads(pickle.dumps(one)), LONG) == score_pairs(two, LONG)


# ---------------------------------------------------------------- scores


def test_pairs_come_in_many_forms(tiny: Path) -> None:
    encoder, pairs = BiEncoder.from_pretrained(str(tiny), pooling="mean"), sample_pairs(5)
    columns = {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]}
    expected = score_pairs(encoder, columns)
    dataset = Dataset.from_dict({**columns, "id": range(5)})
    dicts = [dict(zip(columns, pair, strict=True)) for pair in pairs]
    tables = (pd.DataFrame(columns), pa.table(columns))
    for given in (pairs, [list(pair) for pair in pairs], dataset, dataset.with_format("numpy"), dicts, *tables):
        np.testing.assert_array_equal(score_pairs(encoder, given), expected)
    np.testing.assert_array_equal(score_pairs(encoder, dataset.select([3, 1])), expected[[3, 1]])
    np.testing.assert_allclose(score_pairs(encoder, pairs, precision="auto"), expected, atol=0.02)
    assert score_pairs(encoder, [("", "a dog")]).shape == (1,)  # an empty text is scored


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("a", "b"), ("a",)], "pairs: item 1 is no pair of sentences; write (sentence1, sentence2)"),
        (["ab", "cd"], "pairs: item 0 is no pair of sentences"),
        ([("a", "b"), ("c", None)], "pairs: row 2: sentence2 is None, which is no text"),
        ({"sentence1": "hello", "sentence2": "world"}, "pairs: sentence1 is one text; give a list of texts"),
        ({"sentence1": ["a", "b"], "sentence2": ["c"]}, "pairs: 2 and 1 texts make no pairs"),
        ({"text1": ["a"], "text2": ["b"]}, "pairs: a dict without columns sentence1 and sentence2"),
        (pd.DataFrame({"sentence1": ["a", "b"], "sentence2": ["c", float("nan")]}), "pairs: row 2: sentence2 is nan"),
        (Dataset.from_dict({"sentence1": ["a"], "text": ["b"]}), "pairs: no column 'sentence2' among sentence1, text"),
        (Dataset.from_dict({"sentence1": ["a", "b"], "sentence2": ["c", None]}), "pairs: row 2: sentence2 is None"),
        (
            Dataset.from_dict({"sentence1": ["a"], "sentence2": [7]}),
            "pairs: row 1: sentence2 is a number (7); make the column",
        ),
        ([{"sentence1": "a", "text": "b"}], "pairs: item 0: no column 'sentence2' among sentence1, text; rename yours"),
        (
            pd.DataFrame([["a", "b", "c"]], columns=["sentence1", "sentence2", "sentence1"]),
            "pairs: several columns of the DataFrame are named 'sentence1'; rename all but one",
        ),
        (np.array([["a", "b", "c"]]), "pairs: item 0 is no pair of sentences"),
        ([("a", "\ud800")], "pairs: a text holds half a character (a lone surrogate)"),
    ],
)
def test_what_are_no_pairs_is_refused(tiny: Path, pairs: Any, words: str) -> None:
    for kind in (BiEncoder, CrossEncoder):
        with pytest.raises(InputError) as refused:
            score_pairs(kind.from_pretrained(str(tiny)), pairs)
        assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"precision": "bf16"}, "precision: 'bf16' is none of auto, float32, bfloat16, float16"),
        ({"batch_tokens": 0}, "batch_tokens: 0 tokens make no batch"),
    ],
)
def test_other_arguments_are_refused(tiny: Path, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^{words}"):
        score_pairs(BiEncoder.from_pretrained(str(tiny)), LONG, **arguments)
    not_one: Any = str(tiny)
    with pytest.raises(InputError, match=r"^encoder: a str where a BiEncoder or a CrossEncoder is expected"):
        score_pairs(not_one, LONG)


def test_scratch_is_any_path(tiny: Path, tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny))
    np.testing.assert_array_equal(score_pairs(encoder, LONG, scratch=str(tmp_path)), score_pairs(encoder, LONG))


@pytest.mark.parametrize("kind", [BiEncoder, CrossEncoder])
@pytest.mark.parametrize("trains", [True, False])
def test_a_model_that_trains_goes_on_training(tiny: Path, kind: Any, trains: bool) -> None:
    encoder = kind.from_pretrained(str(tiny))
    encoder.model.train(trains)
    score_pairs(encoder, LONG)
    assert encoder.model.training is trains


def test_threads_may_share_an_encoder(tiny: Path) -> None:
    encoder, pairs = BiEncoder.from_pretrained(str(tiny), pooling="mean"), sample_pairs(200)
    parts = [pairs[start::7] for start in range(7)] * 3
    attention = encoder.model.config._attn_implementation
    expected = [score_pairs(encoder, part) for part in parts]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: score_pairs(encoder, part), parts))
    for scores, those in zip(found, expected, strict=True):
        np.testing.assert_array_equal(scores, those)
    assert encoder.model.config._attn_implementation == attention


# ---------------------------------------------------------------- trainers


class OwnLoss(BiEncoderTrainer):
    """The usual way to write a loss: a mean over the micro-batch."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = self.outputs(model, inputs)
        loss = (outputs["scores"] - inputs["labels"]).abs().mean()
        return (loss, outputs) if return_outputs else loss


class OwnMean(OwnLoss):
    loss_is_scaled_for_ga = False


def gradient_norm(trainer: BiEncoderTrainer) -> float:
    trainer.train()
    return next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)


def test_a_mean_of_ones_own_is_accumulated_as_it_says(tiny: Path, tmp_path: Path) -> None:
    def trainer(kind: type[BiEncoderTrainer], size: int, steps: int) -> BiEncoderTrainer:
        encoder = BiEncoder.from_pretrained(str(tiny))
        for part in encoder.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        arguments = bi_arguments(tmp_path / "out", max_steps=1, logging_steps=1, **sizes)
        return kind(encoder, arguments, labelled(32))

    whole = gradient_norm(trainer(OwnLoss, 32, 1))
    assert gradient_norm(trainer(OwnMean, 8, 4)) == pytest.approx(whole, rel=1e-4)
    with pytest.raises(InputError, match=r"^gradient_accumulation_steps: compute_loss is OwnLoss's own; set loss_is"):
        trainer(OwnLoss, 8, 4).train()


def test_an_encoder_of_16_bits_learns_in_32(tiny: Path, tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny))
    encoder.model.bfloat16()
    trainer = BiEncoderTrainer(encoder, bi_arguments(tmp_path, max_steps=1), labelled(16))
    assert {weight.dtype for weight in trainer.encoder.model.parameters()} == {torch.float32}
    trainer.train()


def test_a_merged_adapter_is_not_saved_as_one(tiny: Path, tmp_path: Path) -> None:
    pairs = sample_pairs(20)
    adapters = peft.LoraConfig(task_type="FEATURE_EXTRACTION", **LORA)
    arguments = bi_arguments(tmp_path / "out", learning_rate=0.05, num_train_epochs=2)
    start = BiEncoder.from_pretrained(str(tiny), pooling="mean")
    before = score_pairs(start, pairs)
    trainer = BiEncoderTrainer(start, arguments, labelled(32), peft_config=adapters)
    trainer.train()
    trainer.save_model(str(tmp_path / "encoder"))
    assert (tmp_path / "encoder" / ADAPTER_FILES[0]).is_file()
    trained = score_pairs(trainer.encoder, pairs)
    encoder = trainer.encoder
    encoder.model = encoder.model.merge_and_unload()
    with pytest.raises(InputError, match=r"^save_model: it saves the adapter, and the encoder's model has none any"):
        trainer.save_model(str(tmp_path / "merged"))
    encoder.save_pretrained(tmp_path / "encoder")
    assert not [file for file in ADAPTER_FILES if (tmp_path / "encoder" / file).exists()]
    again = score_pairs(BiEncoder.from_pretrained(str(tmp_path / "encoder")), pairs)
    np.testing.assert_allclose(again, trained, atol=1e-5)
    assert np.abs(again - before).max() > 1e-4


def test_adapters_that_leave_a_new_head_out_are_refused(tiny: Path, tmp_path: Path) -> None:
    arguments = CrossEncoderTrainingArguments(str(tmp_path), **QUIET)
    with pytest.raises(InputError, match=r"^peft_config: it leaves the head, which makes the score, untrained"):
        CrossEncoderTrainer(str(tiny), arguments, labelled(8), peft_config=peft.LoraConfig(**LORA))
    for head in ({"task_type": "SEQ_CLS"}, {"modules_to_save": ["classifier"]}):
        CrossEncoderTrainer(str(tiny), arguments, labelled(8), peft_config=peft.LoraConfig(**LORA, **head))


def test_what_is_missing_is_named(tiny: Path, tmp_path: Path) -> None:
    trainer = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path))
    with pytest.raises(InputError, match=r"^train_dataset: there is none to train on"):
        trainer.train()
    with pytest.raises(InputError, match=r"^eval_dataset: there is none"):
        trainer.evaluate()


def test_a_step_that_is_larger_than_the_pairs_is_named(tiny: Path, tmp_path: Path) -> None:
    sizes = {"dataloader_drop_last": True, "gradient_accumulation_steps": 4}
    with pytest.raises(InputError, match=r"^dataloader_drop_last: a step takes 32 pairs, and there are 16; set it to"):
        BiEncoderTrainer(str(tiny), bi_arguments(tmp_path, **sizes), labelled(16)).train()


def test_a_stream_of_tensors_is_read(tiny: Path, tmp_path: Path) -> None:
    stream = labelled(16).to_iterable_dataset().with_format("torch")
    trainer = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path, max_steps=1), stream, eval_dataset=stream)
    trainer.train()
    assert "eval_spearman" in trainer.evaluate()


def test_a_metric_that_gives_no_number_is_named(tiny: Path, tmp_path: Path) -> None:
    def distance(scores: np.ndarray, labels: np.ndarray) -> Any:
        return np.float64(F.mse_loss(torch.tensor(scores), torch.tensor(labels)))

    metrics: dict[str, Any] = {"eval_dataset": labelled(16)}
    trainer = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), metric=distance, **metrics)
    assert type(trainer.evaluate()["eval_distance"]) is float
    trainer = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), metric=scipy.stats.pearsonr, **metrics)
    with pytest.raises(InputError, match=r"^metric: pearsonr gives a PearsonRResult where a number is expected"):
        trainer.evaluate()


def test_token_ids_of_another_trainer_are_refused(tiny: Path, tiny_roberta: Path, tmp_path: Path) -> None:
    """They mean other tokens, and nothing would say so."""
    one = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), labelled(16), eval_dataset=labelled(16))
    again = BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), one.train_dataset)
    assert again.evaluate(one.eval_dataset.select(range(8))).keys() == one.evaluate().keys()
    # what a call of the tokenizer leaves in it changes no ids of a trainer's
    again.encoder.tokenizer(["a", "a dog runs"], padding=True, truncation=True, max_length=3)
    again.evaluate(one.eval_dataset)
    words = "_dataset: token ids that this trainer's tokenizer, length and prompt, or this version, did not give"
    with pytest.raises(InputError, match=words):
        BiEncoderTrainer(BiEncoder.from_pretrained(str(tiny), max_length=9), bi_arguments(tmp_path), one.train_dataset)
    with pytest.raises(InputError, match=words):
        CrossEncoderTrainer(str(tiny), CrossEncoderTrainingArguments(str(tmp_path)), eval_dataset=one.eval_dataset)
    tokens = AutoTokenizer.from_pretrained(tiny)(labelled(4)["sentence1"][:], labelled(4)["sentence2"][:])
    with pytest.raises(InputError, match=words):
        one.evaluate(Dataset.from_dict({**tokens, "label": [0.5] * 4}))


def test_an_encoder_that_is_evaluated_alone_scores_as_before(tiny: Path, tmp_path: Path) -> None:
    arguments = CrossEncoderTrainingArguments(str(tmp_path), **QUIET)
    encoder = CrossEncoder.from_pretrained(str(tiny))
    encoder.activation = "identity"
    encoder.save_pretrained(tmp_path / "logits")
    assert CrossEncoder.from_pretrained(str(tmp_path / "logits")).activation == "identity"
    trainer = CrossEncoderTrainer(encoder, arguments, eval_dataset=labelled(16))
    trainer.evaluate()
    assert encoder.activation == "identity"
    assert CrossEncoderTrainer(encoder, arguments, labelled(16)).encoder.activation == "sigmoid"
    later = CrossEncoderTrainer(encoder, CrossEncoderTrainingArguments(str(tmp_path), **QUIET, loss="mse", max_steps=1))
    later.train_dataset = labelled(16)
    later.train()
    assert encoder.activation == "identity"


@pytest.mark.parametrize("trainer", [BiEncoderTrainer, CrossEncoderTrainer])
def test_a_model_object_is_looked_at_as_a_name_is(trainer: Any, tiny: Path, tmp_path: Path) -> None:
    auto: Any = AutoModel if trainer is BiEncoderTrainer else AutoModelForSequenceClassification
    arguments = trainer.arguments_class(str(tmp_path), **QUIET, max_steps=1)

    def config(**values: int) -> Any:
        return BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1, **values)

    tokenizer = AutoTokenizer.from_pretrained(tiny, padding_side="left")
    short = auto.from_config(config(vocab_size=len(tokenizer), max_position_embeddings=20))
    made = trainer(short, arguments, labelled(16), processing_class=tokenizer)
    made.train()
    assert (made.encoder.max_length, made.encoder.tokenizer.padding_side) == (20, "right")
    few = auto.from_config(config(vocab_size=50))
    with pytest.raises(InputError, match=r"its tokenizer knows .* tokens .* embeddings for 50"):
        trainer(few, arguments, labelled(16), processing_class=tokenizer)
    made.encoder.max_length = 21
    with pytest.raises(InputError, match=r"21 tokens, but model Bert.* has 20 positions; set it to 20 or fewer"):
        trainer(made.encoder, arguments, labelled(16))


def test_a_model_of_few_positions_reads_as_many_by_default(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 20}
    AutoModel.from_config(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    for kind in (BiEncoder, CrossEncoder):
        assert kind.from_pretrained(str(tmp_path / "short")).max_length == 20


def test_metrics_that_are_no_numbers_are_left_out_of_the_card() -> None:
    log = [{"step": 3, "eval_x": 0.5, "eval_best": "news", "eval_matrix": [1, 2]}]
    assert last_metrics(log) == {"eval_x": 0.5}


def test_flags_are_parsed_as_those_of_transformers() -> None:
    parser = HfArgumentParser(CrossEncoderTrainingArguments)  # type: ignore[arg-type]
    for more, expected in (([], None), (["--load_best_model_at_end"], True)):
        (parsed,) = parser.parse_args_into_dataclasses(["--output_dir", "x", *more])
        assert parsed.load_best_model_at_end is expected


@pytest.mark.parametrize("trainer", [BiEncoderTrainer, CrossEncoderTrainer])
def test_the_card_of_an_adapter_says_how_it_is_loaded(
    trainer: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"task_type": "SEQ_CLS"} if trainer is CrossEncoderTrainer else {}
    arguments = trainer.arguments_class(str(tmp_path / "adapter"), **QUIET, max_steps=1)
    made = trainer(str(tiny), arguments, labelled(16), peft_config=peft.LoraConfig(**LORA, **task))
    made.train()
    made.save_model()
    made.create_model_card()
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "adapter" / "README.md").read_text(), re.DOTALL)
    capsys.readouterr()
    exec(code, {})
    assert re.search(r"\d\.\d", capsys.readouterr().out)


def test_scores_of_a_card_are_those_of_the_weights_that_were_loaded() -> None:
    history = [
        {"step": 1, "eval_one_spearman": 0.9, "eval_runtime": 1.0},
        {"step": 1, "eval_two_spearman": 0.7},
        {"step": 2, "eval_one_spearman": 0.3},
        {"step": 2, "eval_two_spearman": 0.2},
        {"step": 2, "train_runtime": 3.0},
    ]
    assert last_metrics(history) == {"eval_one_spearman": 0.3, "eval_two_spearman": 0.2}
    assert last_metrics(history, 1) == {"eval_one_spearman": 0.9, "eval_two_spearman": 0.7}
    assert last_metrics([*history, {"step": 2, "eval_one_spearman": 0.91}], 1) == {"eval_one_spearman": 0.91}
    assert last_metrics(history[:3], 1) == {"eval_one_spearman": 0.3}  # while it trains


def test_the_best_weights_are_loaded_and_their_scores_are_in_the_card(tiny: Path, tmp_path: Path) -> None:
    values = iter([0.9, 0.3])

    def spearman(scores: Any, gold: Any) -> float:
        return next(values)

    arguments = bi_arguments(tmp_path, num_train_epochs=1, eval_steps=1, save_strategy=None)
    trainer = BiEncoderTrainer(str(tiny), arguments, labelled(16), labelled(8), metric=spearman)
    trainer.train()
    assert trainer.state.best_global_step == 1
    trainer.create_model_card()
    assert "| eval_spearman | 0.9000 |" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_follows_the_score_keeps_the_rate_while_it_rises(
    schedule: str, tiny: Path, tmp_path: Path
) -> None:
    scores = iter(range(100))
    arguments = bi_arguments(
        tmp_path, num_train_epochs=6, lr_scheduler_type=schedule, learning_rate=1e-3,
        lr_scheduler_kwargs={"patience": 1, "factor": 0.5},
    )  # fmt: skip
    with pytest.raises(InputError, match=f"^lr_scheduler_type: '{schedule}' follows the metric of an eval_dataset"):
        BiEncoderTrainer(str(tiny), arguments, labelled(16))
    trainer = BiEncoderTrainer(str(tiny), arguments, labelled(16), labelled(8), metric=lambda *_: next(scores) / 100)
    trainer.train()
    assert trainer.lr_scheduler.get_last_lr()[0] >= 1e-3


def test_plain_weights_are_not_saved_beside_an_older_adapter(tiny: Path, tmp_path: Path) -> None:
    adapters = peft.LoraConfig(task_type="FEATURE_EXTRACTION", **LORA)
    BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), labelled(8), peft_config=adapters).save_model()
    assert (tmp_path / ADAPTER_FILES[0]).is_file()
    BiEncoderTrainer(str(tiny), bi_arguments(tmp_path), labelled(8)).save_model()
    assert not [file for file in ADAPTER_FILES if (tmp_path / file).exists()]


def test_adapters_with_a_head_are_not_resumed(tiny: Path, tmp_path: Path) -> None:
    adapters = peft.LoraConfig(task_type="FEATURE_EXTRACTION", **LORA)
    arguments = bi_arguments(tmp_path, loss="info_nce", mlp_head=True)
    encoder = BiEncoder.from_pretrained(str(tiny), pooling="cls")
    trainer = BiEncoderTrainer(encoder, arguments, labelled(16).remove_columns("label"), peft_config=adapters)
    with pytest.raises(InputError, match=r"^resume_from_checkpoint: a checkpoint of adapters does not hold the head"):
        trainer.train(resume_from_checkpoint=True)


def test_the_pairs_that_were_trained_on_are_scored_once_each(tiny: Path, tmp_path: Path) -> None:
    pairs = labelled(10)
    trainer = CrossEncoderTrainer(str(tiny), CrossEncoderTrainingArguments(str(tmp_path), **QUIET), pairs)
    assert len(trainer.train_dataset) == 20
    scores = trainer.predict(trainer.train_dataset).predictions
    np.testing.assert_allclose(scores, trainer.predict(pairs).predictions, atol=1e-6)
