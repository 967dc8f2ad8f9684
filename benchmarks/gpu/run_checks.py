"""Does the project work on a machine with a GPU, and how fast? `docs/gpu.md` says how to call it.

    make gpu-check                                                    # on the machine with the GPU
    make gpu-check MODE=cpu BUDGET=900 PYTHON=.venv/bin/python        # to see the scripts run, tiny, on a CPU

Each check is a process of its own with a time limit. What is timed comes first, one check at a time; then what only
has to work, WORKERS at once; `steps_compile` last. ONLY and SKIP are names of checks, separated by spaces; `machine.py`
lists the other environment variables. OUT/summary.txt has a line a check: PASS, FAIL, TIME (its limit was reached) or
SKIP (too little of BUDGET was left), its seconds, its figures. OUT/logs.txt has the end of each log.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from machine import ON_GPU, OUT, WORK, prepare_environment, run_logged

BUDGET = float(os.environ.get("BUDGET", "480"))
LOG_TAIL = 400_000  # characters of a log that are kept
SLOWER = 1 if ON_GPU else 4  # the limits below are those of a GPU

# name: seconds at most, seconds without which a check is not begun. What tells most comes first.
TIMED = {"env": (60, 5), "quickstart": (120, 25), "steps": (110, 30), "versus": (200, 90), "label": (100, 30)}
FUNCTIONAL = {
    "cpu_yaml": (90, 20),
    "parity": (60, 15),
    "zero2": (110, 25),
    "zero3": (110, 25),
    "fsdp2": (90, 25),
    "resume": (120, 40),
    "fp16": (60, 20),
    "alone": (50, 15),
    "lora": (70, 20),
    "contrastive": (70, 20),
    "step0": (90, 25),
    "checkpointing": (60, 20),
    "compile": (120, 40),
    "ddp": (70, 20),
    "float32": (60, 20),
    "isolate": (90, 30),
    "score": (60, 20),
    "evaluate": (60, 20),
    "tests": (160, 40),
}
LAST = {"steps_compile": (120, 40)}


class Session:
    """The checks of one call, and what they came to."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.results: dict[str, dict[str, object]] = {}
        only, skip = (os.environ.get(key, "").split() for key in ("ONLY", "SKIP"))
        unknown = {*only, *skip} - {*TIMED, *FUNCTIONAL, *LAST}
        if unknown:
            sys.exit(f"ONLY, SKIP: there is no check {', '.join(sorted(unknown))}")
        self.chosen = {*(only or [*TIMED, *FUNCTIONAL, *LAST])} - {*skip}

    def left(self) -> float:
        return BUDGET - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        with self.lock:
            print(line, flush=True)
            with (OUT / "summary.txt").open("a") as file:
                file.write(line + "\n")

    def run_all(self) -> None:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        prepare_environment()
        for name in ("summary.txt", "logs.txt"):
            (OUT / name).unlink(missing_ok=True)
        installed = time.monotonic() - self.began
        self.say(f"{'gpu' if ON_GPU else 'cpu'}, {BUDGET:.0f} s in all, {installed:.0f} s for the installation")
        for checks, workers in ((TIMED, 1), (FUNCTIONAL, int(os.environ.get("WORKERS", "6"))), (LAST, 1)):
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(self.run, [name for name in checks if name in self.chosen]))
        words = [result["status"] for result in self.results.values()]
        counts = f"{words.count('PASS')} passed, {words.count('FAIL')} failed, {words.count('TIME')} timed out"
        self.say(f"{counts}; {self.left():.0f} s left")

    def run(self, name: str) -> None:
        limit, least = (TIMED | FUNCTIONAL | LAST)[name]
        left, limit = self.left() - 4, limit * SLOWER
        if left < least:
            self.say(f"SKIP {name:14}    - s  {left:.0f} s are left")
            return
        began, log, seconds = time.monotonic(), WORK / f"{name}.log", min(limit, left)
        status = run_logged([sys.executable, __file__, name], log, seconds, CHECK_SECONDS=str(seconds))
        spent = time.monotonic() - began
        text = log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        notes = [line.removeprefix("NOTE: ") for line in lines if line.startswith("NOTE: ")]
        if status and not any("NOT SO" in line for line in notes):
            notes += lines[-1:]
        word = {0: "PASS", None: "TIME"}.get(status, "FAIL")
        self.say(f"{word} {name:14} {spent:5.1f} s  {' | '.join(line[:300] for line in notes)}")
        with self.lock:
            self.results[name] = {"status": word, "seconds": round(spent, 1), "notes": notes}
            (OUT / "results.json").write_text(json.dumps(self.results, indent=2) + "\n")
            with (OUT / "logs.txt").open("a") as file:
                file.write(f"\n{'=' * 20} {name}: {word}, {spent:.1f} s\n{text[-LOG_TAIL:]}\n")


def run_check(name: str) -> None:
    """What the process of a check does."""
    import functional
    import timings

    module = functional if name in FUNCTIONAL else timings
    getattr(module, f"check_{name}")(WORK / name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_check(sys.argv[1])
    else:
        Session().run_all()
