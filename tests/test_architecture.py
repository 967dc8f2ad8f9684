"""Imports go downwards only, as ARCHITECTURE.md says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, process_environment

PACKAGE = ROOT / "te_trainer"

# Each package or module may import those that stand after it.
ORDER = [
    "__main__",
    "cli",
    "commands",
    "evaluation",
    "hub",
    "report",
    "distillation",
    "contrastive",
    "runs",
    "trainers",
    "mining",
    "search",
    "labelling",
    "models",
    "data",
    "losses",
    "metrics",
    "files",
    "distributed",
    "build_locks",
    "cores",
    "config",
    "compat",
    "escaping",
    "hub_errors",
    "errors",
]
# Where the order alone would allow more than it should.
FORBIDDEN: dict[str, set[str]] = {
    "trainers": {"data", "files", "runs"},
    "losses": {"metrics"},
}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("te_trainer."):
            found.add(str(node.module).split(".")[1])
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("te_trainer.")}
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    here = layer(path)
    assert here in ORDER, f"{here} has no place in the order"
    for other in imports(path) - {here}:
        assert ORDER.index(other) > ORDER.index(here), f"{here} imports {other}"
        assert other not in FORBIDDEN.get(here, set()), f"{here} imports {other}"


WITHOUT_TORCH = [
    "config.commands",
    "cli",
    "runs.exit_status",
    "distillation.cycle",
    "data.benchmarks",
    "distillation.combine",
    "evaluation.paper",
    "metrics.bootstrap",
]


def test_torch_is_not_imported() -> None:
    """In one process, which ends with the first module after whose import torch is there."""
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(f'te_trainer.{name}')\n"
    code += "    if 'torch' in sys.modules:\n        sys.exit(name)\n"
    result = subprocess.run(
        [sys.executable, "-c", code, *WITHOUT_TORCH],
        env=process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
