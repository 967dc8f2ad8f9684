"""What the documents point at exists: files, headings, modules, recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

from te_trainer.cli import JOBS

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").rglob("*.md")]
CODE_PATH = re.compile(r"`((?:te_trainer|tests|benchmarks|recipes|accelerate_configs|docs|examples)/[\w./-]*)`")


def anchors(document: Path) -> set[str]:
    """Names by which GitHub links to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target
    for name in CODE_PATH.findall(text):
        assert (ROOT / name).exists(), name
    if document.name == "ARCHITECTURE.md":
        for name in re.findall(r"`([a-z_]+/[\w/]*(?:\.py)?)`", text):
            assert (ROOT / name).exists() or (ROOT / "te_trainer" / name).exists(), name
    for name in re.findall(r"--(?:config|config_file|distillation\.step0) ((?:recipes|accelerate_configs)/\S+)", text):
        assert (ROOT / name).exists() or {"FILE", "X", "Y"} & set(re.split(r"[/.]", name)) or "LAUNCHED" in name, name


def test_each_row_of_the_comparison_names_a_command_or_a_test() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    rows = [row for row in rows if not row[0].startswith(("| ---", "| who uses it"))]
    assert len(rows) > 15
    for feature, ours, *_ in rows:
        assert re.search(r"`(te-trainer [a-z]+|tests/)", ours), feature
    assert set(re.findall(r"te-trainer ([a-z]+)", text)) <= {*JOBS, "recipes"}
