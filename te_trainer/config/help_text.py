"""What `--help` and `--help-all` print, from the docstrings of the dataclasses in `schema`."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import docstring_parser

from te_trainer.config.parsing import is_section, key_helps, key_types, keys_of, sections_of
from te_trainer.config.schema import TrainingConfig
from te_trainer.config.training_keys import Key

NOTHING: tuple[Any, ...] = (None, "", [], {})


def help_text(command: type, full: bool) -> str:
    """The keys of a command with their meanings and defaults.

    Args:
        full: Whether to give more than the first sentence of each key's meaning, and to list every key of
            TrainingArguments too.
    """
    sections = sections_of(command)
    lines = [_summary(command), f"usage: {Path(sys.argv[0]).name} [--config FILE] [--key value ...]", ""]
    lines += _entry("config", "YAML file with the keys below.")
    keys = list(keys_of(command).values())
    lines += _keys([key for key in keys if "." not in key.name], command, full)
    for section, schema in sections.items():
        lines += ["", *_wrapped(f"{section}: {_summary(schema)}", "", "  ")]
        of_section = [key for key in keys if key.name.startswith(f"{section}.")]
        lines += _keys([key for key in of_section if full or not key.of_trainer], schema, full)
        if issubclass(schema, TrainingConfig) and not full:
            ours = ", ".join(f"{name} {value}" for name, value in schema.defaults.items())
            lines += _wrapped(
                f"Besides these, any key of transformers.TrainingArguments. Defaults ({schema.origin}): {ours}.", "  "
            )
    if not full:
        more = "each key in full" + (", and every key of TrainingArguments" if len(keys) > 100 else "")
        lines += ["", f"--help-all describes {more}."]
    return "\n".join(lines)


def _keys(keys: list[Key], schema: type, full: bool) -> list[str]:
    lines = []
    for key in keys:
        text = key.help
        if get_origin(key.type) is list and is_section(entry := get_args(key.type)[0]):
            meanings = " ".join(f"{name}: {meaning}" for name, meaning in key_helps(entry).items())
            text += f" Keys of a mapping: {meanings if full else ', '.join(key_types(entry)) + '.'}"
        elif not full:
            text = re.split(r"\. (?=[A-Z])", text)[0].rstrip(".") + "."
        lines += _entry(key.name, f"{text} {_details(key, schema, full)}".rstrip())
    return lines


def _details(key: Key, schema: type, full: bool) -> str:
    """The type of a key, unless its meaning names all choices, and its default, unless its meaning does."""
    name = key.name.rpartition(".")[2]
    choices = [choice for choice in get_args(key.type) if isinstance(choice, str)]
    details = [_type_name(key.type)] if full or not all(choice in key.help for choice in choices) else []
    if "Default: " not in key.help and (full or key.default not in NOTHING):
        origin = f", {schema.origin}" if issubclass(schema, TrainingConfig) and name in schema.defaults else ""
        details.append(f"default: {'none' if key.default in NOTHING else key.default}{origin}")
    elif not full:
        details += re.findall(r"Default: [^.]*", key.help)
    return f"({'; '.join(details)})" if details else ""


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _type_name(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if parts := [part for part in get_args(hint) if part is not type(None)]:
        joined = ", ".join if get_origin(hint) in {list, dict} else " | ".join
        inner = joined(_type_name(part) for part in parts)
        return f"{get_origin(hint).__name__} of {inner}" if get_origin(hint) in {list, dict} else inner
    return getattr(hint, "__name__", str(hint)).replace("ModelConfig", "mapping")


def _entry(name: str, text: str) -> list[str]:
    return _wrapped(f"  --{name}  {text}", "", "    ")


def _wrapped(text: str, first: str, others: str | None = None) -> list[str]:
    width = max(60, shutil.get_terminal_size().columns)
    others = first if others is None else others
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)


def _summary(schema: type) -> str:
    return docstring_parser.parse(schema.__doc__ or "").short_description or ""
