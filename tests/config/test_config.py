"""Command line and YAML file: what is understood, what is refused with which words, and what `--help` tells."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import docstring_parser
import pytest
import yaml
from conftest import ROOT, run_recipe
from transformers import TrainingArguments

from te_trainer.config import training_keys
from te_trainer.config.commands import parse, parse_contrastive, parse_evaluation, parse_push, parse_score, parse_step0
from te_trainer.config.help_layout import help_text
from te_trainer.config.parsing import keys_of
from te_trainer.config.schema import (
    BiEncoderConfig,
    ContrastiveConfig,
    CrossEncoderConfig,
    DataConfig,
    DistillationConfig,
    EvaluationConfig,
    HubConfig,
    LoraConfig,
    ModelConfig,
    PushConfig,
    RunConfig,
)
from te_trainer.errors import InputError
from te_trainer.evaluation.models import resolve_models
from te_trainer.runs.changes import compared_values
from te_trainer.trainers import BiEncoderTrainingArguments, CrossEncoderTrainingArguments

LEAST = ["--models", "[m]", "--data.pool", "pairs.tsv", "--distillation.selection", "last"]
ARGUMENTS = {"bi_encoder": BiEncoderTrainingArguments, "cross_encoder": CrossEncoderTrainingArguments}


def least(*more: str) -> RunConfig:
    """A configuration that is whole, and what a test adds to it."""
    return parse([*LEAST, *more])


def complaint(*arguments: str) -> str:
    """The one sentence with which arguments are refused."""
    with pytest.raises(InputError) as caught:
        least(*arguments)
    sentence = str(caught.value)
    assert sentence and "\n" not in sentence
    return sentence


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


# ---------------------------------------------------------------- what is understood

SIMCSE = str(ROOT / "recipes" / "contrastive" / "simcse_bert_base.yaml")
WHOLE = """
models:
  - bi_encoder: princeton-nlp/unsup-simcse-bert-base-uncased
    cross_encoder: bert-base-uncased
    name: bert
    pooling: mean
  - roberta-base
data:
  pool: [a.tsv, b.txt]
  columns: {sentence1: question1, sentence2: question2}
  max_pairs: 1000
  extra: [snli.tsv]
  extra_pairs: 30000
  dir: gold
  dev: stsb
  test: [sts12, sts13]
distillation:
  task: binary
  size: large
  cycles: 4
  init: sequential
  students: bi-encoder
  combine: rank
  selection: dev
  held_out: 0.1
  precision: bfloat16
  batch_tokens: 8192
  keep_cycles: true
  isolate_stages: true
  step0: SIMCSE
lora: {rank: 8, target_modules: [query, value]}
hub: {repo_id: me/tickets, branch_per_cycle: true, license: mit}
bi_encoder:
  learning_rate: 1e-4
  num_train_epochs: 2
  max_length: 48
cross_encoder:
  both_orders: false
  lr_scheduler_kwargs: {num_cycles: 2}
output_dir: runs/whole
seed: 7
ddp_timeout: 7200
report_to: [tensorboard, wandb]
""".replace("SIMCSE", SIMCSE)


def test_a_yaml_file_gives_every_section(file: Path) -> None:
    file.write_text(WHOLE, encoding="utf-8")
    assert parse(["--config", str(file)]) == RunConfig(
        models=[
            ModelConfig("princeton-nlp/unsup-simcse-bert-base-uncased", "bert-base-uncased", "bert", "mean"),
            ModelConfig("roberta-base"),
        ],
        data=DataConfig(
            pool=["a.tsv", "b.txt"],
            columns={"sentence1": "question1", "sentence2": "question2"},
            max_pairs=1000,
            extra=["snli.tsv"],
            extra_pairs=30000,
            dir="gold",
            dev="stsb",
            test=["sts12", "sts13"],
        ),
        distillation=DistillationConfig(
            task="binary",
            size="large",
            cycles=4,
            init="sequential",
            students="bi-encoder",
            combine="rank",
            selection="dev",
            held_out=0.1,
            precision="bfloat16",
            batch_tokens=8192,
            keep_cycles=True,
            isolate_stages=True,
            step0=SIMCSE,
        ),
        bi_encoder=BiEncoderConfig({"learning_rate": 1e-4, "num_train_epochs": 2.0}, max_length=48),
        cross_encoder=CrossEncoderConfig({"lr_scheduler_kwargs": {"num_cycles": 2}}, both_orders=False),
        lora=LoraConfig(rank=8, target_modules=["query", "value"]),
        hub=HubConfig("me/tickets", branch_per_cycle=True, license="mit"),
        report_to=["tensorboard", "wandb"],
        output_dir="runs/whole",
        seed=7,
        ddp_timeout=7200,
        step0=parse_step0(SIMCSE),
    )


def test_the_command_line_overrides_its_files_wherever_they_stand(file: Path) -> None:
    file.write_text("output_dir: runs/recipe\nseed: 7\ndata: {columns: {sentence1: left}}\n", encoding="utf-8")
    later = file.with_name("later.yaml")
    later.write_text("seed: 8\n", encoding="utf-8")
    own = ["--output_dir", "runs/mine", "--data.columns.sentence2", "right"]
    files = ["--config", str(file), "--config", str(later)]
    for arguments in (own + files, files + own):
        config = least(*arguments)
        assert (config.output_dir, config.seed) == ("runs/mine", 8)
        assert config.data.columns == {"sentence1": "left", "sentence2": "right"}


def test_models_on_the_command_line_take_nothing_from_those_of_the_file(file: Path) -> None:
    file.write_text(WHOLE, encoding="utf-8")
    entries = "[{bi_encoder: y/one, name: one}, {bi_encoder: y/two}]"
    for override in (["--models", entries], [f"--models={entries}"]):
        models = parse(["--config", str(file), "--distillation.combine", "mean", *override]).models
        assert models == [ModelConfig("y/one", "y/one", "one"), ModelConfig("y/two", "y/two", "two")]


def test_an_override_changes_its_key_alone(file: Path) -> None:
    file.write_text(WHOLE, encoding="utf-8")
    plain = parse(["--config", str(file)])
    overrides = ["--bi_encoder.learning_rate", "3e-5", "--distillation.cycles=2", "--data.test", "[sts16]"]
    changed = parse(["--config", str(file), *overrides, "--models", "[bert-base-uncased]"])
    assert changed.bi_encoder.training == {**plain.bi_encoder.training, "learning_rate": 3e-5}
    assert (changed.distillation.cycles, changed.distillation.batch_tokens) == (2, 8192)
    assert (changed.data.test, changed.data.pool) == (["sts16"], ["a.tsv", "b.txt"])
    assert [model.name for model in changed.models] == ["bert-base-uncased"]
    assert changed.cross_encoder == plain.cross_encoder
    assert (least().bi_encoder.training, least().seed) == ({}, 2021)


def test_a_single_value_stands_for_a_list_of_one(file: Path) -> None:
    file.write_text(
        "models: bert-base-uncased\ndata: {pool: a b.tsv, test: sts12}\nreport_to: wandb\n", encoding="utf-8"
    )
    keys = ["--models=bert-base-uncased", "--data.pool=a b.tsv", "--data.test=sts12", "--report_to=wandb"]
    for arguments in (["--config", str(file)], keys):
        config = parse([*arguments, "--distillation.selection", "last"])
        assert config.models == [ModelConfig("bert-base-uncased")]
        assert (config.data.pool, config.data.test, config.report_to) == (["a b.tsv"], ["sts12"], ["wandb"])


def test_a_section_may_be_written_as_one_mapping() -> None:
    assert least("--data", "{test: [a, b], max_pairs: 3}", "--data.max_pairs", "4").data.test == ["a", "b"]
    assert least("--data.columns.score", "gold").data.columns == {"score": "gold"}
    kwargs = least("--cross_encoder.lr_scheduler_kwargs.num_cycles", "2").cross_encoder.training
    assert kwargs == {"lr_scheduler_kwargs": {"num_cycles": 2}}


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("princeton-nlp/sup-simcse", "sup-simcse"),
        ("/disk/models/mine/", "mine"),
        ("package_with_encoder:model", "model"),
        ("bert-base-uncased", "bert-base-uncased"),
    ],
)
def test_a_model_is_named_after_its_start(start: str, name: str) -> None:
    (model,) = least("--models", f"[{start}]").models
    assert (model.bi_encoder, model.cross_encoder, model.name) == (start, start, name)


@pytest.mark.parametrize("written", ["2e-5", "2.0e-5", "0.00002"])
def test_a_small_number_may_be_written_as_people_write_it(written: str, file: Path) -> None:
    """YAML 1.1 takes `2e-5` for a string."""
    file.write_text(f"bi_encoder:\n  learning_rate: {written}\n", encoding="utf-8")
    assert least("--config", str(file)).bi_encoder.training == {"learning_rate": 2e-5}
    assert least("--bi_encoder.learning_rate", written).bi_encoder.training == {"learning_rate": 2e-5}


def test_a_tilde_stands_for_the_home_in_every_path(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries disagree: pathlib keeps it, and datasets and pyarrow expand it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "models" / "b").mkdir()
    file.write_text(
        "models: [~/models/a]\noutput_dir: ~/runs/x\ndistillation: {selection: last}\n"
        "data: {pool: ~/a.tsv, sentences: [~/b.txt], extra: [~/c.tsv], dev: ~/dev.tsv, test: [~/t.tsv], dir: ~/gold}\n"
    )
    config = parse(["--config", f"~/{file.name}"])
    assert complaint("--config", "~nobody-of-this-name/x.yaml").startswith(
        "--config: ~nobody-of-this-name/x.yaml cannot"
    )
    data = config.data
    paths = [config.models[0].cross_encoder, *data.pool, *data.sentences, *data.extra, data.dev, *data.test, data.dir]
    assert config.output_dir == f"{tmp_path}/runs/x"
    assert paths == [
        f"{tmp_path}/{name}" for name in ("models/a", "a.tsv", "b.txt", "c.tsv", "dev.tsv", "t.tsv", "gold")
    ]
    scored = parse_score(["--model", "~/models/a", "--data.pairs", "~/a.tsv", "--output", "~/scores.tsv"])
    assert (scored.model, scored.data.pairs, scored.output) == tuple(
        f"{tmp_path}/{name}" for name in ("models/a", "a.tsv", "scores.tsv")
    )
    evaluation = parse_evaluation(["--models", "~/models/a + ~/models/b", "--tasks", "~/a.tsv"])
    with pytest.raises(InputError, match=f"^model {tmp_path}/models/a: "):
        resolve_models(evaluation)
    assert parse_push(["~/runs/x", "--hub.repo_id", "me/x"]).run == f"{tmp_path}/runs/x"


@pytest.mark.parametrize("section", ARGUMENTS)
def test_every_other_key_of_training_arguments_is_accepted_at_its_default(section: str, file: Path) -> None:
    """None, [] and '' are left out: they say nothing."""
    values = {key.name: plain(default_of(key)) for key in fields(TrainingArguments) if not is_managed(key.name)}
    given = {name: value for name, value in values.items() if value not in (None, [], "")}
    assert len(given) > 30
    file.write_text(yaml.safe_dump({section: given}), encoding="utf-8")
    assert getattr(least("--config", str(file)), section).training == given


def is_managed(name: str) -> bool:
    return name in training_keys.MANAGED or name.startswith("hub_")


def default_of(key: Field[Any]) -> Any:
    return key.default_factory() if key.default_factory is not MISSING else key.default


def plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


# ---------------------------------------------------------------- what is refused

UNKNOWN = {
    "sede": "seed",
    "data.pol": "data.pool",
    "dataa.pool": "data.pool",
    "bi_encoder.learning_rat": "bi_encoder.learning_rate",
    "cross_encoder.both_order": "cross_encoder.both_orders",
    "max_pairs": "data.max_pairs",
    "bi_encoder.epochs": "bi_encoder.num_train_epochs",
    "cross_encoder.lr": "cross_encoder.learning_rate",
    "bi_encodr.learning_rate": "bi_encoder.learning_rate",
    "cross_encoder.batch_size": "cross_encoder.per_device_train_batch_size",
    "bi_encoder.cycles": "distillation.cycles",
}


@pytest.mark.parametrize(("key", "nearest"), UNKNOWN.items())
def test_an_unknown_key_is_answered_with_the_nearest(key: str, nearest: str, file: Path) -> None:
    section, _, name = key.rpartition(".")
    file.write_text(yaml.safe_dump({section: {name: 3}} if section else {name: 3}), encoding="utf-8")
    for arguments in (["--config", str(file)], [f"--{key}", "3"], [f"--{key}=3"]):
        assert complaint(*arguments) == f"unknown key '{key}'; did you mean '{nearest}'?"
    assert complaint("--zzzz", "3") == "unknown key 'zzzz'; --help lists the known ones"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("{bi_encoder: m, cross_encodr: x}", "models: unknown key 'cross_encodr'; did you mean 'cross_encoder'?"),
        ("{bi_encodr: m}", "models: unknown key 'bi_encodr'; did you mean 'bi_encoder'?"),
        ("{name: n}", "models.bi_encoder: field required, got {'name': 'n'}"),
        ("{bi_encoder: m, pooling: max}", "models.pooling: input should be 'cls', 'mean' or 'last', got 'max'"),
        ("{bi_encoder: m, weight: .nan}", "models.weight: input should be a finite number, got nan"),
    ],
)
def test_a_wrong_entry_of_the_models_is_refused(entry: str, sentence: str, file: Path) -> None:
    file.write_text(f"models:\n  - {entry}\n", encoding="utf-8")
    rest = ["--data.pool", "pairs.tsv", "--distillation.selection", "last"]
    for arguments in (["--config", str(file)], ["--models", f"[{entry}]"]):
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
            parse([*rest, *arguments])


@pytest.mark.parametrize("entry", ["[m", "[{bi_encoder m}]"])
def test_broken_brackets_are_no_model(entry: str) -> None:
    assert complaint("--models", entry).startswith("models")


def test_a_switch_that_may_be_a_word_too_is_read_as_in_a_file(file: Path) -> None:
    for value, expected in (("false", False), ("True", True), ("non_padding", "non_padding")):
        file.write_text(f"bi_encoder: {{include_num_input_tokens_seen: {value}}}\n", encoding="utf-8")
        for given in (["--config", str(file)], ["--bi_encoder.include_num_input_tokens_seen", value]):
            assert parse([*LEAST, *given]).bi_encoder.training["include_num_input_tokens_seen"] == expected


def test_a_value_without_a_key_is_refused() -> None:
    for arguments in (["pairs.tsv"], ["--seed", "3", "4"]):
        assert complaint(*arguments) == f"unexpected argument '{arguments[-1]}': write --section.key value"
    for files in (["a.csv", "b.csv"], ["[a.csv,", "b.csv]"], ["a.csv", "b.csv", "c.csv"]):
        several = "write --section.key value; several are written --data.pool '[a.csv, b.csv]'"
        assert complaint("--data.pool", *files) == f"unexpected argument '{files[1]}': {several}"
    assert complaint("--seed") == "seed: its value is missing; write --seed VALUE"
    assert complaint("--data.pool", "--seed", "3") == "data.pool: its value is missing; write --data.pool VALUE"
    missing = "distillation.keep_cycles: its value is missing; write --distillation.keep_cycles true"
    assert complaint("--distillation.keep_cycles", "--seed", "3") == missing
    prompt = "bi_encoder.prompt: its value is missing; write --bi_encoder.prompt=VALUE, as it begins with --"
    assert complaint("--bi_encoder.prompt", "--query: ") == prompt
    assert least("--bi_encoder.prompt=--").bi_encoder.prompt == "--"


WRONG = [
    ("seed", "abc", "a valid integer, got 'abc'"),
    ("seed", "1.5", "a valid integer, got 1.5"),
    ("seed", "-1", "greater than or equal to 0, got -1"),
    ("ddp_timeout", "0", "greater than or equal to 1, got 0"),
    ("models", "3", "a name or a mapping, got 3"),
    ("data.max_pairs", "0", "greater than 0, got 0"),
    ("data.columns", "question1", "a valid dictionary, got 'question1'"),
    ("data.pool", "{a: 1}", "a valid string"),
    ("data.dev", "[a, b]", "a valid string"),
    ("distillation.cycles", "true", "a valid integer, got True"),
    ("distillation.cycles", "[1]", "a valid integer, got [1]"),
    ("distillation.task", "st", "'sts' or 'binary', got 'st'"),
    ("distillation.keep_cycles", "maybe", "a valid boolean, got 'maybe'"),
    ("lora.dropout", ".nan", "less than 1, got nan"),
    ("lora.dropout", "1", "less than 1, got 1"),
    ("bi_encoder.pooling", "max", "'cls', 'mean' or 'last', got 'max'"),
    ("bi_encoder.learning_rate", "fast", "a valid number, got 'fast'"),
    ("cross_encoder.learning_rate", "0", "greater than 0, got 0"),
    ("cross_encoder.per_device_train_batch_size", "0", "greater than 0, got 0"),
    ("output_dir", "3", "a valid string"),
    ("report_to", "tensorbord", "'tensorboard', 'trackio' or 'wandb', got 'tensorbord'"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_is_refused_with_its_key(key: str, value: str, expected: str, file: Path) -> None:
    section, _, name = key.rpartition(".")
    file.write_text(f"{section}: {{{name}: {value}}}\n" if section else f"{name}: {value}\n", encoding="utf-8")
    assert complaint("--config", str(file)).startswith(f"{key}: input should be {expected}")


def test_a_column_that_no_set_has_is_refused() -> None:
    sentence = "data.columns.sentense1: input should be one of sentence1, sentence2, score, got 'sentense1'"
    assert complaint("--data.columns", "{sentense1: q}") == sentence


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("models:", "models"),
        ("seed:", "seed"),
        ("data:", "data"),
        ("data:\n  pool:\n  max_pairs: 3", "data.pool"),
        ("distillation: {task: null}", "distillation.task"),
    ],
)
def test_a_key_left_empty_is_refused_by_name(text: str, key: str, file: Path) -> None:
    file.write_text(f"report_to: [wandb]\n{text}\n", encoding="utf-8")
    assert complaint("--config", str(file)) == f"{key} is empty; give a value, or leave the key out"


@pytest.mark.parametrize("key", ["data.dev", "data.pool", "data.test", "data.dir", "models.bi_encoder", "seed"])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_value_names_nothing(key: str, blank: str) -> None:
    name = key.removesuffix(".bi_encoder")
    assert complaint(f"--{name}", blank) == f"{key} is empty; give a value, or leave the key out"


def test_a_blank_entry_names_nothing() -> None:
    said = complaint("--data.pool", "[pairs.tsv, '']")
    assert said == "data.pool: an entry is empty; name something in its place, or remove it"


def test_columns_may_be_called_like_numbers_and_truth_values(file: Path) -> None:
    columns = least("--data.columns.sentence1", "0", "--data.columns.sentence2", "on").data.columns
    assert columns == {"sentence1": "0", "sentence2": "on"}
    file.write_text("data: {columns: {sentence1: '0', sentence2: 1}}\n", encoding="utf-8")
    sentence = "data.columns.sentence2: input should be a valid string, got 1; put it in quotes"
    assert complaint("--config", str(file)) == sentence


REPOSITORY = "cannot name a repository; write it as OWNER/NAME"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--hub.repo_id", "tickets"], f"hub.repo_id: 'tickets' {REPOSITORY}"),
        (["--hub.repo_id", "me/tickets.git"], f"hub.repo_id: 'me/tickets.git' {REPOSITORY}"),
        (["--hub.repo_id", "me/a--b"], f"hub.repo_id: 'me/a--b' {REPOSITORY}"),
        (
            ["--hub.private", "true"],
            "hub: its keys say how to publish, but hub.repo_id is not given; name OWNER/NAME",
        ),
        (
            ["--hub.repo_id", "me/tickets", "--hub.branch_per_cycle", "true"],
            "hub.branch_per_cycle is given but only the best encoders are kept; set distillation.keep_cycles to true",
        ),
    ],
)
def test_what_cannot_be_published_is_refused(arguments: list[str], sentence: str) -> None:
    assert complaint(*arguments) == sentence


def test_a_run_is_published_by_its_folder() -> None:
    wanted = PushConfig("runs/x", HubConfig("me/x", private=True))
    keys = ["--hub.repo_id", "me/x", "--hub.private", "true"]
    assert parse_push(["runs/x", *keys]) == parse_push([*keys, "--run", "runs/x"]) == wanted


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "run is missing: write te-trainer push (python recipes/push_to_hub.py) RUN_FOLDER"),
        (["runs/x"], "hub.repo_id is missing: write te-trainer push (python recipes/push_to_hub.py) RUN_FOLDER"),
        (["runs/x", "--hub.repo", "me/x"], "unknown key 'hub.repo'; did you mean 'hub.repo_id'?"),
    ],
)
def test_a_push_without_folder_or_repository_is_refused(arguments: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        parse_push(arguments)


PARSERS: dict[str, tuple[Any, list[str]]] = {
    "trans_encoder": (parse, ["--models", "[x]", "--data.pool", "[a.tsv]", "--distillation.selection", "last"]),
    "contrastive": (parse_contrastive, ["--model", "x", "--data.sentences", "[a.txt]"]),
    "evaluate_sts": (parse_evaluation, ["--models", "[x]"]),
    "score": (parse_score, ["--model", "x", "--data.pairs", "a.tsv", "--output", "b.tsv"]),
}


@pytest.mark.parametrize("recipe", PARSERS)
def test_how_long_processes_wait_is_a_key_of_every_recipe(recipe: str) -> None:
    read, least_of_it = PARSERS[recipe]
    config, longer = read(least_of_it), read([*least_of_it, "--ddp_timeout", "72000"])
    assert (config.ddp_timeout >= 6 * 3600, longer.ddp_timeout) == (
        True,
        72000,
    )  # as long as ten million pairs may take
    assert recipe == "score" or compared_values(longer) == compared_values(config), "a run continues with it"
    with pytest.raises(InputError, match=r"^ddp_timeout: input should be less than 2147483648, got 2147483648$"):
        read([*least_of_it, "--ddp_timeout", str(2**31)])


@pytest.mark.parametrize(
    ("more", "start"),
    [
        (["--models", "[]"], "models is empty"),
        (["--data.pool", "[]"], "data.pool is empty"),
        (["--models", "[{bi_encoder: m, weight: 2}]"], "models: 'm' has a weight, but distillation.combine is 'mean'"),
        (["--data.extra_pairs", "10"], "data.extra_pairs is given but data.extra names no source"),
        (["--distillation.selection", "dev"], "distillation.selection is 'dev' but data.dev names no set"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(more: list[str], start: str) -> None:
    assert complaint(*more).startswith(start)


def test_values_that_fit_together_are_taken() -> None:
    weighted = ["--models", "[{bi_encoder: m, weight: 2}, n]", "--distillation.combine", "weighted"]
    assert [model.weight for model in least(*weighted).models] == [2.0, None]
    assert least("--data.extra_pairs", "10", "--data.extra", "snli.tsv").data.extra == ["snli.tsv"]
    assert least("--distillation.selection", "dev", "--data.dev", "stsb").data.dev == "stsb"
    assert least("--distillation.selection", "agreement").data.dev is None


@pytest.mark.parametrize(
    ("name", "reason"),
    {"seed": "the run's seed", "report_to": "top of the configuration", "hub_token": "publishes"}.items(),
)
def test_what_a_run_decides_is_refused_with_the_reason(name: str, reason: str, file: Path) -> None:
    file.write_text(f"cross_encoder:\n  {name}: 1\n", encoding="utf-8")
    for arguments in (["--config", str(file)], [f"--cross_encoder.{name}", "1"]):
        said = complaint(*arguments)
        assert said.startswith(f"cross_encoder.{name} cannot be set: ") and reason in said


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "trust_remote_code": "code of a model's repository is never run",
        "dtype": "weights are learnt and saved in float32",
        "torch_dtype": "distillation.precision) chooses the arithmetic",
        "model_kwargs": "attn_implementation is a key of its own",
    }.items(),
)
def test_a_key_of_other_libraries_is_refused_with_what_is_so(name: str, words: str, file: Path) -> None:
    for prefix in ("", "bi_encoder.", "distillation."):
        said = complaint(f"--{prefix}{name}", "x")
        assert said.startswith(f"{prefix}{name} cannot be set: ") and words in said and "did you mean" not in said
    file.write_text(f"models: [{{bi_encoder: m, {name}: x}}]\n", encoding="utf-8")
    assert complaint("--config", str(file)).startswith(f"models.{name} cannot be set: ")
    for read in (parse_score, parse_evaluation, parse_contrastive):
        with pytest.raises(InputError, match=f"^{name} cannot be set: "):
            read([f"--{name}", "x"])
    file.write_text(f"model_kwargs: {{{name}: x}}\n", encoding="utf-8")
    assert complaint("--config", str(file)).startswith(f"model_kwargs.{name} cannot be set: ")


def test_a_reason_may_differ_from_command_to_command() -> None:
    with pytest.raises(InputError, match=r"^contrastive\.greater_is_better cannot be set: the dev set chooses"):
        parse_contrastive(["--contrastive.greater_is_better", "true"])


def test_every_managed_key_is_one_of_transformers() -> None:
    assert not training_keys.MANAGED.keys() - {key.name for key in fields(TrainingArguments)}


@pytest.mark.parametrize(
    "content",
    [b"", b"- a\n- b\n", b"words\n", b"a: [1\nb: }\n", b"data:\n\tpool: x\n", "output_dir: café\n".encode("latin-1")],
    ids=["empty", "list", "words", "brackets", "tab", "latin-1"],
)
def test_a_configuration_file_that_is_none_is_refused_by_name(content: bytes, file: Path) -> None:
    assert complaint("--config", str(file)) == f"--config: {file} cannot be read (No such file or directory)"
    assert str(file.parent) in complaint("--config", str(file.parent))
    file.write_bytes(content)
    assert str(file) in complaint("--config", str(file))


# ---------------------------------------------------------------- --help


def run_help(option: str, columns: int) -> str:
    finished = run_recipe(option, COLUMNS=str(columns), PYTHONPROFILEIMPORTTIME="1")
    assert finished.returncode == 0
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in finished.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "accelerate", "datasets"}
    return finished.stdout


@pytest.fixture(scope="module")
def help_texts() -> dict[str, str]:
    """What `--help-all` says of each key, on one line."""
    lines = run_help("--help-all", 100_000).splitlines()
    return {match[1]: match[2] for line in lines if (match := re.match(r"  --([\w.]+)  (.*)$", line))}


def test_help_fits_two_screens_and_names_every_key_of_its_own() -> None:
    said = run_help("--help", 80)
    assert len(said.splitlines()) <= 112 and "--help-all" in said.splitlines()[-1]
    own = [key for key in keys_of(RunConfig).values() if not key.of_trainer]
    assert 40 <= len(own) <= 58
    for key in own:
        assert f"  --{key.name}  " in said, key.name
    assert "learning_rate 5e-05" in said


@pytest.mark.parametrize(
    ("command", "default"),
    [
        (EvaluationConfig, "with data.dir every set that lies there, else sts_sickr"),
        (ContrastiveConfig, "the checkpoint's; in a run's step 0, the run's `bi_encoder.prompt`"),
        (
            RunConfig,
            "3 (`sts`) or 5 (`binary`); with `health`, or `auto` and no `data.dev`, 2, or 1 if all pairs are mined",
        ),
    ],
)
def test_help_says_a_default_to_the_end_of_its_sentence(command: type, default: str) -> None:
    assert f"(Default: {default})" in " ".join(help_text(command, full=False).split())


def keys_of_a_run() -> dict[str, Any]:
    """Every key with its default, from the classes that use them."""
    keys: dict[str, Any] = {"models": [], "output_dir": "runs/trans-encoder", "seed": 2021, "report_to": []}
    for section, schema in {"data": DataConfig, "distillation": DistillationConfig}.items():
        keys |= {f"{section}.{key.name}": default_of(key) for key in fields(schema)}
    for section, schema in ARGUMENTS.items():
        known = {key.name: plain(default_of(key)) for key in fields(schema)} | {"max_length": 0}
        known |= {"pooling": None} if section == "bi_encoder" else {}
        # `precision` is the run's own key, distillation.precision; contrastive training has a recipe of its own.
        others = {"precision", "temperature", "both_views", "mlp_head", "span"}
        keys |= {f"{section}.{name}": known[name] for name in known if name not in others and not is_managed(name)}
    return keys | {"bi_encoder.max_length": 32, "cross_encoder.max_length": 64}


def test_help_lists_every_key_with_meaning_and_the_default_that_holds(help_texts: dict[str, str]) -> None:
    expected = keys_of_a_run()
    assert len(expected) > 170
    assert not expected.keys() - help_texts.keys()
    for key, default in expected.items():
        meaning = re.split(r"\(\w+; default: |Default: ", help_texts[key])[0]
        assert len(meaning.split()) >= 3, f"{key}: {help_texts[key]}"
        said = [
            each.strip(" `'") for each in re.findall(r"[Dd]efault: (.*?)(?:\. |\.$|, the paper's|\)$)", help_texts[key])
        ]
        assert said, key
        if default not in (None, [], {}, ""):
            assert str(default) in said or (isinstance(default, float) and default in map(number, said)), key


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def test_help_explains_what_a_model_may_hold(help_texts: dict[str, str]) -> None:
    words = " ".join(help_texts["models"].split())
    for key in docstring_parser.parse(ModelConfig.__doc__ or "").params:
        assert key.arg_name in words
        assert " ".join((key.description or "").split()).rstrip(".") in words, key.arg_name
