"""The command `te-trainer`: the same jobs as the scripts in `recipes/`, and the recipes of an installed package."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from te_trainer.config import commands
from te_trainer.config.parsing import did_you_mean
from te_trainer.errors import InputError
from te_trainer.files.locks import refuse_windows
from te_trainer.runs.exit_status import run_command

# What reads the keys of each job, and what the job does.
JOBS: dict[str, tuple[Callable[[Sequence[str] | None], Any], str]] = {
    "distil": (commands.parse, "from unlabelled pairs or sentences to a bi-encoder and a cross-encoder"),
    "contrastive": (commands.parse_contrastive, "from a plain PLM and sentences to a bi-encoder (SimCSE, Mirror-BERT)"),
    "score": (commands.parse_score, "scores of a file of pairs, or the nearest sentences of a file's sentences"),
    "evaluate": (commands.parse_evaluation, "scores of finished models on pairs with gold scores"),
    "annotate": (commands.parse_annotate, "pairs of a finished run to score by hand, which show whether it helped"),
    "push": (commands.parse_push, "publish a finished run on the Hugging Face Hub"),
}
# What other programs call these jobs.
OTHER_NAMES = {"train": "'distil'", "mine": "'distil' with data.sentences", "predict": "'score'", "eval": "'evaluate'"}
IN_ONE_PROCESS = ("annotate", "push")

USAGE = """usage: te-trainer COMMAND [--config FILE.yaml] [--section.key value ...]

{jobs}
  recipes ls     list the recipes and the accelerate configurations that come with the package
  recipes cp     copy one of them: te-trainer recipes cp sts/bert_base my.yaml

`te-trainer COMMAND --help` lists the keys of a command. `accelerate launch -m te_trainer COMMAND` runs one of the first
four in several processes.
""".format(jobs="\n".join(f"  {name:<14} {text}" for name, (_, text) in JOBS.items()))


def main() -> int:
    """Run the command of the command line; the exit statuses are those of `run_command`."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command not in JOBS:
        return run_command(lambda: recipes(command, *arguments))
    # A job reads its keys from sys.argv, as the script of the same name does.
    sys.argv = [f"te-trainer {command}", *arguments]
    return run_job(command)


def run_job(job: str, argv: Sequence[str] | None = None) -> int:
    """Do a job with the keys of a command line; the exit statuses are those of `run_command`."""
    return run_command(lambda: start(job, argv), again="begins from the start" if job == "score" else "continues")


def start(job: str, argv: Sequence[str] | None = None) -> None:
    """Read the keys of a job, and do it; torch is imported afterwards, so that a wrong key is refused at once."""
    refuse_windows()
    config = JOBS[job][0](argv)
    if job in IN_ONE_PROCESS and "LOCAL_RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(f"{job} runs in one process; start it without a launcher, as te-trainer {job}")
    importlib.import_module(f"te_trainer.commands.{job}").main(config)


def recipes(*arguments: str) -> None:
    """List the recipes, or copy one; show the commands; refuse every other one."""
    match arguments:
        case ["-h" | "--help", *_]:
            print(USAGE, end="")
        case ["recipes", "ls"]:
            print("\n".join(available_recipes()))
        case ["recipes", "cp", name, target]:
            copy_recipe(name, Path(target))
        case ["recipes", *rest] if {"-h", "--help"} & set(rest):
            print(USAGE, end="")
        case ["recipes", *_]:
            raise InputError("recipes: write `te-trainer recipes ls` or `te-trainer recipes cp NAME TARGET`")
        case [command, *_] if command in OTHER_NAMES:
            raise InputError(f"unknown command '{command}'; did you mean {OTHER_NAMES[command]}?")
        case [command, *_]:
            raise InputError(did_you_mean(f"unknown command '{command}'", command, [*JOBS, "recipes"]))


def available_recipes() -> dict[str, Path]:
    """Every recipe and accelerate configuration, and the folder of sample data, by name."""
    # part of the package in a wheel, beside the package in a checkout
    package = Path(__file__).parent
    root = package if (package / "recipes").is_dir() else package.parent
    folders = {"": root / "recipes", "accelerate_configs/": root / "accelerate_configs"}
    found = {
        f"{prefix}{path.relative_to(folder).with_suffix('')}": path
        for prefix, folder in folders.items()
        for path in sorted(folder.rglob("*.yaml"))
    }
    return found | {"sample": folders[""] / "sample"}


def copy_recipe(name: str, target: Path) -> None:
    """Copy a recipe, or the folder of sample data; files of the package that a recipe names, its copy names too.

    Leading folders of the name may be left out where it is then that of one recipe alone, or of one of
    self-distillation.
    """
    known = available_recipes()
    name = name.removesuffix(".yaml")
    exact = [one for one in (name, f"self_distill/{name}") if one in known][:1]
    candidates = exact or [other for other in known if other.endswith(f"/{name}")]
    if not candidates:
        raise InputError(did_you_mean(f"recipes: there is no recipe '{name}'", name, list(known)))
    if len(candidates) > 1:
        raise InputError(f"recipes: '{name}' may be {', '.join(candidates)}; write one of these names")
    (name,) = candidates
    source = known[name]
    if target.exists():
        raise InputError(f"recipes: {target} exists already; name another target, or delete it")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        # what a recipe names beside itself stays where it lies
        root = known["sample"].parents[1]

        def found(line: re.Match[str]) -> str:
            return line[1] + json.dumps(str(root / line[2]))

        text = re.sub(r"^( *\w+: )(recipes/\S+)$", found, source.read_text(encoding="utf-8"), flags=re.MULTILINE)
        target.write_text(text, encoding="utf-8")
    print(f"Copied {name} to {target}.")
