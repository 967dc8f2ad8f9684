"""How every command reads its keys: a YAML file, dotted overrides, and one sentence for each mistake.

A command is a dataclass of `schema`. Its fields are keys; those that are dataclasses themselves are sections.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from te_trainer.config.schema import COMMON_HELP, TRAINING_LIMITS, TrainingConfig
from te_trainer.config.training_keys import MANAGED, Key, trainer_keys
from te_trainer.config.yaml_text import describe_error, load_yaml
from te_trainer.errors import InputError

Config = TypeVar("Config")


def read(command: type[Config], argv: Sequence[str] | None = None, **defaults: Any) -> Config:
    """A command line as the dataclass of its command.

    Args:
        defaults: Sections of keys that have another default than the dataclass.

    Raises:
        InputError: An unknown key (with the nearest known one), a value of another type or beyond its limits, a
            configuration file that is none.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if help_wanted := {"-h", "--help", "--help-all"}.intersection(arguments):
        # here, since nothing else needs it
        from te_trainer.config.help_text import help_text

        print(help_text(command, full="--help-all" in help_wanted))
        raise SystemExit(0)
    schema: Any = command
    keys, values = keys_of(schema), dict(_flat(command, defaults))
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            raise InputError(f"unexpected argument '{argument}': write --section.key value")
        key, equals, text = argument.removeprefix("--").partition("=")
        value = text if equals else next(rest, None)
        if value is None:
            raise InputError(f"{key}: its value is missing; write --{key} VALUE")
        content = _read_file(Path(value)) if key == "config" else {key: None if value in {"null", "~"} else value}
        for name, given in _flat(command, content):
            if name not in keys:  # an entry of a mapping, such as data.columns.sentence1
                name, _, entry = name.rpartition(".")
                before = values.get(name)
                given = {**(before if isinstance(before, dict) else {}), entry: _loaded(key, given)}
            values[name] = convert(name, keys[name].type, given)
    config: Config = _build(command, values)
    return config


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: the file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--config: {path} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"--config: {path}, {describe_error(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"--config: {path} holds no keys; write keys and values such as 'output_dir: runs/first'")
    return content


def _flat(command: Any, content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested sections by their dotted keys, each of which is known."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if key in sections_of(command):
            value = convert(key, dict, value)
        elif key in keys_of(command) or not isinstance(value, dict):
            _check_known(command, key)
            yield key, value
            continue
        yield from _flat(command, value, f"{key}.")


def _check_known(command: Any, key: str) -> None:
    keys, (section, _, name) = keys_of(command), key.rpartition(".")
    if key in keys or section in keys:
        return
    training = sections_of(command).get(section)
    if training is not None and issubclass(training, TrainingConfig) and (name in MANAGED or name.startswith("hub_")):
        reasons = MANAGED | training.managed
        raise InputError(f"{key} cannot be set: {reasons.get(name, reasons['push_to_hub'])}")
    raise InputError(nearest(f"unknown key '{key}'", key, [known for known in ("config", *keys) if known != key]))


def _build(schema: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Make a dataclass of `schema`; what `values` do not hold keeps its default."""
    arguments = {
        name: _build(hint, values, f"{prefix}{name}.") if is_section(hint) else values[f"{prefix}{name}"]
        for name, hint in key_types(schema).items()
        if is_section(hint) or f"{prefix}{name}" in values
    }
    if issubclass(schema, TrainingConfig):
        training = {name: values.get(f"{prefix}{name}") for name in trainer_keys()}
        arguments["training"] = {name: value for name, value in training.items() if value is not None}
    return schema(**arguments)


def convert(key: str, hint: Any, value: Any) -> Any:
    """A value of a file or of the command line as its type has it.

    One entry may stand for a list of one, and a name for a mapping with that name alone.

    Raises:
        InputError: The value is of another type, or beyond its limits.
    """
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        value = convert(key, parts[0], value)
        for limit in parts[1:]:
            if not limit.holds(value):
                raise _unexpected(key, limit.words, value)
        return value
    if kind in {Union, UnionType}:
        return _convert_any(key, parts, value)
    if value is None:
        raise InputError(f"{key} is empty; give a value, or leave the key out")
    if kind is Literal:
        if value not in parts:
            raise _unexpected(key, f"one of {', '.join(map(str, parts))}", value)
        return value
    if kind in {int, float, bool}:
        number = _loaded(key, value)
        if type(number) is not kind and not (kind is float and type(number) is int):
            raise _unexpected(key, kind.__name__, value)
        return kind(number)
    if kind is list:
        value = _loaded(key, value, "[", "{")
        return [convert(key, parts[0], each) for each in (value if isinstance(value, list) else [value])]
    if kind is dict:
        value = _loaded(key, value, "{")
        if not isinstance(value, dict):
            raise _unexpected(key, "a mapping", value)
        return {name: convert(f"{key}.{name}", parts[1], each) for name, each in value.items()} if parts else value
    if is_section(hint):
        return _convert_entry(key, hint, value)
    if not isinstance(value, kind):
        raise _unexpected(key, kind.__name__, value)
    return value


def _convert_any(key: str, kinds: Sequence[Any], value: Any) -> Any:
    """A value as one of several types; a text stays one if it may, unless it is a list or a mapping."""
    if value is None and NoneType in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not NoneType]
    if str in kinds and isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return value
    *first, last = sorted(kinds, key=lambda kind: kind is str)
    for kind in first:
        with contextlib.suppress(InputError):
            return convert(key, kind, value)
    return convert(key, last, value)


def _convert_entry(key: str, schema: Any, value: Any) -> Any:
    """An entry of a list, which is a mapping, or the value of its first key."""
    known = key_types(schema)
    entry = {next(iter(known)): value} if isinstance(value, str) else value
    if not isinstance(entry, dict):
        raise _unexpected(key, "a name or a mapping", value)
    for name in entry:
        if name not in known:
            raise InputError(nearest(f"{key}: unknown key '{name}'", str(name), list(known)))
    for item in fields(schema):
        if item.default is MISSING and item.name not in entry:
            raise InputError(f"{key}: an entry lacks its key '{item.name}'")
    return schema(**{name: convert(f"{key}.{name}", known[name], each) for name, each in entry.items()})


def _loaded(key: str, value: Any, *marks: str) -> Any:
    """A text as the YAML that it holds, where it begins with one of the marks, if there are any."""
    if not isinstance(value, str) or not value.lstrip().startswith(marks or ""):
        return value
    try:
        return load_yaml(value)
    except yaml.YAMLError as error:
        if marks:
            raise InputError(f"{key}: {describe_error(error)}") from None
        return value


def _unexpected(key: str, words: str, value: Any) -> InputError:
    shown = str(value)[:200]
    return InputError(f"{key}: expected {words}, got " + (f"'{shown}'" if isinstance(value, str) else shown))


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


def nearest(what: str, key: str, known: Sequence[str]) -> str:
    """A sentence on what is unknown, with the known key that looks most like it."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(key.rpartition(".")[2], tails, n=1)]
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


def as_mapping(config: Any) -> dict[str, Any]:
    """A configuration as YAML holds it: keys of TrainingArguments stand beside those of their section."""
    found: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_section(value):
            value = as_mapping(value)
        elif isinstance(value, list):
            value = [as_mapping(each) if is_section(each) else each for each in value]
        found |= value if item.name == "training" else {item.name: value}
    return found
