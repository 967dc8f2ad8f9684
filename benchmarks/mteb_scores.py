"""What MTEB gives through `PairScorer` beside what `te-trainer evaluate` gives, on gold files of this machine.

python benchmarks/mteb_scores.py MODEL ... --data ../shared/data --tasks stsb sts12
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import mteb
from datasets import Dataset, DatasetDict

from te_trainer.cli import start
from te_trainer.data import load_gold
from te_trainer.data.benchmarks import BENCHMARKS
from te_trainer.evaluation.mteb import PairScorer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--tasks", nargs="+", default=["stsb", "sts12"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        listed = [f"[{', '.join(names)}]" for names in (arguments.models, arguments.tasks)]
        start(
            "evaluate",
            ["--models", listed[0], "--tasks", listed[1], "--data.dir", arguments.data, "--output_dir", folder],
        )
        results = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))["models"]
    print(
        "| model | task | pairs | te-trainer evaluate | MTEB | difference |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for model, result in zip(arguments.models, results, strict=True):
        scorer = PairScorer(model)
        for name, own in zip(arguments.tasks, result["tasks"], strict=True):
            gold = load_gold(name, "test", {}, arguments.data)
            task = mteb.get_task(BENCHMARKS[name].mteb)
            columns = {"sentence1": gold.sentence1, "sentence2": gold.sentence2, "score": gold.scores.tolist()}
            task.dataset, task.data_loaded = DatasetDict(test=Dataset.from_dict(columns)), True
            found = mteb.evaluate(scorer, task, cache=None, show_progress_bar=False, co2_tracker=False)
            ours, theirs = own["scores"]["test"][0]["spearman"], found.task_results[0].get_score()
            print(
                f"| {model} | {task.metadata.name} | {len(gold):,} | {ours:.7f} | {theirs:.7f} | {theirs - ours:.0e} |"
            )


if __name__ == "__main__":
    main()
