"""Which commit of the Hub each model and data set of a run is: the same on all ranks, and when a run is continued."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list

from te_trainer.data import hub_sets
from te_trainer.data.readers import repository_of
from te_trainer.distributed import process_state
from te_trainer.models.model_names import commit_of, locate, pin

ReadSource = tuple[str | None, str | None]  # what is read, if anything, and the folder that benchmark sets would lie in


def pin_commits(models: Sequence[str] = (), sources: Iterable[ReadSource] = ()) -> dict[str, dict[str, str]]:
    """Resolve the Hub's names once for all ranks, and put the models' small files into each node's cache."""
    state = process_state()
    commits: list[Any] = [hub_commits(models, sources) if state.is_main_process else None]
    pinned: dict[str, dict[str, str]] = broadcast_object_list(commits)[0]
    pin_begun(pinned)
    # one process of a node downloads; the others read the files from its cache
    with state.local_main_process_first():
        for name in models:
            locate(name, weights=False)
    return pinned


def pin_begun(manifest: dict[str, Any]) -> None:
    """Let the Hub's names mean the commits that a `run.yaml` holds."""
    pin(manifest.get("commits") or {})
    hub_sets.pin(manifest.get("data_commits") or {})


def hub_commits(models: Sequence[str] = (), sources: Iterable[ReadSource] = ()) -> dict[str, dict[str, str]]:
    """What `run.yaml` says of models and data sets of the Hub: `{"commits": ..., "data_commits": ...}`, by name."""
    repositories = dict.fromkeys(repository_of(name, folder) for name, folder in sources if name is not None)
    entries = {
        "commits": {name: commit_of(name) for name in dict.fromkeys(models)},
        "data_commits": {
            hub_sets.pin_key(*repository): hub_sets.commit_of(*repository)
            for repository in repositories
            if repository is not None
        },
    }
    of_hub = {key: {name: sha for name, sha in commits.items() if sha} for key, commits in entries.items()}
    return {key: commits for key, commits in of_hub.items() if commits}
