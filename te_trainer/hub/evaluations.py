"""Scores on test sets as the Hub reads them: in a card's front matter, and in `.eval_results/` for its leaderboards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from te_trainer.config.types import KINDS, Kind
from te_trainer.data.benchmarks import BENCHMARKS, Benchmark
from te_trainer.metrics import METRIC_TITLES

EVALUATE_NAMES = {"spearman": "spearmanr", "roc_auc": "roc_auc"}  # what the Hub calls the metrics
EVAL_RESULTS = ".eval_results"
# What an earlier upload may have left there; files of other sets are other people's.
STALE_RESULTS = [
    f"{EVAL_RESULTS}/{benchmark.mteb}{kind}.yaml"
    for benchmark in BENCHMARKS.values()
    if benchmark.mteb
    for kind in ("", *(f"_{each}" for each in KINDS))
]


@dataclass(frozen=True)
class GoldScore:
    """The score of an encoder on a test set."""

    name: str  # of the set in the run
    kind: Kind
    value: float  # a fraction
    benchmark: Benchmark | None = None  # where it was read from the Hub; what a local file named so holds, nobody knows
    commit: str | None = None  # of the Hub's set; None where it is not known
    in_pool: int | None = None  # pairs that the encoder learnt from, without gold scores; None where not looked at


def front_matter(scores: Sequence[GoldScore], metric: str, several_kinds: bool) -> list[EvalResult]:
    """The scores as a card's front matter has them."""
    results = []
    for score in scores:
        benchmark, title = score.benchmark, METRIC_TITLES[metric]
        split = benchmark.test.split if benchmark else ""
        results.append(
            EvalResult(
                task_type="sentence-similarity",
                task_name="Semantic Similarity",
                # The Hub groups scores by data set, configuration and split: sets without a name differ by them.
                dataset_type=benchmark.repository if benchmark else "unknown",
                dataset_config=benchmark.configuration if benchmark else score.name,
                dataset_name=f"{score.name} (local file)" if not benchmark and score.name in BENCHMARKS else score.name,
                dataset_split=benchmark.hub_splits.get(split, split) if benchmark else None,
                dataset_revision=score.commit,
                metric_type=EVALUATE_NAMES[metric],
                metric_name=f"{title} ({score.kind})" if several_kinds else title,
                metric_value=score.value,
            )
        )
    return results


def eval_result_files(scores: Sequence[GoldScore], metric: str, several_kinds: bool) -> dict[str, str]:
    """The scores as leaderboards of the Hub have them: paths in the repository, and what stands there.

    Sets, tasks, files and the scale are those of MTEB (https://github.com/embeddings-benchmark/mteb/pull/4114), whose
    own upload writes the same files. Each kind of encoder has a file of its own where a repository holds several.
    """
    files = {}
    for score in scores if metric == "spearman" else ():
        if score.benchmark is None or score.benchmark.mteb is None:
            continue
        notes = f"{score.kind}; Spearman's correlation x 100; scored by te_trainer"
        if score.in_pool:
            notes += f"; {score.in_pool} of the pairs were among the training pairs, without their gold scores"
        entry = EvalResultEntry(
            dataset_id=score.benchmark.repository,
            task_id=score.benchmark.mteb,
            value=round(100 * score.value, 5),
            dataset_revision=score.commit,
            notes=notes,
        )
        name = score.benchmark.mteb + f"_{score.kind}" * several_kinds
        files[f"{EVAL_RESULTS}/{name}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files
