"""A process that has imported what reads no variable of the Hub, and forks one for each command that it is told.

huggingface_hub reads its variables when it is imported, so what `tests/forked.py` starts can know no other Hub. What is
imported here takes two thirds of the time in which a command starts.

A line of the input is a JSON list: arguments of `python`, environment, folder for `stdout` and `stderr`. Each line is
answered by one with the exit status.
"""

from __future__ import annotations

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import sys
from pathlib import Path

PRELOADED = [
    *("torch", "torch._dynamo", "torch.distributed.tensor", "torch.distributed.fsdp", "scipy.optimize", "scipy.stats"),
    *("pandas", "pyarrow.dataset", "sympy", "pydantic", "jinja2", "rich.progress", "matplotlib.figure"),
]
READERS = {"huggingface_hub", "transformers", "datasets", "accelerate"}  # of the Hub's variables
TIMEOUT = 600  # seconds


def serve() -> None:
    """Run the commands, one after another, until the input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    assert not READERS & sys.modules.keys()
    gc.freeze()
    gc.disable()  # in what is forked, too: none lives long
    for line in sys.stdin:
        process = multiprocessing.get_context("fork").Process(target=run, args=json.loads(line))
        process.start()
        process.join(TIMEOUT)
        process.kill()
        process.join()
        print(process.exitcode, flush=True)


def run(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Do what `python` does with these arguments."""
    for number, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, stream), os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ |= environment
    match arguments:
        case ["-c", code, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case [script, *rest]:
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    serve()
