"""Model cards: what the Hub shows of an encoder, made from a run's results alone.

Only names of local files stand in them, never their folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from te_trainer.config.schema import Kind
from te_trainer.data import SourceCount
from te_trainer.data.benchmarks import BENCHMARKS, Benchmark
from te_trainer.escaping import markdown_code, markdown_text
from te_trainer.metrics import METRIC_TITLES, TASK_METRICS
from te_trainer.models import resolve_checkpoint
from te_trainer.models.bi_encoder import resolve_pooling
from te_trainer.models.cross_encoder import resolve_activation
from te_trainer.report.tables import overlap_entries, score_table, selection_note
from te_trainer.runs.finished import FinishedRun

TEMPLATE = Path(__file__).with_name("card.md")
# As sentence-transformers tags them: https://huggingface.co/docs/hub/sentence-transformers
PIPELINES: dict[Kind, str] = {"bi-encoder": "sentence-similarity", "cross-encoder": "text-ranking"}
TAGS: dict[Kind, list[str]] = {
    "bi-encoder": ["sentence-similarity", "feature-extraction"],
    "cross-encoder": ["cross-encoder"],
}
# What the Hub calls the metrics: the names of the library evaluate.
EVALUATE_NAMES = {"spearman": "spearmanr", "roc_auc": "roc_auc"}
HUB_DATASET = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Place:
    """Where encoders are published.

    Args:
        repository: `OWNER/NAME`.
        revision: a branch; None is the main one.
        kinds: of the encoders in it.
        folders: whether each kind has a folder of its own in it.
    """

    repository: str
    revision: str | None
    kinds: Sequence[Kind]
    folders: bool


def model_card(run: FinishedRun, name: str, cycle: int | None, place: Place, license: str | None) -> str:
    """The card of a repository: front matter and text.

    Args:
        name: the PLM.
        cycle: whose encoders these are; None stands for the kept ones.
    """
    task = run.manifest["config"]["distillation"]["task"]
    starts = {kind: run.start(name, kind) for kind in place.kinds}
    results = run.results_for(name)
    metric = TASK_METRICS[task][0].__name__
    table = score_table(results, metric)
    evaluated = [result for kind in place.kinds for result in _eval_results(run, name, kind, cycle, place, metric)]
    data = ModelCardData(
        base_model=list(dict.fromkeys(start for start, on_hub in starts.values() if on_hub)) or None,
        datasets=_datasets(run) or None,
        license=license,
        library_name="sentence-transformers",
        pipeline_tag=PIPELINES[place.kinds[0]],
        metrics=[EVALUATE_NAMES[metric]] if evaluated else None,
        tags=["sentence-transformers", *(tag for kind in place.kinds for tag in TAGS[kind]), "trans-encoder"],
        model_name=place.repository.partition("/")[2] if evaluated else None,
        eval_results=evaluated or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        place=place,
        others=[markdown_text(other) for other in run.names if other != name],
        cycle=cycle,
        cycles=len(run.cycles),
        encoders=[_encoder(run, name, kind, cycle) for kind in place.kinds],
        kept={kind: run.results["final"][name][kind]["cycle"] for kind in place.kinds},
        both="cross-encoder" in run.kinds,
        pairs=run.pool.num_rows,
        sources=[markdown_text(_source(count)) for count in run.pool.sources],
        metric=METRIC_TITLES[metric],
        table=table.markdown(),
        title=markdown_text(place.repository.partition("/")[2]),
        remarks=list(map(markdown_text, table.notes)),
        selection_note=selection_note(results, run.distillation),
        counted="overlap" in run.results,
        overlap=_overlaps(run),
        tested=bool(evaluated),
    )
    return str(card)


def _encoder(run: FinishedRun, name: str, kind: Kind, cycle: int | None) -> dict[str, Any]:
    """What a person needs to know to use an encoder."""
    start, on_hub = run.start(name, kind)
    section = run.manifest["config"][kind.replace("-", "_")]
    about = {
        "kind": kind,
        "start": markdown_code(start),
        "on_hub": on_hub,
        "max_length": section["max_length"],
    }
    checkpoint = resolve_checkpoint(str(run.encoder(name, kind, cycle)))
    if kind == "bi-encoder":
        return about | {"pooling": resolve_pooling(checkpoint), "prompt": checkpoint.layout.prompt}
    return about | {"activation": resolve_activation(checkpoint)}


def _eval_results(
    run: FinishedRun, name: str, kind: Kind, cycle: int | None, place: Place, metric: str
) -> list[EvalResult]:
    """The scores on test sets, as fractions."""
    title = METRIC_TITLES[metric]
    found = []
    for test, score in run.scores(name, kind, cycle).get("test", {}).items():
        if test == "avg":
            continue
        benchmark = _benchmark(run, test)
        found.append(
            EvalResult(
                task_type="sentence-similarity",
                task_name="Semantic Similarity",
                # The Hub groups scores by data set, configuration and split: sets without a name there differ by it.
                dataset_type=benchmark.repository if benchmark else "unknown",
                dataset_config=benchmark.configuration if benchmark else test,
                dataset_name=test if benchmark or test not in BENCHMARKS else f"{test} (local file)",
                dataset_split=_split(benchmark) if benchmark else None,
                metric_type=EVALUATE_NAMES[metric],
                metric_name=f"{title} ({kind})" if place.folders else title,
                metric_value=score,
            )
        )
    return found


def _benchmark(run: FinishedRun, test: str) -> Benchmark | None:
    """The benchmark that a test set is, where the run read it from the Hub; what a local file holds, nobody knows."""
    data = run.manifest["config"]["data"]
    if test not in data["test"]:
        return None
    from_hub = data["dir"] is None and not Path(test).exists()
    # runs of earlier versions of the package have not written down what they read
    entry = run.results.get("overlap", {}).get("test", {}).get(test, {})
    return BENCHMARKS.get(test) if entry.get("from_hub", from_hub) else None


def _split(benchmark: Benchmark) -> str:
    return benchmark.hub_splits.get(benchmark.test.split, benchmark.test.split)


def _datasets(run: FinishedRun) -> list[str]:
    """The pool's sources that the Hub knows."""
    found = []
    for count in run.pool.sources:
        if not _on_hub(count):
            continue
        known = BENCHMARKS.get(count.source)
        found.append(known.repository if known else re.split("[:@]", count.source)[0])
    return list(dict.fromkeys(found))


def _source(count: SourceCount) -> str:
    """A source's name, without the folders of this machine."""
    return count.source if _on_hub(count) else Path(count.source).name


def _on_hub(count: SourceCount) -> bool:
    """Whether a source is a data set of the Hub; files have a hash, folders are there."""
    source = count.source
    named = source in BENCHMARKS or HUB_DATASET.fullmatch(source) is not None
    return named and count.sha256 is None and not Path(source).exists()


def _overlaps(run: FinishedRun) -> list[str]:
    """How many pairs of which sets with gold scores are in the pool."""
    return [
        f"{entry['in_pool']:,} of the {entry['pairs']:,} pairs of the {role} set {markdown_text(entry['name'])}"
        for role, entry in overlap_entries(run.results)
        if entry["in_pool"]
    ]
