"""YAML that cannot be meant is refused with one sentence, wherever a person writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from te_trainer.config import parse, parse_contrastive, parse_evaluation
from te_trainer.errors import InputError
from te_trainer.runs.manifest import read_manifest

BASE = "models: [bert]\ndata: {pool: [a.tsv]}\ndistillation: {selection: last}\n"
LAUGHS = "".join(
    f"  {name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)

REFUSED = {
    "twice": (BASE + "seed: 1\nseed: 2\n", "line 5: the key 'seed' stands there twice; remove one of them"),
    "twice, quoted": (BASE + "seed: 1\n'seed': 2\n", "line 5: the key 'seed' stands there twice; remove one of them"),
    "twice in a section": (
        "models: [bert]\ndata:\n  pool: [a.tsv]\n  pool: [b.tsv]\n",
        "line 4: the key 'pool' stands there twice; remove one of them",
    ),
    "twice in an entry": (
        "models:\n  - {bi_encoder: a, name: x, name: y}\n",
        "line 2: the key 'name' stands there twice; remove one of them",
    ),
    "itself": (BASE + "hub: &a {x: *a}\n", "line 4: *a refers to what it stands in; write out what is meant"),
    "itself, further down": (
        BASE + "hub: &a {x: [1, {y: *a}]}\n",
        "line 4: *a refers to what it stands in; write out what is meant",
    ),
    "laughs": (
        BASE + "hub:\n  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + LAUGHS,
        "line 9: more than 100,000 keys and values, aliases written out; take some away",
    ),
    "null as a text": (
        BASE + "hub: {license: 'null'}\n",
        "line 4: the text 'null' would be read as no value; take its quotes off, or write another",
    ),
    "deep": (
        BASE + "hub: " + "[" * 100_000 + "\n",
        "line 4: more than 20 lists and mappings inside one another; take some away",
    ),
}


def complaint(parser: object, *arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        parser(list(arguments))  # type: ignore[operator]
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize("text", ["#1: ", "# x", "&x", "1e3", "yes", "", " ", "[a]", "query: "])
def test_a_text_that_yaml_would_read_as_nothing_or_as_something_else_stays(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(BASE + f"bi_encoder: {{prompt: '{text}'}}\n")
    assert parse(["--config", str(file)]).bi_encoder.prompt == text
    file.write_text(BASE)
    assert parse(["--config", str(file), f"--bi_encoder.prompt={text}"]).bi_encoder.prompt == text


def test_no_value_is_written_without_quotes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(BASE.replace("pool:", "dev: stsb, pool:"))
    assert parse(["--config", str(file)]).data.dev == "stsb"
    assert parse(["--config", str(file), "--data.dev", "null"]).data.dev is None
    file.write_text(BASE.replace("pool:", "dev: ~, pool:"))
    assert parse(["--config", str(file)]).data.dev is None


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    text, sentence = REFUSED[case]
    file = tmp_path / "run.yaml"
    file.write_text(text)
    for parser in (parse, parse_contrastive, parse_evaluation):
        assert complaint(parser, "--config", str(file)) == f"--config: {file}, {sentence}"
    found = complaint(parse, "--models", "a", "--data.pool", "a.tsv", f"--distillation.step0={file}")
    assert found == f"distillation.step0: {file}, {sentence}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "[" * 500 + "]" * 500], "models: more than 20 lists and mappings inside one another"),
        (["--models=" + "[" * 500], "models: more than 20 lists and mappings inside one another"),
        (["--models", "&a [*a]"], "models: *a refers to what it stands in"),
        (["--models", "[{bi_encoder: a, name: b, name: c}]"], "models: the key 'name' stands there twice"),
        (["--data.columns", "{sentence1: a, sentence1: b}"], "data.columns: the key 'sentence1' stands there twice"),
        (["--data", "{pool: a, pool: b}"], "data: the key 'pool' stands there twice"),
        (["--data", "other.yaml"], "data: expected a section of keys and values, got 'other.yaml'"),
        (["--seed", "1" * 10_000], "seed: expected another value"),
    ],
)
def test_a_value_of_the_command_line_is_refused_with_its_key(arguments: list[str], sentence: str) -> None:
    assert complaint(parse, *arguments).startswith(sentence)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seed: " + "1" * 10_000, "is not YAML (Exceeds the limit"),
        ("seed: *nothing", "line 4 is not YAML (found undefined alias)"),
        ("? [a]\n: 1", "line 4 is not YAML (found unhashable key)"),
        ("hub: other.yaml", "hub: expected a section of keys and values, got 'other.yaml'"),
        ("config: other.yaml", "names another file"),
        ("seed: 2026-13-45", "seed: expected int, got '2026-13-45'"),
    ],
)
def test_a_value_of_a_file_is_refused(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(BASE + line + "\n")
    assert words in complaint(parse, "--config", str(file))


def test_an_alias_that_stands_for_something_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "models: [bert]\ndata: {pool: &all [a.tsv, b.tsv], test: *all}\ndistillation: {selection: last}\n"
        "bi_encoder: &training {max_length: 48}\ncross_encoder: {<<: *training, num_train_epochs: 2}\n"
    )
    config = parse(["--config", str(file)])
    assert config.data.pool == config.data.test == ["a.tsv", "b.tsv"]
    assert (config.cross_encoder.max_length, config.cross_encoder.training) == (48, {"num_train_epochs": 2})


@pytest.mark.parametrize("case", ["twice", "itself", "laughs", "deep"])
def test_a_run_file_that_no_run_wrote_is_refused(tmp_path: Path, case: str) -> None:
    (tmp_path / "run.yaml").write_text(REFUSED[case][0])
    with pytest.raises(InputError, match=r"holds a run\.yaml that is damaged, or that no run wrote"):
        read_manifest(tmp_path)


def test_a_run_file_may_hold_the_text_null(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("config: {name: 'null'}\nversions: {torch: '2'}\n")
    assert read_manifest(tmp_path)["config"] == {"name": "null"}
