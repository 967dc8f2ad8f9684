"""Which commit of the Hub each model of a run is: the same on all ranks, and whenever the run is continued."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from te_trainer.encoders.locate import commit_of, locate, pin
from te_trainer.processes import process_state
from te_trainer.records import read_run_file

KEY = "commits"


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
