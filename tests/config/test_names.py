"""Names that users give: what cannot be a file, a key or a column is refused; what can is shown as it is."""

from __future__ import annotations

import json
import pwd
import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import drawn_curves
from markdown_it import MarkdownIt
from rich.console import Console

from te_trainer.config.commands import parse, parse_evaluation, parse_score
from te_trainer.config.names import RESULT_KEYS, RUN_FOLDER_NAMES, check_path, check_set_names, expand_home
from te_trainer.config.schema import DataConfig, DistillationConfig
from te_trainer.errors import InputError
from te_trainer.escaping import latex_text, markdown_code, markdown_text
from te_trainer.evaluation.paper_tables import show_tables, write_tables
from te_trainer.report.run_tables import result_table, score_table
from te_trainer.report.summary import write_curves, write_report
from te_trainer.report.table_formats import Table
from te_trainer.runs.checks import load_gold_sets
from te_trainer.runs.exit_status import run_command
from te_trainer.runs.progress import RunProgress

# What has a meaning in a terminal, in Markdown, HTML, LaTeX or a chart, and none in a name.
HOSTILE = [
    "a|b",
    "kept: all",
    "[red]x[/red]",
    "[x](y)",
    "`x`",
    "*x* **y**",
    "_x_ a_b __z__",
    "<b>&amp;",
    "~~x~~",
    "$x^2_{$",
    "# 1. x",
    "1. x",
    "- x",
    ":smile:",
    "100% & {#}",
    "ключ 日本",
]


def models(*names: str) -> list[str]:
    """Arguments of a run of several models."""
    entries = json.dumps([{"bi_encoder": "m", "name": name} for name in names], ensure_ascii=False)
    return ["--models", entries, "--data.pool", "pairs.tsv", "--distillation.selection", "last"]


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(list(arguments))
    return str(caught.value)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "name",
    [
        *sorted(RUN_FOLDER_NAMES | RESULT_KEYS),
        "Report.HTML",
        "POOL",
        "Ensemble",
        "cycle-1",
        "Cycle-x",
        ".lock",
        ".partial-x",
        ".training-bi-encoder",
        ".scratch-gold",
        "x.",
        " x",
        "x ",
        "x/y",
        "x\\y",
        "x::y",
        "x" * 201,
        "é" * 101,
        "x\u202ey",
        "x\u200by",
        "x\u2028y",
        " ",
    ],
)
def test_a_model_of_such_a_name_is_refused(name: str) -> None:
    said = refusal(*models(name))
    assert said.startswith(f"models: '{name}' cannot name a model's folder: ") and said.endswith("; give another name")


@pytest.mark.parametrize(("one", "two"), [("A", "a"), ("é", "e\u0301"), ("x²", "x2"), ("straße", "STRASSE")])
def test_names_that_a_file_system_may_take_for_one_another_are_refused(one: str, two: str) -> None:
    assert f"'{one}' and '{two}' differ only in case or in the form of characters" in refusal(*models(one, two))
    assert f"models: two entries are named '{one}'" in refusal(*models(one, one))
    # a default name is checked as well
    assert "'logs' cannot name a model's folder" in refusal("--models", "[me/logs]", "--data.pool", "p.tsv")


@pytest.mark.parametrize(
    "name", [*(name for name in HOSTILE if not {"/", "#"} & set(name)), "x" * 200, "👩\u200d💻", "bert@2", "-x"]
)
def test_other_names_are_taken(name: str) -> None:
    assert [model.name for model in parse(models(name)).models] == [name]


@pytest.mark.parametrize("folder", ["", "a\x1b[31m", "a\u202eb", "a\nb", "runs/" + "x" * 256, "a::b", "s3://a/b"])
def test_a_folder_that_cannot_be_written_to_is_refused(folder: str) -> None:
    with pytest.raises(InputError, match=r"(?s)^output_dir: .* cannot be written to: .*; name another one$"):
        check_path(folder, "output_dir")
    assert refusal(*models("x"), "--output_dir", "a::b").startswith("output_dir: 'a::b' cannot")
    with pytest.raises(InputError, match=r"^output_dir: 'a::b' cannot"):
        parse_evaluation(["--models", "[m]", "--output_dir", "a::b"])


@pytest.mark.parametrize("name", [f"{'x' * 250}.tsv", ".partial-x.tsv", "x\u202ey.tsv"])
def test_an_output_that_cannot_be_written_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^output: "):
        parse_score(["--model", "m", "--data.pairs", "p.tsv", "--output", str(tmp_path / name)])


@pytest.mark.parametrize("key", ["data.pool", "data.dev", "data.test", "data.dir", "models"])
def test_a_source_that_no_file_system_holds_is_refused(key: str) -> None:
    given = {"--models": "[m]", "--data.pool": "p.tsv", "--distillation.selection": "last", f"--{key}": "x" * 300}
    said = refusal(*(part for pair in given.items() for part in pair))
    assert said.startswith(key) and "no part has more than 255 bytes, got 'xxx" in said


def test_a_home_folder_that_nobody_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])  # as in a container that does not know its user
    assert expand_home("runs/~x") == "runs/~x"
    with pytest.raises(InputError, match=r"^'~/runs/x' cannot be found, because HOME is not set"):
        expand_home("~/runs/x")


def test_a_sentence_on_the_screen_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise InputError("no\x1b[2J\u202esuch\nfile \udcff")

    assert run_command(main) == 2
    assert capsys.readouterr().err == "error: no\\x1b[2J\\u202esuch\\nfile \\udcff\n"


# ---------------------------------------------------------------- sets with gold scores


def write_set(path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n", encoding="utf-8")
    return str(path)


def test_an_encoder_of_a_run_is_named_as_its_plm_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("bert/bi-encoder", "roberta/cross-encoder"):
        (tmp_path / folder).mkdir(parents=True)

    def names(*models: str) -> list[str]:
        return [model.name for model in parse(["--models", f"[{', '.join(models)}]", "--data.pool", "p.tsv"]).models]

    assert names("bert/bi-encoder", f"{tmp_path}/roberta/cross-encoder/") == ["bert", "roberta"]
    # of the Hub
    assert names("acme/bi-encoder") == ["bi-encoder"]
    monkeypatch.chdir(tmp_path / "bert")
    assert names("./bi-encoder") == ["bi-encoder"]


@pytest.mark.parametrize("name", ["avg", "AVG", "avg.", "x\u202ey", ".x", "x" * 201])
def test_a_test_set_whose_column_is_ours_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.test: '.*' cannot name a set with gold scores: .*; rename the file$"):
        load_gold_sets(DataConfig(test=[write_set(tmp_path / f"{name}.tsv")]))


@pytest.mark.parametrize(("one", "two"), [("a/x.tsv", "b/x.csv"), ("a/x.tsv", "a/X.tsv")])
def test_test_sets_of_one_name_are_refused(one: str, two: str, tmp_path: Path) -> None:
    paths = [tmp_path / one, tmp_path / two]
    sources = [write_set(path) for path in paths]
    paths[1].write_text(paths[1].read_text().replace("\t", "," if two.endswith("csv") else "\t"), encoding="utf-8")
    with pytest.raises(InputError, match=r"^data\.test: .*; rename the file$"):
        load_gold_sets(DataConfig(test=sources))


def test_an_evaluation_may_have_a_set_named_dev() -> None:
    check_set_names(["dev", "test"], "data.test")


# ---------------------------------------------------------------- what is shown


def shown(text: str) -> list[str]:
    """The text of a Markdown document's paragraphs, items and cells."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    for token in inline:
        assert {child.type for child in token.children or []} <= {"text", "text_special", "code_inline"}, token
    return ["".join(child.content for child in token.children or []) for token in inline]


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    assert shown(markdown_text(name)) == [name]
    assert shown(f"- {markdown_text(name)}") == [name]
    assert shown(Table([name, "x"], [[name, "1"]]).markdown()) == [name, "x", name, "1"]
    assert shown(f"in {markdown_code(name)}.") == [f"in {name}."]


def test_latex_shows_a_name_as_it_is() -> None:
    found = latex_text(r"a_b & c% $d# {e} ~f^g \h <|>`")
    assert found == (
        r"a\_b \& c\% \$d\# \{e\} \textasciitilde{}f\textasciicircum{}g \textbackslash{}h "
        r"\textless{}\textbar{}\textgreater{}\textasciigrave{}"
    )


def results_of(names: list[str], tasks: list[str]) -> dict[str, Any]:
    scores = {"dev": 0.5, "test": {**dict.fromkeys(tasks, 0.5), "avg": 0.5}}
    kinds = ("bi-encoder", "cross-encoder")
    overlap = {task: {"name": task, "from_hub": False, "pairs": 20, "in_pool": 3} for task in tasks}
    return {
        "start": {name: {"bi-encoder": {**scores, "dev": 0.6}} for name in names},
        "cycles": [{"cycle": 1} | {name: dict.fromkeys(kinds, scores) for name in names}],
        "final": {
            name: {kind: {"cycle": 1, "path": f"/x/{name}/{kind}", **scores} for kind in kinds} for name in names
        },
        "overlap": {"test": overlap},
        "truncation": {},
        "health": {"start": {name: {"bi-encoder": {}} for name in names}, "cycles": []},
        "not_learnt": [],
        "seconds": {"total": 1.0},
        "environment": {"device": "cpu", "processes": 1, "precision": "float32"},
    }


@pytest.mark.filterwarnings("ignore::UserWarning")  # matplotlib has no letters for some of them, nor room for all
@drawn_curves()
def test_a_report_shows_names_as_they_are(tmp_path: Path) -> None:
    results = results_of(HOSTILE, ["[b]", "c|d"])
    sources = [f"pool: {name}.tsv: 10 rows" for name in ["_x_", "[a](b)", "p\udcff", "x\u202e"]]
    write_curves(tmp_path / "curves.png", results, "spearman")
    write_report(tmp_path, results, DistillationConfig(), sources, "spearman")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    cells = shown(re.sub(r"!\[.*\]\(curves.png\)", "", text))
    for name in HOSTILE:
        assert cells.count(name) == 1 + 2 + 2 + 1  # start, cycle 1, kept; health
        assert f"{name}, bi-encoder (cycle 1): {name}/bi-encoder" in cells
        assert any(cell.startswith(f"{name}: the bi-encoder that was kept scores lower") for cell in cells)
    assert {"_x_.tsv: 10 rows", "[a](b).tsv: 10 rows", "p\\udcff.tsv: 10 rows", "x\\u202e.tsv: 10 rows"} <= set(cells)
    assert "test set c|d: 3 of its 20 pairs are in the pool, in either order, without their gold scores" in cells


def test_a_test_set_may_be_called_dev() -> None:
    table = score_table(results_of(["one"], ["dev"]), "spearman")
    assert table.columns[2:] == ["dev", "dev (test)", "avg."]
    assert table.rows[0][2:] == ["60.00", "50.00", "50.00"]


def test_a_terminal_shows_names_as_they_are_and_only_what_is_kept_in_bold() -> None:
    out = StringIO()
    console = Console(file=out, width=400, force_terminal=True, color_system="standard")
    result_table(results_of(HOSTILE, ["[b]", ":smile:"]), "spearman").show(console)
    lines = out.getvalue().splitlines()
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert "[b]" in plain[2] and ":smile:" in plain[2]
    for name in HOSTILE:
        rows = [(line, text) for line, text in zip(lines, plain, strict=True) if text.startswith(f"│ {name} ")]
        assert len(rows) == 5
        for line, text in rows:
            assert bool(re.search(r"\x1b\[1[;m]", line)) == ("kept: cycle" in text), text


def test_progress_shows_names_as_they_are() -> None:
    out = StringIO()
    console = Console(file=out, width=200, force_terminal=True, color_system=None)
    with RunProgress(console=console) as progress:
        progress.begin("cycle 1 [red]: label", 1)
        progress.say("pool: [red]:smile:\x1b[2J.tsv")
    assert "cycle 1 [red]: label" in out.getvalue()
    assert "pool: [red]:smile:\\x1b[2J.tsv" in out.getvalue()


def test_tables_of_an_evaluation_show_names_as_they_are(tmp_path: Path) -> None:
    score = {"spearman": 0.5, "pearson": 0.5, "intervals": {"spearman": [0.4, 0.6], "pearson": [0.4, 0.6]}}
    names = ["[b]x", "a|b_"]
    results = {
        "columns": [{"task": name, "title": name, "family": "sts", "pairs": 9} for name in names],
        "models": [
            {"name": "m_1", "tasks": [{"scores": {"test": [score]}}] * 2, "average": {"sts": score}},
        ],
        "differences": [],
        "bootstrap": {"interval": 0.95},
    }
    write_tables(tmp_path, results)
    cells = shown((tmp_path / "table.md").read_text(encoding="utf-8"))
    assert all(cells.count(name) == 4 for name in names) and "[40.00, 60.00]" in cells
    assert r"& [b]x & a\textbar{}b\_ &" in (tmp_path / "table.tex").read_text(encoding="utf-8")
    out = StringIO()
    show_tables(results, Console(file=out, width=400))
    assert out.getvalue().count("[b]x") == 4


def test_a_score_of_a_set_is_not_lost_to_the_average() -> None:
    """What the tables read is what the scorer writes: each set under its name, and the average beside them."""
    from te_trainer.data import GoldSet, GoldSets
    from te_trainer.metrics import spearman
    from te_trainer.runs.scoring import Scorer

    gold = GoldSet("one", ["a", "b", "c"], ["a", "b", "c"], np.array([1.0, 2.0, 3.0]))
    other = GoldSet("two", ["a", "b", "c"], ["a", "b", "c"], np.array([3.0, 2.0, 1.0]))
    scores = Scorer(GoldSets(None, (gold, other)), spearman, None, Path()).scores([gold.scores, gold.scores])
    assert scores == {"test": {"one": pytest.approx(1), "two": pytest.approx(-1), "avg": pytest.approx(0)}}
