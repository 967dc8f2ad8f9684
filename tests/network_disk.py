"""A disk as NFS shows it to a machine: what it has looked for in vain is still not there for it when others made it.

The kernel keeps such an answer for up to a minute (`lookupcache` of nfs(5)); here it is kept to the end of the process.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def keep_what_is_not_there(root: Path) -> None:
    """Let this process see a folder so, by whatever Python opens or looks for."""
    absent: set[Path] = set()
    look_up = os.lstat

    def look(path: Any) -> None:
        if not isinstance(path, str | os.PathLike):
            return
        place = Path(os.path.abspath(path))  # noqa: PTH100
        if root not in place.parents:
            return
        for each in (*reversed(place.relative_to(root).parents[:-1]), place.relative_to(root)):
            if root / each not in absent:
                try:
                    look_up(root / each)
                    continue
                except FileNotFoundError:
                    absent.add(root / each)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def seen_so(function: Callable[..., Any], makes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **rest: Any) -> Any:
            # who makes something asks the server for it, and not for the folders on the way to it
            if makes(*arguments, **rest) and isinstance(path, str | os.PathLike):
                absent.discard(Path(os.path.abspath(path)))  # noqa: PTH100
                look(Path(path).parent)
            else:
                look(path)
            return function(path, *arguments, **rest)

        return call

    def writes(mode: str = "r", *_: Any, **rest: Any) -> bool:
        return not set("wax+").isdisjoint(rest.get("mode", mode))

    for name in ("stat", "lstat", "scandir", "listdir", "unlink", "access"):
        setattr(os, name, seen_so(getattr(os, name), lambda *_, **__: False))
    os.mkdir = seen_so(os.mkdir, lambda *_, **__: True)  # type: ignore[assignment]
    os.open = seen_so(os.open, lambda flags, *_, **__: bool(flags & os.O_CREAT))  # type: ignore[assignment]
    io.open = builtins.open = seen_so(open, writes)  # type: ignore[assignment]
