"""How every command reads its keys: a YAML file, dotted overrides, and one sentence for each mistake.

A command is a dataclass of `schema`. Its fields are keys; those that are dataclasses themselves are sections.
"""

from __future__ import annotations

import difflib
import re
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser

from te_trainer.config.schema import TRAINING_LIMITS, Limit, TrainingConfig
from te_trainer.config.training_keys import MANAGED, trainer_keys
from te_trainer.config.yaml_text import MODE, RefusedYAMLError, describe_error, load_yaml
from te_trainer.errors import InputError

Config = TypeVar("Config")

NO_VALUE = "\0"  # no command line can hold it


@dataclass(frozen=True)
class Key:
    """A key of a configuration: its dotted name, the type that the parser reads, its default, and its meaning."""

    name: str
    type: Any
    default: Any
    help: str
    of_trainer: bool = False  # a key of TrainingArguments


def read(command: type[Config], argv: Sequence[str] | None = None) -> Config:
    """A command line as the dataclass of its command.

    Raises:
        InputError: an unknown key (with the nearest known one), a value of another type or beyond its limits, a
            configuration file that is none.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if help_wanted := {"-h", "--help", "--help-all"}.intersection(arguments):
        # here, since nothing else needs it
        from te_trainer.config.help_text import help_text

        print(help_text(command, full="--help-all" in help_wanted))
        raise SystemExit(0)
    try:
        values = _parser(command).parse_args(list(_arguments(command, arguments))).as_dict()
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(_sentence(str(error))) from None
    config: Config = build(command, values)
    return config


def build(schema: Any, values: dict[str, Any], section: str = "") -> Any:
    """Make a dataclass of `schema` from nested mappings, whose types the parser has checked.

    Raises:
        InputError: a value is beyond its limits.
    """
    arguments: dict[str, Any] = {}
    for name, hint in key_types(schema).items():
        value, path = values[name], f"{section}.{name}" if section else name
        if _is_section(hint):
            value = build(hint, value, path)
        elif get_origin(hint) is list:
            value = as_list(value)
            if (entry := entry_type(hint)) is not None:
                value = [_entry(entry, each, path) for each in value]
        _check_limits(path, hint, value)
        arguments[name] = value
    if issubclass(schema, TrainingConfig):
        training = {key: values.get(key) for key in trainer_keys()}
        arguments["training"] = {key: value for key, value in training.items() if value is not None}
        for key, value in arguments["training"].items():
            _check_limits(f"{section}.{key}", TRAINING_LIMITS.get(key), value)
    return schema(**arguments)


@cache
def key_types(schema: Any, limits: bool = True) -> dict[str, Any]:
    """The types of a dataclass's keys, in their order; with their limits, or as the parser takes them."""
    hints = get_type_hints(schema, include_extras=limits)
    return {item.name: hints[item.name] for item in fields(schema) if item.metadata.get("key", True)}


@cache
def keys_of(schema: Any, section: str = "") -> dict[str, Key]:
    """All keys by their dotted names, those of TrainingArguments included."""
    found: list[Key] = []
    defaults, helps = schema(), key_helps(schema)
    for name, hint in key_types(schema, limits=False).items():
        path = f"{section}.{name}" if section else name
        if _is_section(hint):
            found += keys_of(hint, path).values()
        else:
            found.append(Key(path, _parsed_type(hint), getattr(defaults, name), helps[name]))
    if issubclass(schema, TrainingConfig):
        for key in trainer_keys().values():
            default = schema.defaults.get(key.name, key.default)
            found.append(Key(f"{section}.{key.name}", key.type, default, key.help, of_trainer=True))
    return {key.name: key for key in found}


@cache
def sections_of(schema: Any) -> dict[str, type]:
    """The sections of a command, by name."""
    return {name: hint for name, hint in key_types(schema).items() if _is_section(hint)}


def entry_type(hint: Any) -> Any:
    """The dataclass of which a list holds entries; None of any other type."""
    entry = get_args(hint)[0] if get_origin(hint) is list else None
    return entry if is_dataclass(entry) else None


def key_helps(schema: type) -> dict[str, str]:
    """What the docstrings of a dataclass, and of those that it extends, say of its keys."""
    docstrings = [docstring_parser.parse(each.__doc__ or "") for each in reversed(schema.__mro__)]
    parameters = [parameter for docstring in docstrings for parameter in docstring.params]
    return {each.arg_name: " ".join((each.description or "").split()) for each in parameters}


def as_list(value: Any) -> list[Any]:
    """One entry may stand for a list of one."""
    return value if isinstance(value, list) else [value]


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
        if is_dataclass(value):
            value = as_mapping(value)
        elif isinstance(value, list):
            value = [as_mapping(each) if is_dataclass(each) else each for each in value]
        found |= value if item.name == "training" else {item.name: value}
    return found


def _is_section(hint: Any) -> bool:
    return is_dataclass(hint)


def _parsed_type(hint: Any) -> Any:
    """The type that the parser takes: one entry may stand for a list, and a name for a model's mapping."""
    if get_origin(hint) is not list:
        return hint
    entry = get_args(hint)[0]
    return list[entry | str] | str if is_dataclass(entry) else hint | entry  # type: ignore[valid-type]


def _entry(schema: type, value: Any, key: str) -> Any:
    """An entry of a list of mappings, of which a text is the first key."""
    if isinstance(value, str):
        if value.strip()[:1] in {"[", "{", ""}:
            raise InputError(f"{key}: '{value}' is neither a name nor a list of entries; check brackets and spaces")
        value = {next(iter(key_types(schema))): value}
    for name, hint in key_types(schema).items():
        _check_limits(f"{key}.{name}", hint, value.get(name))
    return schema(**value)


def _check_limits(key: str, hint: Any, value: Any) -> None:
    for limit in _limits(hint):
        for one in as_list(value):
            if one is not None and not limit.holds(one):
                raise InputError(f"{key}: expected {limit.words}, got {str(one)[:80]}")


def _limits(hint: Any) -> Iterator[Limit]:
    """The limits of a type and of those that it is made of."""
    yield from (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Limit))
    for part in get_args(hint):
        yield from _limits(part) if not isinstance(part, Limit) else ()


def _parser(command: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, parser_mode=MODE)
    parser.add_argument("--config", action="config")
    for key in keys_of(command).values():
        # a key of TrainingArguments that is left out keeps the default of its trainer
        parser.add_argument(f"--{key.name}", type=key.type, default=SUPPRESS if key.of_trainer else key.default)
    return parser


def _arguments(command: type, arguments: Sequence[str]) -> Iterator[str]:
    """The arguments of a command line as `--key=value`, each looked at before the parser reads it."""
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or key == "print_config":
            yield argument
            continue
        value = value if equals else next(rest, NO_VALUE)
        if value is NO_VALUE:
            raise InputError(f"{key}: its value is missing; write --{key} VALUE")
        if key == "config":
            _check_file(command, Path(value))
        elif key in sections_of(command):
            if not value.lstrip().startswith("{"):
                raise _no_section(key, value)
            _check_value(command, key, value)
            # the parser reads this as a file that holds the section alone
            key, value = "config", f"{key}: {value}"
        else:
            _check_known(command, key)
            _check_value(command, key, value)
            if entry_type(key_types(command).get(key)) is not None:
                # the parser would fill what an entry leaves out from a file's entry
                yield f"--{key}=[]"
        yield f"--{key}={value}"


def _check_value(command: type, key: str, value: str) -> None:
    """Refuse a list or a mapping of the command line that cannot be meant."""
    if value.lstrip()[:1] in {"[", "{", "&"}:
        try:
            _check_keys(command, {key: load_yaml(value)})
        except RefusedYAMLError as error:
            raise InputError(f"{key}: {error.problem}") from None
        except yaml.YAMLError:
            pass  # a text that only looks like YAML, or what the parser will complain about


def _check_file(command: type, path: Path) -> None:
    """Refuse a configuration file that is none, by its name."""
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"--config: the file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--config: {path} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"--config: {path}{describe_error(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"--config: {path} holds no keys; write keys and values such as 'output_dir: runs/first'")
    if "config" in content:
        raise InputError(f"config: {path} names another file; name both on the command line, each with --config")
    _check_keys(command, content)
    for key, value in flatten_keys(content).items():
        known = keys_of(command).get(key)
        needs_value = key in sections_of(command) or (known is not None and type(None) not in get_args(known.type))
        if value is None and needs_value:
            raise InputError(f"{key} is empty in {path}; give a value, or remove the line")


def _check_keys(command: type, content: dict[Any, Any]) -> None:
    """Refuse unknown keys, and values where sections stand."""
    for key, value in content.items():
        if key in sections_of(command) and not isinstance(value, dict | None):
            raise _no_section(key, value)
        if (entry := entry_type(key_types(command).get(key))) is not None:
            known = list(key_types(entry))
            for name in (name for each in as_list(value) if isinstance(each, dict) for name in each):
                if name not in known:
                    raise InputError(nearest(f"{key}: unknown key '{name}'", str(name), known))
    for key in flatten_keys(content):
        if key not in sections_of(command):
            _check_known(command, key)


def _check_known(command: type, key: str) -> None:
    if any(f"{key}.".startswith(f"{known}.") for known in keys_of(command)):
        return  # as it is, or with a key of its value, such as data.columns.sentence1
    section, _, name = key.rpartition(".")
    training = sections_of(command).get(section)
    if training is not None and issubclass(training, TrainingConfig) and (name in MANAGED or name.startswith("hub_")):
        reasons = MANAGED | training.managed
        raise InputError(f"{key} cannot be set: {reasons.get(name, reasons['push_to_hub'])}")
    raise InputError(nearest(f"unknown key '{key}'", key, ["config", *keys_of(command)]))


def _no_section(section: str, value: Any) -> InputError:
    return InputError(f"{section}: expected a section of keys and values, got '{str(value)[:200]}'")


def _sentence(message: str) -> str:
    """One sentence out of the parser's report."""
    if match := re.search(r"[Uu]nrecognized arguments: (\S+)", message):
        return f"unexpected argument '{match[1]}': write --section.key value"
    key = re.search(r'Parser key "([\w.]+)"', message)
    if missing := re.search(r"arguments are required: (\w+)", message):
        return f"{key[1] if key else 'models'}: an entry lacks its key '{missing[1]}'"
    if key is None:
        return " ".join(message.split())
    expected = re.findall(r"Expected an? (?:<class '(\w+)'>|(.+?))(?:\.|$| but)", message, re.MULTILINE)
    kinds = dict.fromkeys((one or other).strip() for one, other in expected)
    kinds.pop("NoneType", None)
    if literal := re.search(r"Literal\[(.+?)\]", message):
        kinds = dict.fromkeys(["one of " + literal[1].replace("'", "")])
    value = re.search(r"(?:Given value|Got value): (.*)", message)
    return f"{key[1]}: expected {' or '.join(kinds) or 'another value'}" + (
        f", got '{value[1].strip()}'" if value else ""
    )
