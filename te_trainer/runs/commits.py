"""Which commit of the Hub each model and data set of a run is: the same on all ranks, and when a run is continued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from te_trainer.data import hub_sets
from te_trainer.data.readers import repository_of
from te_trainer.distributed import process_state
from te_trainer.files.records import read_run_file
from te_trainer.models.locate import commit_of, locate, pin

KEY = "commits"
DATA_KEY = "data_commits"


def pin_models(names: Sequence[str], root: Path | None = None) -> None:
    """Resolve models' names once for all ranks, and put their configurations and tokenizers into each node's cache.

    Args:
        names: of models; those that are local folders stay as they are.
        root: output folder of a run, whose commits hold where it has begun.

    Raises:
        InputError: a model cannot be had.
    """
    state = process_state()
    found: list[Any] = [None]
    if state.is_main_process:
        if root is not None and (root / "run.yaml").is_file():
            pin(read_run_file(root).get(KEY) or {})
        found = [commits_of(names)]
    pin(broadcast_object_list(found)[0].get(KEY, {}))
    # One process of a node downloads; the others find the files in its cache.
    with state.local_main_process_first():
        for name in names:
            locate(name, weights=False)


def commits_of(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What `run.yaml` says of the models that come from the Hub: `{"commits": {name: commit}}`; empty without any."""
    commits = {name: commit for name in dict.fromkeys(names) if (commit := commit_of(name))}
    return {KEY: commits} if commits else {}


def pin_sets(sources: Sequence[tuple[str, str | None]], root: Path | None = None) -> None:
    """Resolve the names of data sets once for all ranks.

    Args:
        sources: what is read, each with the folder that benchmark sets would lie in; local ones stay as they are.
        root: output folder of a run, whose commits hold where it has begun.
    """
    state = process_state()
    found: list[Any] = [None]
    if state.is_main_process:
        if root is not None and (root / "run.yaml").is_file():
            hub_sets.pin(read_run_file(root).get(DATA_KEY) or {})
        found = [set_commits_of(sources)]
    hub_sets.pin(broadcast_object_list(found)[0].get(DATA_KEY, {}))


def set_commits_of(sources: Iterable[tuple[str, str | None]]) -> dict[str, dict[str, str]]:
    """What `run.yaml` says of the data sets that come from the Hub: `{"data_commits": {name: commit}}`."""
    named = dict.fromkeys(repository_of(*source) for source in sources)
    resolved = {hub_sets.pin_key(*each): hub_sets.commit_of(*each) for each in named if each is not None}
    commits = {name: commit for name, commit in resolved.items() if commit is not None}
    return {DATA_KEY: commits} if commits else {}
