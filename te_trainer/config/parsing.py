"""What the recipes' command lines share: a YAML file, dotted overrides, `--help`, and one sentence for each mistake."""

from __future__ import annotations

import difflib
import itertools
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from te_trainer.config.defaults import DDP_TIMEOUT
from te_trainer.config.flat import flat
from te_trainer.config.names import check_sources
from te_trainer.config.training_keys import MANAGED, trainer_keys
from te_trainer.config.yaml_text import MODE, RefusedYAMLError, check_yaml, load_yaml
from te_trainer.errors import InputError

Key = tuple[str, Any, Any, str]  # name, type, default, help

DDP_TIMEOUT_KEY: Key = (
    "ddp_timeout",
    int,
    DDP_TIMEOUT,
    "Seconds that processes wait for one another before they fail; one of them reads and tokenises for all.",
)

# Keys whose values are looked for as files, folders or repositories.
NAMES_OF_SOURCES = ("model", "rerank", "tasks", "data.")


@dataclass(frozen=True)
class TrainingSection:
    """A section with any key of `transformers.TrainingArguments`, and some of its own.

    Args:
        title: what is trained.
        own: keys beside those of TrainingArguments.
        defaults: where they are not those of transformers.
        origin: says in `--help` where these defaults come from; by key.
        managed: why keys cannot be set, where the reason is another one than for the main job.
    """

    title: str
    own: list[Key]
    defaults: dict[str, Any]
    origin: dict[str, str]
    managed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """What a recipe may be told.

    Args:
        prog, description: for `--help`.
        keys: at the top.
        sections: dataclasses, by name.
        trainings: sections of training keys, by name.
        never_empty: keys that a file may not leave empty.
        entry: of the list `models`, a dataclass.
    """

    prog: str
    description: str
    keys: list[Key]
    sections: dict[str, type]
    trainings: dict[str, TrainingSection]
    never_empty: frozenset[str]
    entry: type | None = None

    def known_keys(self) -> list[str]:
        """Every dotted key, for suggestions."""
        keys = [key[0] for key in self.keys] + ["config"]
        keys += [f"{name}.{item.name}" for name, section in self.sections.items() for item in fields(section)]
        for name, section in self.trainings.items():
            keys += [f"{name}.{key}" for key in [own[0] for own in section.own] + list(trainer_keys())]
        return keys


def read(form: Form, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The values of a command line; a training section holds None where the user gave nothing.

    Raises:
        InputError: an unknown key (with the nearest known one), a value of the wrong type, a missing section or file.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for path in _config_files(arguments):
        _check_file(form, path)
    _check_values(form, arguments)
    try:
        values = _parser(form).parse_args(_without_merging(arguments)).as_dict()
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(_sentence(form, str(error))) from None
    for section in (*form.sections, *form.trainings):
        if not isinstance(values[section], dict):
            raise _no_section(section, values[section])
    for key, value in flat(values).items():
        if key.startswith(NAMES_OF_SOURCES) and not key.endswith(".name"):
            check_sources([one for one in listed(value) if isinstance(one, str)], key)
    return values


def given(section: dict[str, Any]) -> dict[str, Any]:
    """What the user gave of a training section."""
    return {key: value for key, value in section.items() if value is not None}


def listed(value: Any) -> list[Any]:
    """One entry may stand for a list of one."""
    return value if isinstance(value, list) else [value]


def check_positive(values: dict[str, float | None]) -> None:
    """Refuse numbers below 1, by their keys."""
    for key, value in values.items():
        if value is not None and value < 1:
            raise InputError(f"{key}: expected a number of 1 or more, got {value}")


def check_seed_and_loggers(seed: int, loggers: list[str]) -> None:
    """Refuse a seed that no generator takes, and loggers that are not known."""
    if not 0 <= seed < 2**31:
        raise InputError(f"seed: expected a number from 0 to {2**31 - 1}, got {seed}")
    known = {"tensorboard", "wandb", "trackio"}
    for logger in loggers:
        if logger not in known:
            raise InputError(f"report_to: unknown logger '{logger}'; known are {', '.join(sorted(known))}")


def check_ddp_timeout(seconds: int) -> None:
    """Refuse a time that a process group does not take."""
    if not 1 <= seconds < 2**31:
        raise InputError(f"ddp_timeout: expected a number of seconds from 1 to {2**31 - 1}, got {seconds}")


def nearest(what: str, key: str, known: list[str]) -> str:
    """A sentence on what is unknown, with the known key that looks most like it."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(key.rpartition(".")[2], tails, n=1)]
    return f"{what}; did you mean '{close[0]}'?" if close else f"{what}; --help lists the known ones"


def _parser(form: Form) -> ArgumentParser:
    parser = ArgumentParser(
        prog=form.prog, description=form.description, exit_on_error=False, allow_abbrev=False, parser_mode=MODE
    )
    parser.add_argument("--config", action="config", help="YAML file with the keys below.")
    for name, kind, default, text in form.keys:
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    for name, section in form.sections.items():
        parser.add_class_arguments(section, name)
    for name, training in form.trainings.items():
        parser.add_class_arguments(_section(name, training), name)
    return parser


def _section(name: str, training: TrainingSection) -> type:
    """A dataclass with a section's keys, all optional, so that what the user gave can be told from defaults."""
    keys: list[Any] = []
    lines = [f"Training of {training.title}, with any key of transformers.TrainingArguments.", "", "Args:"]
    for key, kind, default, text in training.own:
        keys.append((key, kind | None, field(default=None)))
        lines.append(f"    {key}: {text}" + ("" if default is None else f" Default: {default}."))
    for trainer_key in trainer_keys().values():
        default = training.defaults.get(trainer_key.name, trainer_key.default)
        origin = training.origin.get(trainer_key.name, "")
        keys.append((trainer_key.name, trainer_key.type, field(default=None)))
        lines.append(f"    {trainer_key.name}: {trainer_key.help} Default: {default}{origin}.")
    section = make_dataclass("".join(part.title() for part in name.split("_")) + "Section", keys)
    section.__doc__ = "\n".join(lines)
    return section


def _without_merging(arguments: list[str]) -> list[str]:
    """Empty `models` before it is set: the parser would fill what an entry leaves out from a file's entry."""
    found: list[str] = []
    for argument in arguments:
        found += ["--models", "[]"] if argument.partition("=")[0] == "--models" else []
        found.append(argument)
    return found


def _config_files(arguments: list[str]) -> list[Path]:
    """The files that a command line names with --config."""
    following = itertools.pairwise(arguments)
    return [Path(value) for argument, value in following if argument == "--config"] + [
        Path(argument.partition("=")[2]) for argument in arguments if argument.startswith("--config=")
    ]


def _check_file(form: Form, path: Path) -> None:
    """Refuse a configuration file that is none, by its name."""
    if not path.exists():
        raise InputError(f"--config: the file {path} does not exist")
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"--config: {path} is not UTF-8; save the file as UTF-8") from None
    except RefusedYAMLError as error:
        assert error.problem_mark is not None
        raise InputError(f"--config: {path}, line {error.problem_mark.line + 1}: {error.problem}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())[:200] or "broken"
        raise InputError(f"--config: {path}{where} is not YAML ({problem}); mend the file") from None
    if not isinstance(content, dict):
        example = "'models: [...]'" if form.entry else "'model: bert-base-uncased'"
        raise InputError(f"--config: {path} holds no sections; write keys and values such as {example}")
    if "config" in content:
        raise InputError(f"config: {path} names another file; name both on the command line, each with --config")
    for section in (*form.sections, *form.trainings):
        if content.get(section) is not None and not isinstance(content[section], dict):
            raise _no_section(section, content[section])
    for key, value in flat(content).items():
        if value is None and (key in form.never_empty or "." not in key):
            raise InputError(f"{key} is empty in {path}; give a value, or remove the line")


def _check_values(form: Form, arguments: list[str]) -> None:
    """Refuse values of the command line that the parser would read as YAML and that cannot be meant.

    The parser would take a section's value that is no mapping for the name of a file.
    """
    for key, value in _keys_and_values(arguments):
        if key in {*form.sections, *form.trainings} and not value.lstrip().startswith("{"):
            raise _no_section(key, value)
        if value.lstrip()[:1] in {"[", "{", "&"}:
            try:
                check_yaml(value)
            except RefusedYAMLError as error:
                raise InputError(f"{key}: {error.problem}") from None
            except yaml.YAMLError:
                continue  # a text that only looks like YAML, or what the parser will complain about


def _keys_and_values(arguments: list[str]) -> Iterator[tuple[str, str]]:
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        key, equals, value = argument.partition("=")
        if key.startswith("--") and (equals or following is not None):
            yield key.removeprefix("--"), value if equals else following


def _no_section(section: str, value: Any) -> InputError:
    return InputError(f"{section}: expected a section of keys and values, got '{str(value)[:200]}'")


def _sentence(form: Form, message: str) -> str:
    """One sentence out of the parser's report."""
    entry = form.entry.__name__ if form.entry else "no entries"
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown(form, f"{match[1]}.{match[2]}")
    if match := re.search(r"Option '([\w.]+)' is not accepted", message):
        if form.entry and entry in message:
            return nearest(f"models: unknown key '{match[1]}'", match[1], [item.name for item in fields(form.entry)])
        return _unknown(form, match[1])
    if match := re.search(r"[Uu]nrecognized arguments: (.+)", message):
        first = match[1].split()[0]
        if not first.startswith("--"):
            return f"unexpected argument '{first}': write --section.key value"
        return _unknown(form, first.removeprefix("--").split("=")[0])
    if entry in message and (match := re.search(r"required[^']*'?(bi_encoder)", message)):
        return "models: an entry lacks its key 'bi_encoder'"
    if match := re.search(r'Parser key "([\w.]+)"', message):
        expected = re.findall(r"Expected an? (?:<class '(\w+)'>|(.+?))(?:\.|$| but)", message, re.MULTILINE)
        kinds = dict.fromkeys((one or other).strip() for one, other in expected)
        kinds.pop("NoneType", None)
        if literal := re.search(r"Literal\[(.+?)\]", message):
            kinds = dict.fromkeys(["one of " + literal[1].replace("'", "")])
        value = re.search(r"(?:Given value|Got value): (.*)", message)
        wanted = " or ".join(kinds) or "another value"
        return f"{match[1]}: expected {wanted}" + (f", got '{value[1].strip()}'" if value else "")
    return " ".join(message.split())


def _unknown(form: Form, key: str) -> str:
    section, _, name = key.rpartition(".")
    if section in form.trainings and (name in MANAGED or name.startswith("hub_")):
        reasons = MANAGED | form.trainings[section].managed
        return f"{key} cannot be set: {reasons.get(name, reasons['push_to_hub'])}"
    return nearest(f"unknown key '{key}'", key, form.known_keys())
