"""`run.yaml` of every command: what a run was begun with and stands on, and that it continues with the same."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import yaml
from accelerate.utils import merge_dicts

from te_trainer.config.parsing import flatten_keys
from te_trainer.config.schema import ContrastiveConfig, EvaluationConfig, RunConfig
from te_trainer.distributed import ask_main_process
from te_trainer.errors import InputError
from te_trainer.files.atomic import sync, write_text
from te_trainer.files.records import DamagedError, damage_as_input_error
from te_trainer.runs.changes import (
    RUN_KEYS,
    SPLIT_KEYS,
    TRAINING_SECTIONS,
    BatchSplit,
    batch_splits,
    changeable,
    changes_no_result,
    compared_values,
)
from te_trainer.runs.environment import library_versions
from te_trainer.runs.layout import PYTHON_PAIRS, RunLayout

Config = TypeVar("Config", RunConfig, ContrastiveConfig, EvaluationConfig)


class Fingerprint(NamedTuple):
    """Something that a run stands on and that may not change while the run lasts."""

    keys: tuple[str, ...]  # where `run.yaml` holds the fingerprint
    value: str | None
    subject: str  # begins the sentence "... changed since the run began", e.g. "data: the texts have"


@dataclass
class RunManifest(Generic[Config]):
    """The manifest of an output folder, which this process holds."""

    root: Path
    config: Config
    processes: int = 1
    # Works out what the configuration means; None of a command that trains nothing. A plan's attribute `resolved` holds
    # the entries of `run.yaml` that say how its trainings are done.
    make_plan: Callable[[Config, int], Any] | None = None
    # content of `run.yaml` as the run was begun or last continued; None where it has not begun
    begun: dict[str, Any] | None = field(init=False)

    def __post_init__(self) -> None:
        def read() -> dict[str, Any] | None:
            return read_manifest(self.root) if self.layout.manifest.is_file() else None

        self.begun = ask_main_process(read)

    @property
    def layout(self) -> RunLayout:
        return RunLayout(self.root)

    @cached_property
    def plan(self) -> Any:
        """What the configuration means, worked out once and on all ranks; a model's configuration may be read."""
        assert self.make_plan is not None
        return self.make_plan(self.config, self.processes)

    @property
    def _resolved(self) -> dict[str, Any]:
        """What `run.yaml` says of the trainings; fitted to the pool, once that is known."""
        if self.make_plan is None:
            return {}
        with _damaged_manifest(self.root):
            pairs = (self.begun or {}).get("pool", {}).get("pairs")
        resolved: dict[str, Any] = (self.plan.fit(pairs, self.processes) if pairs else self.plan).resolved
        return resolved

    def refuse_other_configuration(self) -> None:
        """Refuse to continue with a configuration that leads to other results than the one the run was begun with."""
        if self.begun is None:
            return
        both = (self.begun["config"], compared_values(self.config))
        before, now = (_without_own_folder(flatten_keys(each)) for each in both)
        changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
        refused = [key for key in changed if not self._may_change(key)]
        if refused:
            changes = ", ".join(f"{key} (was {before.get(key)}, is {now.get(key)})" for key in refused)
            raise InputError(
                f"output_dir: {self.root} was begun with another configuration: {changes}; name another folder, or "
                f"change nothing but {changeable(self.config)}"
            )
        if not ask_main_process(self.layout.results.exists):
            self._refuse_other_batches()
        if "distillation.keep_cycles" in changed and now["distillation.keep_cycles"]:
            self._refuse_removed_cycles()

    def refuse_changes(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Refuse to continue on something else than what the run was begun on."""
        for keys, value, subject in fingerprints if self.begun is not None else ():
            with _damaged_manifest(self.root):
                entry: Any = self.begun
                for key in keys[:-1]:
                    entry = entry[key]
                before = entry.get(keys[-1])
            if before != value:
                raise InputError(f"{subject} changed since the run in {self.root} began; name another output_dir")

    def begin_or_continue(self, fingerprints: Sequence[Fingerprint], **entries: Any) -> None:
        """Write `run.yaml`, or see that the run continues on what it was begun on.

        A run that continues with other values of keys that may change has them in its `run.yaml` from then on.
        """
        config = compared_values(self.config)
        if self.begun is None:
            content = {"config": config, "processes": self.processes, "versions": library_versions()}
            for more in (self._resolved, entries, *map(_nested, fingerprints)):
                content = _merge(content, more)
        else:
            self.refuse_changes(fingerprints)
            self._refuse_other_settings()
            if self.begun["config"] == config:
                return
            content = _merge(self.begun | {"config": config, "processes": self.processes}, self._resolved)
        self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        write_text(self.layout.manifest, yaml.safe_dump(content, sort_keys=False))
        # without it, nothing in the folder is a run's any more
        sync(self.layout.manifest)
        self.begun = content

    def other_versions(self) -> list[str]:
        """A line to print where the run was begun with other versions of the libraries."""
        before = self.begun["versions"] if self.begun is not None else {}
        changed = [
            f"{name} {before[name]} (now {now})"
            for name, now in library_versions().items()
            if before.get(name, now) != now
        ]
        return [f"The run was begun with {', '.join(changed)}"] if changed else []

    def add(self, **entries: Any) -> None:
        """Write into `run.yaml` what became known after the run began, and how its trainings are done by now."""
        assert self.begun is not None
        content = _merge(_merge(self.begun | {"processes": self.processes}, self._resolved), entries)
        if content != self.begun:
            self._write(content)

    def _may_change(self, key: str) -> bool:
        section, _, name = key.rpartition(".")
        if section in TRAINING_SECTIONS and name in SPLIT_KEYS:
            splits = [(before, now) for at, before, now in self._splits() if at == section]
            return bool(splits) and all(
                before is not None and before.effective_batch == now.effective_batch for before, now in splits
            )
        return key in RUN_KEYS or (section in TRAINING_SECTIONS and changes_no_result(name))

    def _splits(self) -> Iterator[tuple[str, BatchSplit | None, BatchSplit]]:
        """Of each training section (once for each PLM): its name, how its batch was split, how it is split now."""
        assert self.begun is not None
        with _damaged_manifest(self.root):
            before = dict(batch_splits(self.begun, int(self.begun["processes"])))
        for (section, name), split in batch_splits(self._resolved, self.processes):
            yield section, before.get((section, name)), split

    def _refuse_other_batches(self) -> None:
        """Refuse another number of processes where it changes the batch of an optimiser step, with no key changed."""
        for section, before, now in self._splits():
            if before is None or before.effective_batch == now.effective_batch:
                continue
            batch = math.prod(before.effective_batch)
            per_device, rest = divmod(batch, self.processes * now.accumulation)
            key, of_file = f"{section}.per_device_train_batch_size", ""
            if section.startswith("step0."):
                section, key, of_file = "step 0", key.removeprefix("step0."), " in the file of distillation.step0"
            fix = "" if rest else f", set {key} to {per_device}{of_file}"
            raise InputError(
                f"output_dir: {self.root} was begun with another number of processes ({before.processes}, now "
                f"{self.processes}), which would make batches of {math.prod(now.effective_batch)} in {section} "
                f"instead of {batch}; start as many as before{fix}, or name another folder"
            )

    def _refuse_other_settings(self) -> None:
        """Refuse a version of this package that would train in another way, with no key changed."""
        assert self.begun is not None
        before, version = flatten_keys(self.begun), self.begun["versions"].get("te_trainer")
        for key, value in flatten_keys(yaml.safe_load(yaml.safe_dump(self._resolved))).items():
            name = key.rpartition(".")[2]
            if before.get(key) != value and name not in SPLIT_KEYS and not changes_no_result(name):
                raise InputError(
                    f"output_dir: {self.root} was begun with another te_trainer ({version}), with which {key} was "
                    f"{before.get(key)}, and it is {value} now; continue with that one, or name another folder"
                )

    def _refuse_removed_cycles(self) -> None:
        for scores in sorted(self.root.glob("cycle-*/*/*-encoder.json")):
            if not (encoder := scores.with_suffix("")).is_dir():
                raise InputError(
                    f"distillation.keep_cycles: {encoder} was removed when its cycle was over, so not "
                    "all cycles can be kept any more; leave it at false, or name another output_dir"
                )


def read_manifest(root: Path, *keys: str) -> dict[str, Any]:
    """Read a run's `run.yaml`."""
    with _damaged_manifest(root):
        text = RunLayout(root).manifest.read_text(encoding="utf-8")
        content: dict[str, Any] = yaml.safe_load(text)
        mappings = [content[key] for key in ("config", "versions")]
        if not all(isinstance(each, dict) for each in mappings) or not all(content[key] for key in keys):
            raise ValueError("a key has no value")
        if not text.endswith("\n"):
            raise ValueError("the last line was cut")
        return content


@contextlib.contextmanager
def _damaged_manifest(root: Path) -> Iterator[None]:
    """Say in one sentence that a `run.yaml`, which is read in this block, lacks something."""
    try:
        with damage_as_input_error(RunLayout(root).manifest):
            yield
    except DamagedError:
        # nobody is told to delete it without a condition, since the folder may be another program's
        raise InputError(
            f"output_dir: {root} holds a run.yaml that is damaged, or that no run wrote; name another folder, or, if "
            f"{root} is a run's, delete it, and the same command begins from the start"
        ) from None


def _without_own_folder(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys in which pairs that a Python program gave are no path: they lie in the run's folder, wherever that is."""
    pool = keys.get("data.pool")
    own = isinstance(pool, list) and [Path(str(source)).name for source in pool] == [PYTHON_PAIRS]
    return keys | {"data.pool": [PYTHON_PAIRS]} if own else keys


def _nested(fingerprint: Fingerprint) -> dict[str, Any]:
    nested: Any = fingerprint.value
    for key in reversed(fingerprint.keys):
        nested = {key: nested}
    return dict(nested)


def _merge(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Two nested mappings as one; values of the second count."""
    return dict(merge_dicts(two, copy.deepcopy(one)))
