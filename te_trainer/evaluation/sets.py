"""The sets that models are scored on, and the metrics of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from te_trainer.config.names import check_set_names, is_folder
from te_trainer.config.parsing import did_you_mean
from te_trainer.config.schema import EvaluationConfig
from te_trainer.config.types import Task
from te_trainer.data import GoldSet, load_gold
from te_trainer.data.benchmarks import BENCHMARKS, GROUPS
from te_trainer.data.compression import file_format
from te_trainer.data.readers import FILE_SUFFIXES, find_benchmark, is_here
from te_trainer.errors import InputError, NoRowsError
from te_trainer.metrics import METRIC_TITLES, TASK_METRICS
from te_trainer.runs.commits import pin_commits


@dataclass(frozen=True)
class TaskSet:
    """A set with gold scores, and what is measured on it."""

    source: str  # a benchmark's name, or the file or data set that the user named
    gold: GoldSet
    title: str  # of the set's column
    mteb: str  # its name in results: MTEB's, where it has one
    family: Task  # binary where gold scores are 0 and 1

    def describe(self) -> str:
        """The set's size and metrics, as a line."""
        metrics = ", ".join(METRIC_TITLES[metric.__name__] for metric in TASK_METRICS[self.family])
        notes = "".join(f"; {note}" for note in self.gold.notes)
        return f"{self.title}: {self.gold.describe()}; {metrics}{notes}"


def load_sets(config: EvaluationConfig) -> tuple[list[TaskSet], list[str]]:
    """The sets of a configuration; refuses unknown ones, those without gold scores, and two with one name.

    Where it names none, those of the folder are taken that have the wanted rows, and a line tells of each other one.
    """
    if config.data.dir is not None and not is_folder(config.data.dir):
        raise InputError(f"data.dir: {config.data.dir} is no folder")
    sources = _sources(config)
    pin_commits(sources=[(source, config.data.dir) for source in sources])
    sets, notes = [], []
    for source in sources:
        try:
            sets.append(_load(source, config))
        except NoRowsError:
            if config.tasks:
                raise
            notes.append(f"{source}: left out, it has no {config.data.split} rows with gold scores")
    if not sets:
        raise InputError(f"data.dir: {config.data.dir} holds no set with {config.data.split} rows, such as stsb.tsv")
    # files, columns of the tables, and MTEB's keys
    for names in zip(*((each.gold.name, each.title, each.mteb) for each in sets), strict=True):
        check_set_names(names, "tasks")
    return sets, notes


def _sources(config: EvaluationConfig) -> list[str]:
    """The sets that a configuration names, groups written out."""
    sources: list[str] = []
    for name in config.tasks or _default_sources(config):
        if name in GROUPS and not is_here(name):
            sources += GROUPS[name]
        elif name in BENCHMARKS or "/" in name or file_format(Path(name)) in FILE_SUFFIXES or Path(name).exists():
            sources.append(name)
        else:
            raise InputError(did_you_mean(f"tasks: unknown set '{name}'", name, [*BENCHMARKS, *GROUPS]))
    return list(dict.fromkeys(sources))


def _default_sources(config: EvaluationConfig) -> list[str]:
    """Every benchmark in the folder that has the wanted rows; without a folder the paper's seven."""
    folder = config.data.dir
    if folder is None:
        return ["sts_sickr"]
    split = config.data.split
    return [
        name
        for name, benchmark in BENCHMARKS.items()
        if Path(folder, f"{name}.tsv").is_file() and (split == "test" or benchmark.dev is not None)
    ]


def _load(source: str, config: EvaluationConfig) -> TaskSet:
    gold = load_gold(source, config.data.split, config.data.columns, config.data.dir, key="tasks")
    benchmark = find_benchmark(source)
    binary = set(gold.scores) <= {0.0, 1.0}
    if benchmark is None:
        return TaskSet(source, gold, gold.name, gold.name, "binary" if binary else "sts")
    if benchmark.positive is not None and not binary:
        raise InputError(f"tasks: {source} holds gold scores other than 0 and 1; correct the file")
    family: Task = "sts" if benchmark.positive is None else "binary"
    return TaskSet(source, gold, benchmark.title, benchmark.mteb or benchmark.title, family)
