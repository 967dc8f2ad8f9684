"""Every recipe parses and repeats no default; those of the main job run two steps a training with tiny models."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from conftest import ROOT, SAMPLE, Run, results_of, save_tiny
from recipe_index import RECIPES, read_header, recipe_index

from te_trainer.config.commands import parse, parse_contrastive
from te_trainer.config.defaults import CONTRASTIVE_ARGUMENTS, CYCLES, TRAINER_DEFAULTS, paper_arguments
from te_trainer.config.schema import BiEncoderConfig, CrossEncoderConfig, DistillationConfig, LoraConfig, ModelConfig
from te_trainer.distillation.plan import make_plan

CONTENT = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RECIPES.rglob("*.yaml"))}
MAIN_JOB = [path for path, content in CONTENT.items() if "models" in content]
ACCELERATE = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
PAPER_ROWS = {
    path
    for pattern in ("self_distill/*/*", "mutual_distill/*/*", "ablations/*")
    for path in RECIPES.glob(f"{pattern}.yaml")
}


PAPER_POOLS = {"sts": 37_081, "sickr": 9_840, "mrpc": 5_801, "qnli": 15_463, "qqp": 21_000}
# Base models whose pool makes fewer steps than the paper's main tables have: their learning rate would be fitted.
FEW_STEPS = {
    RECIPES / f"{name}.yaml"
    for name in ("self_distill/sickr/bert_base", "self_distill/sickr/roberta_base", "ablations/pool_size")
}


def recipe_name(path: Path) -> str:
    return str(path.relative_to(RECIPES).with_suffix(""))


def entries(models: Any) -> list[Any]:
    return models if isinstance(models, list) else [models]


def stand_in(entry: Any) -> str:
    """Which tiny model stands for one that a recipe names."""
    return "roberta" if "roberta" in json.dumps(entry).lower() else "bert"


# what `test_two_steps_run` sets itself, and what makes no other run
REPLACED = {"pool", "max_pairs", "dev", "test", "selection", "precision", "num_train_epochs", "cycles", "pooling"}


def covering_runs() -> list[Path]:
    """Recipes that together have every setting of all of them; numbers and sources make no other run."""
    settings: dict[Path, set[tuple[str, ...]]] = {}
    for path in MAIN_JOB:
        content = CONTENT[path]
        several = "several" if len(entries(content["models"])) > 1 else "one"
        settings[path] = {("models", several, stand_in(content["models"]))}
        for section in ("data", "distillation", "lora", "bi_encoder", "cross_encoder"):
            for key, value in content.get(section, {}).items():
                if key not in REPLACED:
                    words = section != "data" and isinstance(value, str | bool)
                    settings[path].add((section, key, str(value) if words else ""))
    chosen, left = [], set().union(*settings.values())
    while left:
        chosen.append(max(settings, key=lambda path: len(settings[path] & left)))
        left -= settings[chosen[-1]]
    return chosen


def pool_size(content: dict[str, Any]) -> int:
    """Pairs of a recipe's pool in the paper."""
    data = content["data"]
    pool = data["pool"] if isinstance(data["pool"], str) else "sts"
    return min(PAPER_POOLS[pool] + data.get("extra_pairs", 0), data.get("max_pairs", 10**9))


def default_values(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The defaults of a recipe's sections, as the code has them."""

    def of(section: type) -> dict[str, Any]:
        return {item.name: item.default for item in fields(section) if item.default is not MISSING}

    if "models" not in content:
        section = content.get("contrastive", {})
        return {"contrastive": TRAINER_DEFAULTS | CONTRASTIVE_ARGUMENTS[section.get("method", "simcse")]}
    task = content.get("distillation", {}).get("task", "sts")
    size = "large" if "large" in json.dumps(content["models"]) else "base"
    rank = content.get("lora", {}).get("rank", 0)
    return {
        "distillation": of(DistillationConfig) | {"cycles": CYCLES[task]},
        "lora": of(LoraConfig) | {"alpha": 2 * rank},
        "cross_encoder": of(CrossEncoderConfig) | TRAINER_DEFAULTS | paper_arguments("cross-encoder", task, size),
        "bi_encoder": of(BiEncoderConfig) | TRAINER_DEFAULTS | paper_arguments("bi-encoder", task, size),
    }


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


def test_every_row_of_the_papers_tables_has_a_recipe() -> None:
    assert len(PAPER_ROWS) > 50


def test_the_index_is_made_of_the_headers() -> None:
    index = (RECIPES / "README.md").read_text(encoding="utf-8")
    assert index == recipe_index(), "run `python tests/recipe_index.py`"


@pytest.mark.parametrize("path", CONTENT, ids=recipe_name)
def test_a_recipe_parses_and_its_header_launches_it(path: Path) -> None:
    header = read_header(path)
    assert (ROOT / "accelerate_configs" / f"{header.launched_with}.yaml").is_file()
    if path in MAIN_JOB:
        assert header.script == "trans_encoder.py"
        parse(["--config", str(path)])
    elif "model" in CONTENT[path]:
        assert header.script == "contrastive.py"
        parse_contrastive(["--config", str(path)])
    else:
        assert header.script == "trans_encoder.py"
        parse(["--models", "[m]", "--data.pool", "p.tsv", "--data.dev", "stsb", "--distillation.step0", str(path)])
    if path in PAPER_ROWS:
        assert "The paper's figures (" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONTENT, ids=recipe_name)
def test_a_recipe_repeats_no_default(path: Path) -> None:
    content = CONTENT[path]
    for section, defaults in default_values(content).items():
        repeated = {key for key, value in content.get(section, {}).items() if defaults.get(key, ...) == value}
        if path in FEW_STEPS and section == "cross_encoder":
            assert repeated == {"learning_rate"}
        else:
            # the file of a step 0 holds nothing else
            assert repeated <= ({"method"} if set(content) == {"contrastive"} else set()), section
    models = [ModelConfig(**entry) for entry in entries(content.get("models", [])) if isinstance(entry, dict)]
    assert all(model.weight is None for model in models)


@pytest.mark.parametrize("path", MAIN_JOB, ids=recipe_name)
def test_rows_of_the_papers_tables_have_the_official_optimiser(path: Path) -> None:
    content = CONTENT[path]
    trained = ["bi_encoder"] + ["cross_encoder"] * (content.get("distillation", {}).get("students") != "bi-encoder")
    official = [bool(content.get(section, {}).get("official_adamw")) for section in trained]
    assert official == [path in PAPER_ROWS] * len(trained)


@pytest.mark.parametrize("path", sorted(PAPER_ROWS), ids=recipe_name)
def test_rows_of_the_papers_tables_train_as_table_16_says(path: Path, sized_plms: dict[str, Path]) -> None:
    """Although what a recipe leaves out is fitted to its pool."""
    content = CONTENT[path]
    sizes = ["large" if "large" in json.dumps(entry) else "base" for entry in entries(content["models"])]
    models = [{"name": f"{size}-{at}", "bi_encoder": str(sized_plms[size])} for at, size in enumerate(sizes)]
    local = ["--data.pool", "p.tsv", "--data.dev", "d.tsv", "--data.test", "[]", "--data.extra", "[]"]
    local += ["--data.extra_pairs", "null"]
    config = parse(["--config", str(path), "--models", json.dumps(models), *local])
    plan = make_plan(config, 1).fit(pool_size(content), 1)
    epochs = {"bi-encoder": 10, "cross-encoder": 1} if plan.cycles == 3 else {"bi-encoder": 15, "cross-encoder": 3}
    for size, model in zip(sizes, plan.models.values(), strict=True):
        batches = {"bi-encoder": 128 if size == "base" else 64, "cross-encoder": 32}
        for kind, encoder in model.encoders.items():
            assert encoder.training["learning_rate"] == {"bi-encoder": 5e-5, "cross-encoder": 2e-5}[kind]
            assert encoder.training["per_device_train_batch_size"] == batches[kind]
            assert encoder.training["num_train_epochs"] == epochs[kind]


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_accelerate_reads_its_configurations(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# Take this ")
    config = load_config_from_file(str(path))
    assert config.use_cpu == path.stem.startswith("cpu")
    assert config.mixed_precision in {None, "no"}, "precision is distillation.precision"


@pytest.mark.slow
@pytest.mark.parametrize("path", covering_runs(), ids=recipe_name)
def test_two_steps_run(path: Path, plms: dict[str, Path], binary: Path, tmp_path: Path, run_job: Run) -> None:
    config = parse(["--config", str(path)])
    models = []
    for model, entry in zip(config.models, entries(CONTENT[path]["models"]), strict=True):
        values = {"name": model.name, "bi_encoder": str(plms[stand_in(entry)])}
        values |= {"pooling": model.pooling, "weight": model.weight}
        models.append({key: value for key, value in values.items() if value is not None})
    gold = str(binary if config.distillation.task == "binary" else SAMPLE / "dev.tsv")
    extra = ["--data.extra", f"[{SAMPLE / 'test.tsv'}]"] if config.data.extra else []
    if config.data.sentences:
        extra += ["--data.sentences", f"[{SAMPLE / 'pool.tsv'}]", "--mining.pairs", "16"]
    output = tmp_path / "run"
    arguments = [
        *("--config", str(path), "--models", json.dumps(models), "--data.pool", f"[{SAMPLE / 'pool.tsv'}]"),
        *("--data.max_pairs", "16", "--data.dev", gold, "--data.test", f"[{gold}]", *extra),
        *("--distillation.cycles", "1", "--distillation.precision", "float32", "--distillation.selection", "dev"),
        *("--bi_encoder.max_steps", "2", "--cross_encoder.max_steps", "2", "--output_dir", str(output)),
    ]
    done = run_job("distil", *arguments)
    assert done.status == 0, done.err
    results = results_of(output)
    kinds = {"bi-encoder"} if config.distillation.students == "bi-encoder" else {"bi-encoder", "cross-encoder"}
    for model in config.models:
        assert set(results["final"][str(model.name)]) == kinds
        for kind in kinds:
            record = json.loads((output / "cycle-1" / str(model.name) / f"{kind}.training.json").read_text("utf-8"))
            assert record["steps"] == 2
