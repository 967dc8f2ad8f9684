"""Processes that know one Hub only: their environment, and what they find there."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
from conftest import ROOT, process_environment
from packaging.version import Version

CALLS = Path(__file__).with_name("calls.py")
JOB = str(ROOT / "recipes" / "trans_encoder.py")

# Commands of the project as one process runs them, one after another, each with a token of its own; the clients do not
# pause before they ask a Hub that is away again.
COMMANDS = """
import contextlib, io, json, os, runpy, sys, time

time.sleep = lambda seconds: None
ended = []
for token, arguments in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    sys.argv = arguments
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            ended.append((end.code, out.getvalue(), err.getvalue()))
print(json.dumps(ended))
"""


def is_hub_client_before(version: str) -> bool:
    return Version(huggingface_hub.__version__) < Version(version)


def online(url: str, home: Path, token: str = "") -> dict[str, str]:
    """Environment in which the clients know one Hub only, one token, and no cache but their own."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token,
        "HF_TOKEN_PATH": str(home / "token"),
        "NO_PROXY": "127.0.0.1",
    }


@cache
def warm() -> subprocess.Popen[str]:
    """The process that forks all others; it ends with the tests, when nobody can write to it any more."""
    words = [sys.executable, str(Path(__file__).with_name("warm.py"))]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=ROOT, env=process_environment(), stdin=pipe, stdout=pipe, text=True)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `python` ends with, given these arguments, in the project's folder."""
    server = warm()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps([arguments, process_environment(**environment), folder]), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        out, err = (Path(folder, stream).read_text(encoding="utf-8") for stream in ("stdout", "stderr"))
    return subprocess.CompletedProcess(arguments, status, out, err)


def ask(url: str, home: Path, calls: dict[str, list[Any]], **environment: str) -> dict[str, Any]:
    """What each call gives in one new process, or the exception that it raises; `stderr` beside them."""
    done = python(str(CALLS), json.dumps(calls), **online(url, home) | environment)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def run_commands(
    recipe: str, calls: list[tuple[str, list[str]]], **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """What several calls of a recipe end with, each with a token of its own; in one process, for the time it takes."""
    commands = [(token, [str(ROOT / "recipes" / recipe), *arguments]) for token, arguments in calls]
    done = python("-c", COMMANDS, json.dumps(commands), **environment)
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess([], *ended) for ended in json.loads(done.stdout)]


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command has ended with one sentence that holds these parts."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr
