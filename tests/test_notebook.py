"""The example notebook runs from its first cell to its last, and is shown as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import MINILM, ROOT


@pytest.mark.slow
def test_the_notebook_runs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a tiny encoder instead of the packaged one, whose trainings take half a minute."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "examples").mkdir()
    monkeypatch.chdir(tmp_path / "examples")
    content = (ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(content.replace(MINILM, str(tiny)))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "clear the notebook's outputs"
            exec("".join(cell["source"]), names)
    assert "mean cosine before" in capsys.readouterr().out
    assert len(names["after"]) == 64
    assert Path("runs/notebook/report.html").is_file()
    assert names["run"].results["final"]["tiny"].keys() == {"bi-encoder", "cross-encoder"}
    assert (names["after"] != names["labels"]).any()


def test_the_notebook_is_shown_as_it_is() -> None:
    """docs/notebook.md holds each cell in its order, and outputs that name no machine."""
    shown = (ROOT / "docs" / "notebook.md").read_text(encoding="utf-8")
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    at = 0
    for cell in cells:
        at = shown.index("".join(cell["source"]), at)
    codes = sum(cell["cell_type"] == "code" for cell in cells)
    assert shown.count("```python") == codes
    assert "mean cosine before 0." in shown[at:]
    assert not re.search(r"(?<![\w./])/(work|home|root|tmp|usr)/", shown)
