"""The command `te-trainer`, the lazy names of the package, and what a wheel of it holds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, process_environment
from packaging.requirements import Requirement

import te_trainer
from te_trainer import cli
from te_trainer.errors import InputError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=process_environment(), capture_output=True, text=True, check=False)


def test_the_package_and_its_help_load_no_torch() -> None:
    code = """
import sys, te_trainer.cli
sys.argv = ["te-trainer", "--help"]
status = te_trainer.cli.main()
sys.exit(status or "torch" in sys.modules)
"""
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    for command in (*cli.JOBS, "recipes ls", "recipes cp"):
        assert f"\n  {command} " in result.stdout


def test_every_public_name_is_there() -> None:
    assert all(getattr(te_trainer, name).__name__ == name for name in te_trainer.__all__)
    assert set(te_trainer.__all__) <= set(dir(te_trainer))
    with pytest.raises(AttributeError, match="BiEncoders"):
        te_trainer.BiEncoders  # noqa: B018


@pytest.mark.parametrize("command", [*cli.JOBS, "distill"])
def test_a_command_reads_its_own_keys(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["te-trainer", command, "--no_such_key", "1"])
    assert cli.main() == 2
    assert ("no_such_key" if command in cli.JOBS else "did you mean 'distil'?") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "meant"),
    [("train", "'distil'"), ("mine", "'distil' with data.sentences"), ("predict", "'score'"), ("eval", "'evaluate'")],
)
def test_other_names_of_the_commands_are_answered(
    command: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["te-trainer", command, "--seed", "1"])
    assert cli.main() == 2
    assert capsys.readouterr().err == f"error: unknown command '{command}'; did you mean {meant}?\n"


def test_the_list_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    cli.recipes("recipes", "ls")
    names = capsys.readouterr().out.split()
    assert {"quickstart", "self_distill/sts/bert_base", "accelerate_configs/cpu", "sample"} <= set(names)
    files = [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "accelerate_configs").rglob("*.yaml")]
    assert len(names) == len(files) + 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("sts/bert_base", "recipes/self_distill/sts/bert_base.yaml"),
        ("mutual_distill/sts/base.yaml", "recipes/mutual_distill/sts/base.yaml"),
        ("fsdp2", "accelerate_configs/fsdp2.yaml"),
    ],
)
def test_a_copy_is_the_recipe(name: str, source: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "my.yaml"
    cli.recipes("recipes", "cp", name, str(target))
    assert target.read_bytes() == (ROOT / source).read_bytes()


RECIPES_WITH_FILES = ["quickstart", "from_sentences/small", "from_sentences/large", "contrastive/minilm_cpu"]


@pytest.mark.parametrize("name", RECIPES_WITH_FILES)
def test_what_a_copy_names_is_found_from_everywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cli.recipes("recipes", "cp", name, "my.yaml")
    config = yaml.safe_load(Path("my.yaml").read_text(encoding="utf-8"))
    config = config | config["data"] | config.get("distillation", {})
    sources = [config[key] for key in ("pool", "sentences", "dev", "test", "step0") if key in config]
    files = [source for source in sources if str(source).endswith((".tsv", ".yaml"))]
    assert files and all(Path(source).is_file() for source in files)


def test_a_copy_replaces_nothing(tmp_path: Path) -> None:
    target = tmp_path / "my.yaml"
    target.write_text("mine")
    with pytest.raises(InputError, match=r"my\.yaml exists"):
        cli.recipes("recipes", "cp", "quickstart", str(target))
    assert target.read_text() == "mine"
    with pytest.raises(InputError, match="self_distill/sts/bert_base"):
        cli.recipes("recipes", "cp", "sts/bert_bas", str(tmp_path / "other.yaml"))
    with pytest.raises(InputError, match=r"'base' may be mutual_distill/mrpc/base, .*; write one of these names"):
        cli.recipes("recipes", "cp", "base", str(tmp_path / "other.yaml"))
    with pytest.raises(InputError, match="cp NAME TARGET"):
        cli.recipes("recipes", "cp", "quickstart")


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.py")), ids=lambda path: path.name)
def test_a_recipe_says_what_it_needs(recipe: Path) -> None:
    """As `uv run` reads it: PEP 723, with the regular expression that stands there."""
    pattern = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"
    (block,) = re.finditer(pattern, recipe.read_text(encoding="utf-8"))
    assert block["type"] == "script"
    head = tomllib.loads(
        "".join(line.removeprefix("#").removeprefix(" ") for line in block["content"].splitlines(True))
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert head["requires-python"] == project["requires-python"]
    assert head["dependencies"] == [project["name"]]
    assert (recipe.parent / head["tool"]["uv"]["sources"][project["name"]]["path"]).resolve() == ROOT


def test_the_oldest_versions_are_constraints_that_pip_reads() -> None:
    """What `make test-lowest` writes, with the command that stands in the Makefile."""
    command = re.search(r"^\tgrep (.+) > \$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert command is not None
    lines = subprocess.check_output(f"grep {command[1]}", cwd=ROOT, shell=True, text=True).splitlines()
    found = dict(line.split("==") for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for line in [*project["dependencies"], *(line for extra in extras for line in extra)]:
        wanted = Requirement(line)
        if not wanted.extras and wanted.name == wanted.name.lower():
            oldest = found[wanted.name]
            assert wanted.specifier.contains(oldest) and f">={oldest}" in str(wanted.specifier)


@pytest.mark.slow
@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_an_installed_package_brings_its_recipes(editable: bool, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for path in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n"):
        if path and not path.startswith(("tests/", "docs/")) and (ROOT / path).is_file():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, source / path)
    # The environment sees the libraries of this one, pip too, and not its te_trainer: .pth files are not read there.
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    libraries = sysconfig.get_path("purelib")
    (next((tmp_path / "venv" / "lib").glob("python*/site-packages")) / "libraries.pth").write_text(libraries)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def succeed(*command: str | Path, **more: str) -> str:
        result = subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr + result.stdout
        return result.stdout

    flags = ("--no-deps", "--no-build-isolation", "--quiet")
    if editable:
        succeed(python, "-m", "pip", "install", *flags, "--editable", source, PYTHONPATH=libraries)
    else:
        succeed(sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir", tmp_path, source)
        (wheel,) = tmp_path.glob("te_trainer-*.whl")
        shutil.rmtree(source)
        succeed(python, "-m", "pip", "install", "--no-deps", "--quiet", wheel)
    command = python.with_name("te-trainer")
    assert "distil" in succeed(command, "--help")
    names = succeed(command, "recipes", "ls").split()
    assert len(names) == len(cli.available_recipes())
    succeed(command, "recipes", "cp", "sts/bert_base", "my.yaml")
    expected = ROOT / "recipes" / "self_distill" / "sts" / "bert_base.yaml"
    assert (tmp_path / "my.yaml").read_bytes() == expected.read_bytes()
    succeed(command, "recipes", "cp", "sample", "sample")
    assert (tmp_path / "sample" / "pool.tsv").is_file()
    folder = succeed(
        python, "-c", "import te_trainer, pathlib; print(pathlib.Path(te_trainer.__file__).parent)"
    ).strip()
    assert Path(folder).is_relative_to(tmp_path)
    # with its data, and with modules that no package holds, such as those of the library evaluate
    files = {path for path in (ROOT / "te_trainer").rglob("*") if path.suffix != ".pyc" and path.is_file()}
    missing = [path for path in files if not (Path(folder) / path.relative_to(ROOT / "te_trainer")).is_file()]
    assert len({path for path in files if path.suffix != ".py"}) > 5 and not missing


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    for start in (lambda: cli.start("push", ["run"]), lambda: te_trainer.distil([("a", "b")], "x", tmp_path / "run")):
        with pytest.raises(InputError, match=r"^te_trainer's commands do not run on Windows; run them in WSL 2"):
            start()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("job", "keys"), [("annotate", ["run", "--output", "x.tsv"]), ("push", ["run", "--hub.repo_id", "me/x"])]
)
def test_what_one_process_does_is_refused_to_several(
    job: str, keys: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    # some clusters set it where there is no launcher
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"run holds no run\.yaml"):
        cli.start(job, keys)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(
        InputError, match=f"^{job} runs in one process; start it without a launcher, as te-trainer {job}$"
    ):
        cli.start(job, keys)
