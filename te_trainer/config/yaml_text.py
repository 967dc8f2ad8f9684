"""YAML as people write it, looked through before it is read.

A parser keeps the last of two equal keys without a word, and follows what refers to itself, or nests, until memory or
the stack ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

# Without quotes they stand for no value.
NO_VALUE = ("null", "Null", "NULL", "~")
# Of the parser; the texts of a command line, and of a file's values, are read as YAML once more.
MODE = "yaml or text"
MAX_DEPTH = 20  # of lists and mappings inside one another; a configuration of DeepSpeed has five
MAX_NODES = 100_000  # keys and values, with all that aliases stand for


class RefusedYAMLError(yaml.MarkedYAMLError):
    """YAML that can be parsed, but not meant; `problem` says why and how to fix it, `problem_mark` where."""


@dataclass
class _Collection:
    """A list or a mapping whose end has not come yet."""

    is_mapping: bool
    anchor: str | None
    nodes_before: int
    keys: set[str] = field(default_factory=set)
    key_is_next: bool = True


def load_yaml(text: str) -> Any:
    """Read a text as the command line's parser does, once `check_yaml` finds nothing.

    Raises:
        yaml.YAMLError: as `check_yaml`, or a value that cannot be, such as a number of 10,000 digits.
    """
    check_yaml(text)
    try:
        return get_loader("yaml")(text)
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from None


def describe_error(error: yaml.YAMLError) -> str:
    """Where in a text what is wrong, and how to fix it; to stand behind the name of a file."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    line = f", line {mark.line + 1}" if mark else ""
    if isinstance(error, RefusedYAMLError):
        return f"{line}: {problem}"
    return f"{line} is not YAML ({problem or ' '.join(str(error).split())[:200] or 'broken'}); correct the file"


def load_value(text: str) -> Any:
    """Read a single value as YAML; a text of which YAML leaves nothing, such as `# x` or `&x`, is that text."""
    value = get_loader("yaml")(text)
    return text if value is None and text.strip() not in NO_VALUE else value


set_loader(MODE, load_value, exceptions=(yaml.YAMLError,))


def check_yaml(text: str, by_hand: bool = True) -> None:
    """Refuse a key that stands twice, what refers to itself, what is too deep or too large, and the text `null`.

    Args:
        by_hand: False of what a program wrote, which may hold that text.

    Raises:
        RefusedYAMLError: says which, and where.
        yaml.YAMLError: it is not YAML at all.
    """
    open_: list[_Collection] = []
    sizes: dict[str, int] = {}
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            closed = open_.pop()
            if closed.anchor is not None:
                sizes[closed.anchor] = nodes - closed.nodes_before
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if open_ and open_[-1].is_mapping:
            _check_key(event, open_[-1])
        if isinstance(event, yaml.AliasEvent):
            if any(each.anchor == event.anchor for each in open_):
                raise _refused(event, f"*{event.anchor} refers to what it stands in; write out what is meant")
            nodes += sizes.get(str(event.anchor), 1)
        else:
            nodes += 1
        if by_hand and isinstance(event, yaml.ScalarEvent) and event.style is not None:
            text = event.value.strip()
            if text in NO_VALUE:
                raise _refused(
                    event, f"the text '{text}' would be read as no value; take its quotes off, or write another"
                )
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Collection(isinstance(event, yaml.MappingStartEvent), event.anchor, nodes - 1))
        if len(open_) > MAX_DEPTH:
            raise _refused(event, f"more than {MAX_DEPTH} lists and mappings inside one another; take some away")
        if nodes > MAX_NODES:
            raise _refused(event, f"more than {MAX_NODES:,} keys and values, aliases written out; take some away")


def _check_key(event: yaml.NodeEvent, mapping: _Collection) -> None:
    if mapping.key_is_next and isinstance(event, yaml.ScalarEvent):
        if event.value in mapping.keys:
            raise _refused(event, f"the key '{event.value[:100]}' stands there twice; remove one of them")
        mapping.keys.add(event.value)
    mapping.key_is_next = not mapping.key_is_next


def _refused(event: Any, problem: str) -> RefusedYAMLError:
    return RefusedYAMLError(problem=problem, problem_mark=event.start_mark)
