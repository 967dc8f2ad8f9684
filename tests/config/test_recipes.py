"""Every recipe of the main job parses, and runs two steps a training with tiny models in place of the named ones."""

from __future__ import annotations

import json
import re
import runpy
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, SAMPLE, save_tiny

from te_trainer.config import parse
from te_trainer.config.parsing import listed

GIVEN = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "recipes").rglob("*.yaml"))}
RECIPES = [path for path, given in GIVEN.items() if "models" in given]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes").with_suffix(""))


def plm(entry: Any) -> str:
    """Which tiny model stands for one that a recipe names."""
    return "roberta" if "roberta" in json.dumps(entry).lower() else "bert"


def different_runs() -> list[Path]:
    """Recipes whose two steps differ: many tell only models and sources apart, in whose place all have the same."""
    found: dict[str, Path] = {}
    for path in RECIPES:
        given = deepcopy(GIVEN[path])
        given["models"] = [
            (plm(entry), entry.get("pooling"), entry.get("weight")) if isinstance(entry, dict) else plm(entry)
            for entry in listed(given["models"])
        ]
        data, distillation = given["data"], given["distillation"]
        replaced = {key: data.pop(key, None) for key in ("pool", "max_pairs", "dev", "test")}
        data["extra"] = "extra" in data
        for key in ("cycles", "precision"):
            distillation.pop(key, None)
        given["has_dev"] = replaced["dev"] is not None
        del given["output_dir"]
        found.setdefault(json.dumps(given, sort_keys=True), path)
    return list(found.values())


@pytest.fixture(scope="module")
def plms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plms")
    return {kind: save_tiny(folder / kind, kind, hidden=16) for kind in ("bert", "roberta")}


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's dev set with gold scores of 0 and 1."""
    rows = [line.split("\t") for line in (SAMPLE / "dev.tsv").read_text(encoding="utf-8").splitlines()]
    lines = ["\t".join(rows[0])] + ["\t".join([str(number % 2), *row[1:]]) for number, row in enumerate(rows[1:41])]
    path = tmp_path_factory.mktemp("binary") / "dev.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_there_are_recipes() -> None:
    assert len(RECIPES) > 50


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_the_header_launches_the_recipe_itself(path: Path) -> None:
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    launch = " ".join(comments).replace("\\ #", "")
    found = re.search(r"accelerate launch --config_file (\S+) +recipes/trans_encoder.py +--config (\S+)", launch)
    assert found is not None
    assert (ROOT / found[1]).is_file()
    assert ROOT / found[2] == path


def test_rows_of_the_papers_tables_have_the_official_optimiser() -> None:
    folders = ("self_distill/*/*", "mutual_distill/*/*", "ablations/*")
    rows = {path for folder in folders for path in (ROOT / "recipes").glob(f"{folder}.yaml")}
    assert len(rows) > 50
    for path in RECIPES:
        sections = (GIVEN[path].get("bi_encoder", {}), GIVEN[path].get("cross_encoder", {}))
        assert [bool(section.get("official_adamw")) for section in sections] == [path in rows] * 2, path
        parse(["--config", str(path)])


@pytest.mark.parametrize("path", different_runs(), ids=named)
def test_two_steps_run(
    path: Path, plms: dict[str, Path], binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(["--config", str(path)])
    models = []
    for model, entry in zip(config.models, listed(GIVEN[path]["models"]), strict=True):
        given = {"name": model.name, "bi_encoder": str(plms[plm(entry)])}
        given |= {"pooling": model.pooling, "weight": model.weight}
        models.append({key: value for key, value in given.items() if value is not None})
    gold = str(binary if config.distillation.task == "binary" else SAMPLE / "dev.tsv")
    extra = ["--data.extra", f"[{SAMPLE / 'test.tsv'}]"] if config.data.extra else []
    output = tmp_path / "run"
    arguments = [
        *("--config", str(path), "--models", json.dumps(models), "--data.pool", f"[{SAMPLE / 'pool.tsv'}]"),
        *("--data.max_pairs", "16", "--data.dev", gold, "--data.test", f"[{gold}]", *extra),
        *("--distillation.cycles", "1", "--distillation.precision", "float32"),
        *("--bi_encoder.max_steps", "2", "--cross_encoder.max_steps", "2", "--output_dir", str(output)),
    ]
    monkeypatch.setattr(sys, "argv", ["trans_encoder.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "recipes" / "trans_encoder.py"), run_name="__main__")
    assert end.value.code == 0
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    for model in config.models:
        kept = set(results["final"][str(model.name)])
        assert kept == (
            {"bi-encoder"} if config.distillation.students == "bi-encoder" else {"bi-encoder", "cross-encoder"}
        )
        for kind in kept:
            record = json.loads((output / "cycle-1" / str(model.name) / f"{kind}.training.json").read_text("utf-8"))
            assert record["steps"] == 2
