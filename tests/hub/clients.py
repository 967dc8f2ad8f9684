"""Processes that know one Hub only: their environment, and what they find there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT, process_environment

CALLS = Path(__file__).with_name("calls.py")

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


def command(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=ROOT,
        env=process_environment(**environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def ask(url: str, home: Path, calls: dict[str, list[Any]], **environment: str) -> dict[str, Any]:
    """What each call gives in one new process, or the exception that it raises; `stderr` beside them."""
    done = command([sys.executable, str(CALLS), json.dumps(calls)], **online(url, home) | environment)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def run_commands(
    recipe: str, calls: list[tuple[str, list[str]]], **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """What several calls of a recipe end with, each with a token of its own; in one process, for the time it takes."""
    commands = [(token, [str(ROOT / "recipes" / recipe), *arguments]) for token, arguments in calls]
    done = command([sys.executable, "-c", COMMANDS, json.dumps(commands)], **environment)
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess([], *ended) for ended in json.loads(done.stdout)]


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The command has ended with one sentence that holds these parts."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr
