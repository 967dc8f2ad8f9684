"""Data sets of the Hub; in a run each is one commit, whatever is pushed meanwhile."""

from __future__ import annotations

from typing import Any

from te_trainer.errors import InputError

_commits: dict[str, str] = {}  # of data sets, by their names


def split_set(source: str) -> tuple[str, str | None, str | None] | None:
    """The repository, the configuration and the revision of `owner/name:config@revision`; None of what is no Hub id."""
    name, at, revision = source.partition("@")
    repository, colon, configuration = name.partition(":")
    if name.count("/") != 1 or name.startswith((".", "/")) or (at and not revision) or (colon and not configuration):
        return None
    return repository, configuration or None, revision or None


def pin(commits: dict[str, str]) -> None:
    """Take these commits, by the data sets' names, for what the names mean in this process."""
    _commits.update(commits)


def pin_key(repository: str, revision: str | None) -> str:
    """A data set's name as `pin` takes it."""
    return f"{repository}@{revision}" if revision else repository


def commit_of(repository: str, revision: str | None) -> str | None:
    """The commit of a data set; None where the Hub does not tell, and a cache may have to do."""
    from huggingface_hub import HfApi

    key = pin_key(repository, revision)
    if key not in _commits:
        try:
            commit = HfApi().dataset_info(repository, revision=revision, timeout=100.0).sha
        except Exception:  # whoever loads the set says why it cannot be had
            return None
        if not commit:
            return None
        _commits[key] = commit
    return _commits[key]


def load_set(repository: str, configuration: str | None, revision: str | None = None) -> Any:
    """All splits of a data set, by their names.

    Raises:
        InputError: the set, or the wanted commit of it, cannot be had.
    """
    from datasets import load_dataset_builder
    from datasets.packaged_modules.cache.cache import Cache

    name = pin_key(repository, revision)
    wanted = _commits.get(name, revision)
    try:
        builder = load_dataset_builder(repository, configuration, revision=wanted)
        found = builder.config.name
        cached = isinstance(builder, Cache)
        guessed = cached and configuration is None and found != "default"
        other = cached and wanted is not None and builder.hash != wanted
        if not guessed and not other:
            builder.download_and_prepare()
            return builder.as_dataset()
    except Exception as error:  # the library raises many kinds; each means that the set could not be had
        raise InputError(f"{name}: not a file here, and not to be had from the Hub ({_reason(error)})") from None
    if other:
        raise InputError(
            f"{name}: the Hub does not give revision {wanted}, and the cache holds another one; try again, or name a "
            "revision that is there (in a run that is continued, another output_dir)"
        )
    # Where the Hub is asked, it says whether the set has others; the cache knows only what was loaded last.
    raise InputError(
        f"{repository}: the Hub does not answer, and of the set's configurations the cache holds '{found}'; if that is "
        f"the one, name it as {repository}:{found}"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
