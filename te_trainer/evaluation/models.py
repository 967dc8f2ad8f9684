"""The models that an evaluation scores: one encoder each, or an ensemble of several."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from te_trainer.config.names import LONGEST_NAME, expand_home, folded, is_folder, split_revision
from te_trainer.config.schema import EvaluationConfig
from te_trainer.config.types import Kind, Pooling
from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, Checkpoint, CrossEncoder, resolve_checkpoint
from te_trainer.runs.commits import pin_commits

LONGEST_ENSEMBLE = 240  # bytes of the name of its folder, which is written as .partial-NAME first


@dataclass(frozen=True)
class Member:
    """An encoder, and how the evaluation reads texts with it."""

    checkpoint: Checkpoint
    name: str  # of its folder of predictions
    pooling: Pooling | None  # None for a cross-encoder
    max_length: int
    prompt: str  # before every sentence; empty for a cross-encoder

    @property
    def kind(self) -> Kind:
        return self.checkpoint.kind

    def describe(self) -> str:
        """What the encoder was taken for, and how it reads texts, as a line."""
        pooling = f"{self.pooling} pooling, " if self.pooling else ""
        prompt = f", prompt '{self.prompt}'" if self.prompt else ""
        return f"{self.name}: {self.kind}, {pooling}up to {self.max_length:,} tokens{prompt} ({self.checkpoint.name})"


@dataclass(frozen=True)
class ScoredModel:
    """What is scored as one: an encoder, or an ensemble of several, whose predictions are averaged."""

    name: str
    members: tuple[Member, ...]

    @property
    def kind(self) -> str:
        """The kind of its members; `ensemble` where they differ."""
        kinds = {member.kind for member in self.members}
        return kinds.pop() if len(kinds) == 1 else "ensemble"


def resolve_models(config: EvaluationConfig) -> list[ScoredModel]:
    """The models of a configuration; no weights are loaded yet."""
    ensembles = [_split_ensemble(entry) for entry in config.models]
    identities = [tuple(map(_identity, paths)) for paths in ensembles]
    for identity, entry in zip(identities, config.models, strict=True):
        if identities.count(identity) > 1:
            raise InputError(f"models: '{entry}' is named twice; remove one of them")
    paths = list(dict.fromkeys(itertools.chain(*ensembles)))
    pin_commits(paths)
    members = {path: _member(path, name, config) for path, name in _folder_names(paths).items()}
    models = []
    for ensemble, entry in zip(ensembles, config.models, strict=True):
        name = "+".join(members[path].name for path in ensemble)
        if len(name.encode()) > LONGEST_ENSEMBLE:
            raise InputError(
                f"models: the folder of '{entry}' would have a name of {len(name.encode())} bytes, more than "
                f"{LONGEST_ENSEMBLE}; give its models' folders shorter names"
            )
        models.append(ScoredModel(name, tuple(members[path] for path in ensemble)))
    return models


def distinct_members(models: list[ScoredModel]) -> list[Member]:
    """Each encoder once, however many ensembles it is in."""
    return list(dict.fromkeys(member for model in models for member in model.members))


def _split_ensemble(entry: str) -> tuple[str, ...]:
    paths = (entry,) if is_folder(entry) else tuple(expand_home(part.strip()) for part in entry.split("+"))
    if not all(paths) or len(set(map(_identity, paths))) < len(paths):
        raise InputError(f"models: '{entry}' is no ensemble; write one+two, two different models")
    return paths


def _member(path: str, name: str, config: EvaluationConfig) -> Member:
    checkpoint = resolve_checkpoint(path)
    pooling, prompt = None, ""
    if checkpoint.kind == "cross-encoder":
        CrossEncoder.check(checkpoint, config.max_length)
    else:
        prompt = checkpoint.layout.prompt if config.prompt is None else config.prompt
        pooling = BiEncoder.check(checkpoint, config.pooling, max_length=config.max_length, prompt=prompt)
    return Member(checkpoint, name, pooling, config.max_length or checkpoint.max_length, prompt)


def _folder_names(paths: list[str]) -> dict[str, str]:
    """For each model, as little of the end of its path as tells it from the others.

    A folder that is named like a kind gets its PLM's name in front. Where two ends are alike once they are names of
    folders, all but the first get a number.
    """
    parts = {path: _parts(path) for path in paths}
    lengths = {path: 1 + (parts[path][-1] in get_args(Kind)) for path in paths}
    for _ in range(max(map(len, parts.values()))):
        ends = {path: parts[path][-lengths[path] :] for path in paths}
        for path, end in ends.items():
            lengths[path] += list(ends.values()).count(end) > 1
    names: dict[str, str] = {}
    for path in paths:
        name = re.sub(r"[^\w.-]+", "_", "_".join(parts[path][-lengths[path] :])).lstrip(".") or "model"
        name = name.encode()[-LONGEST_NAME:].decode(errors="ignore").lstrip(".")
        taken = set(map(folded, names.values()))
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names[path] = next(candidate for candidate in candidates if folded(candidate) not in taken)
    return names


def _parts(path: str) -> list[str]:
    model, revision = split_revision(path)
    parts = list(Path(path).absolute().parts[1:]) if is_folder(path) else model.split("/")
    if revision is not None:
        parts[-1] += f"@{revision.replace('/', '_')}"
    return [part for part in parts if part not in {"", ".."}] or ["model"]


def _identity(path: str) -> str:
    """One text for one model, however a local folder is written."""
    return str(Path(path).resolve()) if is_folder(path) else path
