"""YAML that cannot be meant is refused with one sentence, wherever a person writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from te_trainer.config.commands import parse, parse_contrastive, parse_evaluation
from te_trainer.errors import InputError
from te_trainer.runs.manifest import read_manifest

BASE = "models: [bert]\ndata: {pool: [a.tsv]}\ndistillation: {selection: last}\n"
REFUSED = {
    "twice": (BASE + "seed: 1\nseed: 2\n", "line 5 is not YAML (the key 'seed' stands there twice)"),
    "twice, quoted": (BASE + "seed: 1\n'seed': 2\n", "line 5 is not YAML (the key 'seed' stands there twice)"),
    "twice in a section": ("data:\n  pool: [a.tsv]\n  pool: [b.tsv]\n", "line 3 is not YAML (the key 'pool'"),
    "twice in an entry": ("models:\n  - {bi_encoder: a, name: x, name: y}\n", "line 2 is not YAML (the key 'name'"),
    "deep": (BASE + "hub: " + "[" * 600 + "\n", "is not YAML (maximum recursion depth exceeded"),
    "digits": (BASE + "seed: " + "1" * 10_000, "is not YAML (Exceeds the limit"),
    "alias": (BASE + "seed: *nothing", "line 4 is not YAML (found undefined alias"),
    "key": (BASE + "? [a]\n: 1", "line 4 is not YAML (found unhashable key)"),
    "itself": ("data: &data {pool: *data}\n", "line 1 is not YAML (found unconstructable recursive node)"),
    "itself in a list": (BASE + "hub: &hub [*hub]\n", "line 4 is not YAML (found unconstructable recursive node)"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def complaint(parser: object, *arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        parser(list(arguments))  # type: ignore[operator]
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["#1: ", "# x", "&x", "1e3", "yes", "", " ", "[a]", "query: ", "2026-11-27", "{", "null "]
)
def test_a_text_that_yaml_would_read_as_nothing_or_as_something_else_stays(file: Path, text: str) -> None:
    file.write_text(BASE + f"bi_encoder: {{prompt: '{text}'}}\n")
    assert parse(["--config", str(file)]).bi_encoder.prompt == text
    file.write_text(BASE)
    assert parse(["--config", str(file), f"--bi_encoder.prompt={text}"]).bi_encoder.prompt == text


def test_no_value_is_written_without_quotes(file: Path) -> None:
    file.write_text(BASE.replace("pool:", "dev: 'null', pool:"))
    assert parse(["--config", str(file)]).data.dev == "null"
    assert parse(["--config", str(file), "--data.dev", "null"]).data.dev is None
    file.write_text(BASE.replace("pool:", "dev: ~, pool:"))
    assert parse(["--config", str(file)]).data.dev is None


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_meant_is_refused_with_its_line(file: Path, case: str) -> None:
    text, sentence = REFUSED[case]
    file.write_text(text)
    for parser in (parse, parse_contrastive, parse_evaluation):
        assert complaint(parser, "--config", str(file)).startswith(f"--config: {file}, {sentence}")
    found = complaint(parse, "--models", "a", "--data.pool", "a.tsv", f"--distillation.step0={file}")
    assert found.startswith(f"distillation.step0: {file}, {sentence}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "[" * 500 + "]" * 500], "models: is not YAML (maximum recursion depth exceeded"),
        (["--models", "[{bi_encoder: a, name: b, name: c}]"], "models: line 1 is not YAML (the key 'name' stands"),
        (["--data", "{pool: a, pool: b}"], "data: line 1 is not YAML (the key 'pool' stands there twice)"),
        (["--data", "other.yaml"], "data: input should be a valid dictionary, got 'other.yaml'"),
        (["--seed", "1" * 10_000], "seed: input should be a valid integer, got '111"),
    ],
)
def test_a_value_of_the_command_line_is_refused_with_its_key(arguments: list[str], sentence: str) -> None:
    assert complaint(parse, *arguments).startswith(sentence)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("hub: other.yaml", "hub: input should be a valid dictionary, got 'other.yaml'"),
        ("config: other.yaml", "unknown key 'config'; did you mean"),
        ("seed: 2026-13-45", "seed: input should be a valid integer, got '2026-13-45'"),
    ],
)
def test_a_value_of_a_file_is_refused(file: Path, line: str, sentence: str) -> None:
    file.write_text(BASE + line + "\n")
    assert complaint(parse, "--config", str(file)).startswith(sentence)


def test_an_alias_that_stands_for_something_is_read(file: Path) -> None:
    file.write_text(
        "models: [bert]\ndata: {pool: &all [a.tsv, b.tsv], test: *all}\ndistillation: {selection: last}\n"
        "bi_encoder: &training {max_length: 48}\ncross_encoder: {<<: *training, num_train_epochs: 2}\n"
    )
    config = parse(["--config", str(file)])
    assert config.data.pool == config.data.test == ["a.tsv", "b.tsv"]
    assert (config.cross_encoder.max_length, config.cross_encoder.training) == (48, {"num_train_epochs": 2})


@pytest.mark.parametrize("case", ["twice", "deep"])
def test_a_run_file_that_no_run_wrote_is_refused(file: Path, case: str) -> None:
    file.write_text(REFUSED[case][0])
    with pytest.raises(InputError, match=r"holds a run\.yaml that is damaged, or that no run wrote"):
        read_manifest(file.parent)
