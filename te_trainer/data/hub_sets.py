"""Data sets of the Hub; in a run each is one commit, whatever is pushed meanwhile."""

from __future__ import annotations

from typing import Any

from te_trainer.data.remote import failure
from te_trainer.errors import InputError
from te_trainer.hub_errors import hub_trouble

_commits: dict[str, str] = {}  # of data sets, by `pin_key`


def split_set(source: str) -> tuple[str, str | None, str | None] | None:
    """Split `owner/name:config@revision` into repository, configuration and revision; None for what is no Hub id."""
    name, at, revision = source.partition("@")
    repository, colon, configuration = name.partition(":")
    if name.count("/") != 1 or name.startswith((".", "/")) or (at and not revision) or (colon and not configuration):
        return None
    return repository, configuration or None, revision or None


def pin(commits: dict[str, str]) -> None:
    """Let this process read these commits, by `pin_key`, wherever their data sets are named."""
    _commits.update(commits)


def pin_key(repository: str, revision: str | None) -> str:
    """A data set's name as `pin` takes it."""
    return f"{repository}@{revision}" if revision else repository


def commit_of(repository: str, revision: str | None) -> str | None:
    """The commit of a data set; None if the Hub does not answer, so that a cache may have to do.

    Raises:
        InputError: The Hub answers that it cannot serve now.
    """
    from huggingface_hub import HfApi, constants

    key = pin_key(repository, revision)
    if key not in _commits:
        try:
            seconds = constants.HF_HUB_ETAG_TIMEOUT
            commit = HfApi().dataset_info(repository, revision=revision, timeout=seconds).sha
        except Exception as error:
            if (trouble := hub_trouble(error)) is not None:
                # a moment later it may serve the set, of a commit that nobody knows
                raise InputError(f"{key}: not a file here, and {trouble}") from None
            commit = None  # `load_set` says why the set cannot be read
        if not commit:
            return None
        _commits[key] = commit
    return _commits[key]


def load_set(repository: str, configuration: str | None, revision: str | None = None) -> Any:
    """Load all splits of a data set, by their names."""
    from datasets import load_dataset_builder
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub import constants

    name = pin_key(repository, revision)
    commit = _commits.get(name, revision)
    try:
        builder = load_dataset_builder(repository, configuration, revision=commit)
        cached = isinstance(builder, Cache)
        other_commit = cached and commit is not None and builder.hash != commit
        # The Hub says whether the set has several configurations; the cache knows only the one that was loaded last.
        any_configuration = cached and configuration is None and builder.config.name != "default"
        if not other_commit and not any_configuration:
            builder.download_and_prepare()
            return builder.as_dataset()
    except Exception as error:  # the library raises many kinds; each means that the set cannot be read
        reason = failure(error, f"{constants.ENDPOINT}/datasets/{repository}", commit)
        raise InputError(f"{name}: not a file here, and not to be had from the Hub ({reason})") from None
    if other_commit:
        raise InputError(
            f"{name}: the Hub does not give revision {commit}, and the cache holds another one; try again, or name a "
            "revision that is there (in a run that is continued, another output_dir)"
        )
    raise InputError(
        f"{repository}: the Hub does not answer, and of the set's configurations the cache holds "
        f"'{builder.config.name}'; if that is the one, name it as {repository}:{builder.config.name}"
    )
