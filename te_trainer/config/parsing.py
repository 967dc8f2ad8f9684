"""How every command reads its keys: a YAML file, dotted overrides, and one sentence for each mistake.

A command is a dataclass of `schema`. Its fields are keys; those that are dataclasses themselves are sections.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from te_trainer.config.names import expand_home
from te_trainer.config.schema import COMMON_HELP, ModelConfig, TrainingConfig
from te_trainer.config.training_keys import MANAGED, NEVER_KEYS, Key, trainer_keys
from te_trainer.config.types import TRAINING_LIMITS, GoldColumns
from te_trainer.errors import InputError

Config = TypeVar("Config")


def read(command: type[Config], given: Sequence[str] | Mapping[str, Any] | None = None, **defaults: Any) -> Config:
    """Keys as the dataclass of their command.

    Args:
        given: A command line, by default this process's; or the keys themselves, as a YAML file holds them.
        defaults: Sections with other defaults than their own.
    """
    schema: Any = command
    keys, values = keys_of(schema), dict(_flat(command, defaults))
    contents = (
        [given] if isinstance(given, Mapping) else _command_line(command, sys.argv[1:] if given is None else given)
    )
    for content in contents:
        for key, value in _flat(command, content):
            name = key
            if name not in keys:  # an entry of a mapping, such as data.columns.sentence1
                name, _, entry = key.rpartition(".")
                before = values.get(name)
                kinds = {str} if keys[name].type == GoldColumns else {int}
                value = {**(before if isinstance(before, dict) else {}), entry: _loaded(key, kinds, value)}
            values[name] = convert(name, keys[name].type, value)
    config: Config = command()
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        owner: Any = getattr(config, section) if section else config
        if not keys[key].of_trainer:
            setattr(owner, name, value)
        elif value is not None:
            owner.training[name] = value
    return config


def _command_line(command: Any, argv: Sequence[str]) -> list[Mapping[Any, Any]]:
    """The keys of the files that a command line names, then its own, which override them wherever they stand."""
    arguments = list(argv)
    if help_wanted := {"-h", "--help", "--help-all"}.intersection(arguments):
        # here, since nothing else needs it
        from te_trainer.config.help_layout import help_text

        print(help_text(command, full="--help-all" in help_wanted), flush=True)
        raise SystemExit(0)
    files: list[Mapping[Any, Any]] = []
    own: list[Mapping[Any, Any]] = []
    keys, rest = keys_of(command), iter(arguments)
    key, value = "", None
    for argument in rest:
        if not argument.startswith("--"):
            several = ""
            if value is not None and key in keys and list in _kinds(keys[key].type):
                entries = ", ".join(text.strip("[], ") for text in (value, argument))
                several = f"; several are written --{key} '[{entries}]'"
            raise InputError(f"unexpected argument '{argument}': write --section.key value{several}")
        key, equals, text = argument.removeprefix("--").partition("=")
        value = text if equals else next(rest, None)
        if value is None or (value.startswith("--") and not equals):
            is_switch = key in keys and bool in _kinds(keys[key].type)
            is_next = value is None or value[2:].partition("=")[0] in keys
            how = f" {'true' if is_switch else 'VALUE'}" if is_next else "=VALUE, as it begins with --"
            raise InputError(f"{key}: its value is missing; write --{key}{how}")
        if key == "config":
            files.append(_read_file(Path(expand_home(value))))
        else:
            own.append({key: None if value in {"null", "~"} else value})
    return files + own


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = _load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:  # of the encoding, too
        raise InputError(f"--config: {path}, {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"--config: {path} holds no keys; write keys and values such as 'output_dir: runs/first'")
    return content


def _flat(command: Any, content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested sections by their dotted keys, each of which is known."""
    keys, sections = keys_of(command), sections_of(command)
    for name, value in content.items():
        key = f"{prefix}{name}"
        owner = key.rpartition(".")[0]
        if key in sections or (key not in keys and isinstance(value, dict)):
            yield from _flat(command, convert(key, dict, value), f"{key}.")
        elif key in keys or owner in keys:
            yield key, value
        else:
            known = did_you_mean(f"unknown key '{key}'", key, [other for other in ("config", *keys) if other != key])
            raise InputError(_why_refused(key, sections.get(owner)) or known)


def _why_refused(key: str, section: Any = None) -> str | None:
    """Why a key of TrainingArguments or of other libraries cannot be set; None of any other key."""
    name = key.rpartition(".")[2]
    if name in NEVER_KEYS:
        return f"{key} cannot be set: {NEVER_KEYS[name]}"
    if section is None or not issubclass(section, TrainingConfig) or not (name in MANAGED or name.startswith("hub_")):
        return None
    reasons = MANAGED | section.managed
    return f"{key} cannot be set: {reasons.get(name, reasons['push_to_hub'])}"


def convert(key: str, hint: Any, value: Any) -> Any:
    """A value of a file or of the command line as its type has it; one entry may stand for a list of one.

    Raises:
        InputError: The value is of another type, or beyond its limits.
    """
    kinds = _kinds(hint)
    value = _loaded(key, kinds, value)
    if kinds - {NoneType} == {list} and not isinstance(value, list | NoneType):
        value = [value]
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        unknown = "unexpected_keyword_argument"
        wrong = max(error.errors(), key=lambda each: each["type"] == unknown)  # the first, if none is an unknown key
    location, given = wrong["loc"], wrong["input"]
    if wrong["type"] == unknown:
        name = str(location[-1])
        known = did_you_mean(f"{key}: unknown key '{name}'", name, list(key_types(ModelConfig)))
        raise InputError(_why_refused(f"{key}.{name}") or known)
    if kinds <= {list, dict, NoneType}:  # else the location names types, too
        key = ".".join([key, *(str(name) for name in location if str(name).isidentifier())])
    if given is None or (isinstance(given, str) and not given.strip()):
        if isinstance(value, list) and len(value) > 1:
            raise InputError(f"{key}: an entry is empty; name something in its place, or remove it")
        raise InputError(f"{key} is empty; give a value, or leave the key out")
    reason = wrong["msg"].removeprefix("Value error, ")
    shown = f"'{given[:200]}'" if isinstance(given, str) else " ".join(str(given).split())[:200]
    fix = "; put it in quotes" if wrong["type"] == "string_type" and isinstance(given, bool | int | float) else ""
    raise InputError(f"{key}: {reason[0].lower()}{reason[1:]}, got {shown}{fix}")


def _kinds(hint: Any) -> set[Any]:
    """The plain types of a type: list of `list[str]`, int and None of `PositiveInt | None`."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return _kinds(parts[0])
    return set().union(*map(_kinds, parts)) if kind in {Union, UnionType} else {kind}


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `2e-5` is a number, a date is a text, and no key stands twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key '{key.value[:100]}' stands there twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        return super().construct_object(node, deep=True)  # which refuses a node that holds itself


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _load_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1} " if mark else ""
        raise ValueError(f"{line}is not YAML ({problem or ' '.join(str(error).split())[:200]}); correct it") from None


def _loaded(key: str, kinds: set[Any], value: Any) -> Any:
    """A text as the YAML that it holds, where its type is no text: a list or a mapping in brackets, or a number."""
    if not isinstance(value, str):
        return value
    if {str, bool} <= kinds and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    try:
        in_brackets = bool(kinds & {list, dict}) and value.lstrip().startswith(("[", "{"))
        return _load_yaml(value) if in_brackets or (kinds & {int, float, bool} and str not in kinds) else value
    except ValueError as error:
        if in_brackets:
            raise InputError(f"{key}: {error}") from None
        return value


@cache
def key_types(schema: Any) -> dict[str, Any]:
    """The types of a dataclass's keys with their limits, in their order."""
    hints = get_type_hints(schema, include_extras=True)
    return {item.name: hints[item.name] for item in fields(schema) if item.metadata.get("key", True)}


@cache
def keys_of(schema: Any, section: str = "") -> dict[str, Key]:
    """All keys by their dotted names, those of TrainingArguments included."""
    found: list[Key] = []
    defaults, helps = schema(), key_helps(schema)
    for name, hint in key_types(schema).items():
        path = f"{section}.{name}" if section else name
        if is_section(hint):
            found += keys_of(hint, path).values()
        else:
            found.append(Key(path, hint, getattr(defaults, name), helps[name]))
    if issubclass(schema, TrainingConfig):
        for key in trainer_keys().values():
            hint, default = TRAINING_LIMITS.get(key.name, key.type), schema.defaults.get(key.name, key.default)
            found.append(replace(key, name=f"{section}.{key.name}", type=hint, default=default))
    return {key.name: key for key in found}


@cache
def sections_of(schema: Any) -> dict[str, type]:
    """The sections of a command, by name."""
    return {name: hint for name, hint in key_types(schema).items() if is_section(hint)}


def is_section(hint: Any) -> bool:
    return is_dataclass(hint)


def key_helps(schema: Any) -> dict[str, str]:
    """What the docstrings of a dataclass, and of those that it extends, say of its keys."""
    docstrings = [docstring_parser.parse(each.__doc__ or "") for each in reversed(schema.__mro__)]
    parameters = [parameter for docstring in docstrings for parameter in docstring.params]
    return COMMON_HELP | {each.arg_name: " ".join((each.description or "").split()) for each in parameters}


# What other programs call these keys.
SHORT_NAMES = {"lr": "learning_rate", "epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size"}


def did_you_mean(what: str, key: str, known: Sequence[str]) -> str:
    """A sentence on what is unknown, with the known key that looks most like it."""
    section, dot, tail = key.rpartition(".")
    tails = {name.rpartition(".")[2]: name for name in known}
    tail = SHORT_NAMES[tail] if SHORT_NAMES.get(tail) in tails else tail
    same = [name for name in known if name.rpartition(".")[2] == tail]
    close = difflib.get_close_matches(section + dot + tail, same or known, n=1, cutoff=0 if same else 0.6)
    close = close or [tails[name] for name in difflib.get_close_matches(tail, tails, n=1)]
    return f"{what}; did you mean '{close[0]}'?" if close else f"{what}; --help lists the known ones"


def flatten_keys(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys."""
    if isinstance(values, dict):
        parts: Any = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        parts = enumerate(values)
    else:
        return {prefix: values}
    result: dict[str, Any] = {}
    for key, value in parts:
        result.update(flatten_keys(value, f"{prefix}.{key}" if prefix else str(key)))
    return result
