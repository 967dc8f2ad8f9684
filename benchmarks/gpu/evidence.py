"""Does the method gain anything? A PLM that has seen no label, SimCSE, self-distillation, and controls beside it.

    make gpu-evidence                                                  # on the machine with the GPU, some nine minutes
    make gpu-evidence MODE=cpu BUDGET=900 PYTHON=.venv/bin/python      # to see it run, tiny, on a CPU

No gold score chooses anything: the last checkpoint and the last cycle count, dev and test are only reported. What
tells most comes first; a job that no longer fits into BUDGET is named as skipped. OUT/summary.md gets a line a score
as soon as a job is done. The PLM is KIT/distilbert.npz where there is one (`benchmarks/unlabelled_plm.py` packs it),
else a small BERT that is pre-trained first. OUT/plm is the latter, the weights in shards, all else in `rest.tar.gz`;
unpacked beside the shards it is a folder that `--plm` takes, so that a later call pre-trains nothing. CORPUS is a
file with a sentence a line (default KIT/corpus.txt or KIT/corpus.txt.xz), PRETRAIN_SECONDS how long to pre-train.
`machine.py` lists the other environment variables.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from machine import DATA, KIT, ON_GPU, OUT, ROOT, WORK, prepare_environment, read_sentences, run_logged

BUDGET = float(os.environ.get("BUDGET", "560"))
CORPUS = Path(os.environ.get("CORPUS") or next(KIT.glob("corpus.txt*"), KIT / "corpus.txt.xz")).absolute()
DISTILBERT = KIT / "distilbert.npz"
PRETRAIN_SECONDS = float(os.environ.get("PRETRAIN_SECONDS", "230" if ON_GPU else "30"))
# which of the distillations, for what an earlier call had no time for
JOBS = {int(number) for number in os.environ.get("JOBS", "1 2 3 4 5 6").split()}
# the paper's steps are those of models four and more times as large
SMALL_MODEL = {
    "cross_encoder.learning_rate": 1e-4,
    "cross_encoder.num_train_epochs": 2,
    "bi_encoder.learning_rate": 1e-4,
}
CONSTANT = "control, one constant label"
# a small model's defaults are larger
PAPER = {"cross_encoder.learning_rate": 2e-5, "cross_encoder.num_train_epochs": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plm", default=os.environ.get("PLM"), help="a PLM to start from (or PLM=FOLDER)")
    given = parser.parse_args().plm
    plm = Path(given).absolute() if given else WORK / "plm"
    if given and plm.is_relative_to(WORK):
        sys.exit(f"--plm: {WORK} is emptied at the start; move the PLM to another folder")
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    session = Session()  # its seconds count from here: the installation takes some of them
    prepare_environment()
    for name in ("summary.md", "logs.txt"):
        (OUT / name).unlink(missing_ok=True)
    is_packed = not given and DISTILBERT.exists()
    if is_packed:
        unpack = [sys.executable, str(ROOT / "benchmarks" / "unlabelled_plm.py"), "--unpack", str(DISTILBERT), str(plm)]
        if run_logged(unpack, WORK / "plm.log", 120) != 0:
            sys.exit((WORK / "plm.log").read_text(errors="replace"))
    elif not given:
        options = {"corpus": CORPUS, "output": plm, "seconds": PRETRAIN_SECONDS}
        script, flag = Path("benchmarks/gpu/pretrain.py"), "--compile" if ON_GPU else "--tiny"
        done = session.run("pretrain", script, options, PRETRAIN_SECONDS + 120, flag)
        if not done and ON_GPU:  # the compiler is what fails most easily
            done = session.run("pretrain without compiling", script, options, PRETRAIN_SECONDS + 90)
        if not done:
            sys.exit(1)
        keep_plm(plm, OUT / "plm")

    names = sorted(path.stem for path in DATA.glob("*.tsv") if path.stem.startswith(("sts", "sick")))
    sets = {"data.dir": DATA, "data.test": f"[{','.join(names)}]"}
    if is_packed:
        recipe, fitting = "recipes/self_distill/distilbert_cpu.yaml", {"bi_encoder.num_train_epochs": 10}
        simcse = {
            "config": "recipes/contrastive/distilbert_cpu.yaml",
            "data.sentences": sets["data.test"],
            "data.max_sentences": "null" if ON_GPU else 64,
        }
    else:
        recipe, fitting = "recipes/self_distill/sts/bert_base.yaml", SMALL_MODEL
        sentences = WORK / "sentences.txt"
        sample_sentences(CORPUS, sentences, 200_000 if ON_GPU else 2_000)
        simcse = {
            "config": "recipes/contrastive/simcse_bert_base.yaml",
            "data.sentences": sentences,
            "data.dev": "null",
            "contrastive.per_device_train_batch_size": 256 if ON_GPU else 32,
            "contrastive.learning_rate": 1e-4,
        }
    simcse["model"] = plm
    session.run("SimCSE", Path("recipes/contrastive.py"), simcse | sets, 60)
    distillation = {
        "config": recipe,
        "models": f"[{{name: plm, bi_encoder: {WORK / 'SimCSE' / 'bi-encoder'}, cross_encoder: {plm}}}]",
        "data.pool": sets["data.test"],
        "data.dev": "stsb",
        "distillation.selection": "last",
        **sets,
        "data.max_pairs": "null" if ON_GPU else 300,
        "distillation.cycles": 3 if ON_GPU else 1,
    }
    broken = WORK / "random.jsonl"
    break_up_pairs(names, broken)
    jobs = (
        ("3 cycles", 90, fitting),
        ("control, bi-encoder alone", 60, fitting | {"distillation.students": "bi-encoder"}),
        ("control, random pairs", 90, fitting | {"data.pool": broken}),
        ("3 cycles, the paper's steps", 90, PAPER),
        ("3 cycles, seed 2022", 90, fitting | {"seed": 2022}),
        ("3 cycles, seed 2023", 90, fitting | {"seed": 2023}),
    )
    for number, (name, seconds, changed) in enumerate(jobs, 1):
        if number not in JOBS:
            continue
        session.run(name, Path("recipes/trans_encoder.py"), distillation | changed, seconds)
        if number == 1:
            run = WORK / folder_name(name)
            if session.run(CONSTANT, Path("benchmarks/controls.py"), {"constant": run}, 30):
                dev, test = json.loads((run / "constant_label.json").read_text(encoding="utf-8"))
                session.say(f"    bi-encoder: dev {100 * dev:.2f}, avg {100 * test:.2f}")
    session.say(f"{time.monotonic() - session.began:.0f} s in all")


class Session:
    """The jobs of one call, in their order."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def say(self, line: str) -> None:
        print(line, flush=True)
        with (OUT / "summary.md").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def run(self, name: str, script: Path, options: dict[str, Any], seconds: float, *flags: str) -> bool:
        """Run a script; say its scores.

        Args:
            seconds: What it needs at least; it may take all that is left.
        """
        left = BUDGET - (time.monotonic() - self.began)
        if left < (seconds if ON_GPU else 1):
            self.say(f"- {name}: skipped, {left:.0f} s are left and it needs {seconds:.0f}")
            return False
        output, log = WORK / folder_name(name), WORK / f"{folder_name(name)}.log"
        # what follows --config overrides the recipe
        options = options if "output" in options else options | {"output_dir": output}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        began = time.monotonic()
        status = run_logged([sys.executable, str(ROOT / script), *words, *flags], log, left)
        word = {0: "done", None: "out of time"}.get(status, f"FAILED ({status})")
        self.say(f"- {name}: {word} in {time.monotonic() - began:.0f} s")
        text = log.read_text(errors="replace")
        with (OUT / "logs.txt").open("a", encoding="utf-8") as file:
            file.write(f"\n{'=' * 20} {name}: {word}\n{text[-400_000:]}\n")
        if status:
            print("\n".join(text.splitlines()[-15:]), flush=True)
        elif (output / "results.json").exists():
            for line in score_lines(json.loads((output / "results.json").read_text(encoding="utf-8"))):
                self.say(line)
        return status == 0


def folder_name(job: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in job)


def score_lines(results: dict[str, Any]) -> list[str]:
    """A line for each encoder of a run's start, cycles and end: Spearman x 100 of dev and of every test set."""
    parts = {"start": results["start"], **{f"cycle {entry['cycle']}": entry for entry in results.get("cycles", [])}}
    lines = []
    for part, models in (parts | {"final": results["final"]}).items():
        # a contrastive run has one encoder, without a name
        kinds = (
            models if "bi-encoder" in models else next(entry for entry in models.values() if isinstance(entry, dict))
        )
        for kind, scores in kinds.items():
            sets = ({"dev": scores["dev"]} if "dev" in scores else {}) | scores.get("test", {})
            lines.append(
                f"    {part}, {kind}: " + ", ".join(f"{name} {100 * value:.2f}" for name, value in sets.items())
            )
    return [*lines, f"    seconds: {results['seconds']}"]


def break_up_pairs(names: list[str], target: Path) -> None:
    """Write a pool of the sets' first sentences, each beside the second sentence of a pair that is drawn at random."""
    first, second = [], []
    for name in names:
        with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                first.append(row["sentence1"])
                second.append(row["sentence2"])
    random.Random(2021).shuffle(second)
    rows = [json.dumps({"sentence1": one, "sentence2": two}) for one, two in zip(first, second, strict=True)]
    target.write_text("\n".join(rows) + "\n", encoding="utf-8")


def sample_sentences(corpus: Path, target: Path, count: int) -> None:
    """Write every n-th sentence of 5 to 40 words."""
    sentences = [sentence for sentence in read_sentences(corpus) if 5 <= len(sentence.split()) <= 40]
    step = max(1, len(sentences) // count)
    target.write_text("\n".join(sentences[::step][:count]) + "\n", encoding="utf-8")


def keep_plm(plm: Path, target: Path) -> None:
    """Keep the weights as they are and all else in one archive: few files, and none of them large."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(target / "rest.tar.gz", "w:gz") as archive:
        for path in sorted(plm.iterdir()):
            if path.suffix == ".safetensors":
                shutil.copy(path, target / path.name)
            else:
                archive.add(path, path.name)


if __name__ == "__main__":
    main()
