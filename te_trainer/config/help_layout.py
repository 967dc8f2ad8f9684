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


def help_text(command: type, full: bool) -> str:
    """The keys of a command with their meanings and defaults.

    Unless `full`, each meaning is its first sentence, and keys of TrainingArguments are named without it.
    """
    keys = [key for key in keys_of(command).values() if full or not key.of_trainer]
    usage = f"usage: {Path(sys.argv[0]).name} [--config FILE] [--key value ...]"
    blocks = [
        _summary(command),
        usage,
        "",
        "  --config  YAML file of keys; the command line overrides it.",
    ]
    blocks += [_entry(key, command, full) for key in keys if "." not in key.name]
    for section, schema in sections_of(command).items():
        blocks += ["", f"{section}: {_summary(schema)}"]
        blocks += [_entry(key, schema, full) for key in keys if key.name.startswith(f"{section}.")]
        if issubclass(schema, TrainingConfig) and not full:
            ours = ", ".join(f"{name} {value}" for name, value in schema.defaults.items())
            others = "  Besides these, any key of transformers.TrainingArguments."
            blocks.append(f"{others} Defaults ({schema.origin}): {ours}.")
    if not full:
        more = ", and every key of TrainingArguments" if len(keys) < len(keys_of(command)) else ""
        blocks += ["", f"--help-all describes each key in full{more}."]
    wrapper = textwrap.TextWrapper(max(60, shutil.get_terminal_size().columns), break_on_hyphens=False)
    lines = []
    for block in blocks:
        wrapper.subsequent_indent = "    " if block.startswith("  --") else "  "
        lines.append(wrapper.fill(block))
    return "\n".join(lines)


def _entry(key: Key, schema: type, full: bool) -> str:
    """A key with its meaning; with its type and its default, unless the meaning names all choices and the default."""
    text = key.help
    if get_origin(key.type) is list and is_section(entry := getattr(get_args(key.type)[0], "__origin__", None)):
        meanings = " ".join(f"{name}: {meaning}" for name, meaning in key_helps(entry).items())
        text += f" Keys of a mapping: {meanings if full else ', '.join(key_types(entry)) + '.'}"
    elif not full:
        text = re.split(r"\. (?=[A-Z])", text)[0].rstrip(".") + "."
    choices = [choice for choice in get_args(key.type) if isinstance(choice, str)]
    details = [_type_name(key.type)] if full or not all(choice in key.help for choice in choices) else []
    default = "none" if key.default in (None, "", [], {}) else key.default
    if "Default: " not in key.help and (full or default != "none"):
        name = key.name.rpartition(".")[2]
        origin = f", {schema.origin}" if issubclass(schema, TrainingConfig) and name in schema.defaults else ""
        details.append(f"default: {default}{origin}")
    elif not full:
        details += re.findall(r"Default: .*?(?=\.(?: |$))", key.help)
    return f"  --{key.name}  {text}" + (f" ({'; '.join(details)})" if details else "")


def _type_name(hint: Any) -> str:
    kind, parts = get_origin(hint), [part for part in get_args(hint) if part is not type(None)]
    if kind is Annotated:
        return _type_name(parts[0])
    if kind is Literal:
        return " | ".join(map(str, parts))
    if kind in {list, dict}:
        return f"{kind.__name__} of {', '.join(map(_type_name, parts))}"
    if parts:
        return " | ".join(map(_type_name, parts))
    return getattr(hint, "__name__", str(hint)).replace("ModelConfig", "mapping")


def _summary(schema: type) -> str:
    return docstring_parser.parse(schema.__doc__ or "").short_description or ""
