"""The models that are scored: found, told apart, named, loaded; one checkpoint each, or an ensemble."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from te_trainer.config.names import LONGEST_NAME, folded
from te_trainer.config.revision import is_folder, split_revision
from te_trainer.config.schema import EvaluationConfig, Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.models import Encoder, load_encoder, resolve_checkpoint
from te_trainer.models.bi_encoder import check_bi_encoder
from te_trainer.models.cross_encoder import check_cross_encoder
from te_trainer.runs.commits import pin_models

LONGEST_ENSEMBLE = 240  # bytes of the name of its folder, which is written as .partial-NAME first


@dataclass(frozen=True)
class Checkpoint:
    """A model and how it reads sentences.

    Args:
        path: a Hub id, a local folder or `package:folder`.
        name: of its folder of predictions.
        pooling: None for a cross-encoder.
    """

    path: str
    name: str
    kind: Kind
    pooling: Pooling | None
    max_length: int

    def load(self) -> Encoder:
        """The encoder, in float32."""
        return load_encoder(self.path, pooling=self.pooling, max_length=self.max_length)

    def describe(self) -> str:
        """What it was taken for, for people."""
        pooling = f"{self.pooling} pooling, " if self.pooling else ""
        return f"{self.name}: {self.kind}, {pooling}up to {self.max_length:,} tokens ({self.path})"


@dataclass(frozen=True)
class Entry:
    """What is scored as one: a checkpoint, or an ensemble of several, whose predictions are averaged."""

    name: str
    members: tuple[Checkpoint, ...]

    @property
    def kind(self) -> str:
        """The kind of its members; `ensemble` where they differ."""
        kinds = {member.kind for member in self.members}
        return kinds.pop() if len(kinds) == 1 else "ensemble"


def find_models(config: EvaluationConfig) -> list[Entry]:
    """The models of a configuration; nothing is loaded yet.

    Raises:
        InputError: no such model, one that is neither a bi- nor a cross-encoder, one named twice.
    """
    entries = [_members(entry) for entry in config.models]
    same = [tuple(map(_identity, members)) for members in entries]
    for members, written in zip(same, config.models, strict=True):
        if same.count(members) > 1:
            raise InputError(f"models: '{written}' is named twice; remove one of them")
    paths = list(dict.fromkeys(path for members in entries for path in members))
    pin_models(paths, Path(config.output_dir))
    names = _names(paths)
    found = {path: _checkpoint(path, name, config) for path, name in names.items()}
    ensembles = [tuple(found[path] for path in members) for members in entries]
    listed = [Entry("+".join(member.name for member in members), members) for members in ensembles]
    for entry, written in zip(listed, config.models, strict=True):
        if len(entry.name.encode()) > LONGEST_ENSEMBLE:
            raise InputError(
                f"models: the folder of '{written}' would have a name of {len(entry.name.encode())} bytes, more than "
                f"{LONGEST_ENSEMBLE}; give its models' folders shorter names"
            )
    return listed


def checkpoints(entries: list[Entry]) -> list[Checkpoint]:
    """Each checkpoint once, however many ensembles it is in."""
    return list(dict.fromkeys(member for entry in entries for member in entry.members))


def _members(entry: str) -> tuple[str, ...]:
    members = (entry,) if Path(entry).is_dir() else tuple(part.strip() for part in entry.split("+"))
    for member in members:
        if not member or list(map(_identity, members)).count(_identity(member)) > 1:
            raise InputError(f"models: '{entry}' is no ensemble; write one+two, two different models")
    return members


def _checkpoint(path: str, name: str, config: EvaluationConfig) -> Checkpoint:
    checkpoint = resolve_checkpoint(path)
    pooling = None
    if checkpoint.kind == "cross-encoder":
        check_cross_encoder(checkpoint, config.max_length)
    else:
        pooling = check_bi_encoder(checkpoint, config.pooling, max_length=config.max_length)
    return Checkpoint(path, name, checkpoint.kind, pooling, config.max_length or checkpoint.max_length)


def _names(paths: list[str]) -> dict[str, str]:
    """Of each model, as little of its path's end as tells it from the others, with the PLM's name before the kind.

    Where two such ends are alike once they are names of folders, all but the first get a number.
    """
    parts = {path: _parts(path) for path in paths}
    lengths = {path: 1 + (parts[path][-1] in get_args(Kind)) for path in paths}
    for _ in range(max(map(len, parts.values()))):
        ends = {path: parts[path][-lengths[path] :] for path in paths}
        for path, end in ends.items():
            if list(ends.values()).count(end) > 1:
                lengths[path] += 1
    names: dict[str, str] = {}
    for path in paths:
        name = re.sub(r"[^\w.-]+", "_", "_".join(parts[path][-lengths[path] :])).lstrip(".") or "model"
        name = name.encode()[-LONGEST_NAME:].decode(errors="ignore").lstrip(".")
        taken = set(map(folded, names.values()))
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names[path] = next(candidate for candidate in candidates if folded(candidate) not in taken)
    return names


def _identity(path: str) -> str:
    """One text for one model, however a local folder is written."""
    return str(Path(path).resolve()) if is_folder(path) else path


def _parts(path: str) -> list[str]:
    model, revision = split_revision(path)
    where = Path(path).absolute().parts[1:] if is_folder(path) else model.split("/")
    if revision is not None:
        where = [*where[:-1], f"{where[-1]}@{revision.replace('/', '_')}"]
    return [part for part in where if part not in {"", ".."}]
