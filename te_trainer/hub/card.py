"""Model cards of a finished run: what the Hub shows of its encoders.

Only names of local files stand in them, never their folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from te_trainer.config.schema import Kind
from te_trainer.data import SourceCount
from te_trainer.data.benchmarks import BENCHMARKS
from te_trainer.escaping import markdown_code, markdown_text
from te_trainer.metrics import METRIC_TITLES, TASK_METRICS
from te_trainer.models import resolve_checkpoint
from te_trainer.models.bi_encoder import resolve_pooling
from te_trainer.models.cross_encoder import resolve_activation
from te_trainer.models.model_card import PIPELINE_TAGS, card_tags, render_card
from te_trainer.report.run_tables import overlap_entries, score_table, selection_note
from te_trainer.runs.finished import FinishedRun

TEMPLATE = Path(__file__).with_name("card.md")
EVALUATE_NAMES = {"spearman": "spearmanr", "roc_auc": "roc_auc"}  # what the Hub calls the metrics
HUB_DATASET = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w./-]+)?", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """Encoders that go into one revision of a repository."""

    repo_id: str
    model: str  # name of the PLM
    kinds: Sequence[Kind]
    subfolders: bool  # whether each kind has a folder of its own in the repository
    cycle: int | None = None  # None for the encoders that were kept

    @property
    def revision(self) -> str | None:
        """The branch; None for the main one."""
        return None if self.cycle is None else f"cycle-{self.cycle}"


def model_card(run: FinishedRun, upload: Upload, license: str | None) -> str:
    """The card of a repository: front matter and text."""
    results = run.results_for(upload.model)
    metric = TASK_METRICS[run.distillation.task][0].__name__
    table = score_table(results, metric)
    evaluated = _eval_results(run, upload, metric)
    starts = [run.start(upload.model, kind) for kind in upload.kinds]
    title = upload.repo_id.partition("/")[2]
    data = ModelCardData(
        base_model=list(dict.fromkeys(start for start, on_hub in starts if on_hub)) or None,
        datasets=_hub_datasets(run) or None,
        license=license,
        library_name="sentence-transformers",
        pipeline_tag=PIPELINE_TAGS[upload.kinds[0]],
        metrics=[EVALUATE_NAMES[metric]] if evaluated else None,
        tags=card_tags(upload.kinds),
        model_name=title if evaluated else None,
        eval_results=evaluated or None,
    )
    return render_card(
        TEMPLATE,
        data,
        title=markdown_text(title),
        upload=upload,
        encoders=[_describe_encoder(run, upload, kind) for kind in upload.kinds],
        cycles=len(run.cycles),
        others=[markdown_text(other) for other in run.names if other != upload.model],
        with_cross_encoder="cross-encoder" in run.kinds,
        pairs=run.pool.num_rows,
        sources=[markdown_text(_source_name(count)) for count in run.pool.sources],
        metric=METRIC_TITLES[metric],
        table=table,
        notes=list(map(markdown_text, table.notes)),
        selection_note=selection_note(results, run.distillation),
        overlap=[
            f"{entry['in_pool']:,} of the {entry['pairs']:,} pairs of the {role} set {markdown_text(entry['name'])}"
            for role, entry in overlap_entries(run.results)
            if entry["in_pool"]
        ],
        tested=bool(evaluated),
    )


def _describe_encoder(run: FinishedRun, upload: Upload, kind: Kind) -> dict[str, Any]:
    """What a person needs to know to use an encoder."""
    start, on_hub = run.start(upload.model, kind)
    checkpoint = resolve_checkpoint(str(run.encoder(upload.model, kind, upload.cycle)))
    description = {
        "kind": kind,
        "start": markdown_code(start),
        "on_hub": on_hub,
        "cycle": upload.cycle or run.results["final"][upload.model][kind]["cycle"],
        "max_length": run.manifest["config"][kind.replace("-", "_")]["max_length"],
    }
    if kind == "bi-encoder":
        return description | {"pooling": resolve_pooling(checkpoint), "prompt": checkpoint.layout.prompt}
    return description | {"activation": resolve_activation(checkpoint)}


def _eval_results(run: FinishedRun, upload: Upload, metric: str) -> list[EvalResult]:
    """The scores on test sets, as fractions."""
    results = []
    for kind in upload.kinds:
        for test, score in run.scores(upload.model, kind, upload.cycle).get("test", {}).items():
            if test == "avg":
                continue
            # what a local file named like a benchmark holds, nobody knows
            on_hub = test in run.manifest["config"]["data"]["test"] and run.results["overlap"]["test"][test]["from_hub"]
            benchmark = BENCHMARKS.get(test) if on_hub else None
            split = benchmark.test.split if benchmark else ""
            results.append(
                EvalResult(
                    task_type="sentence-similarity",
                    task_name="Semantic Similarity",
                    # The Hub groups scores by data set, configuration and split: sets without a name differ by them.
                    dataset_type=benchmark.repository if benchmark else "unknown",
                    dataset_config=benchmark.configuration if benchmark else test,
                    dataset_name=test if benchmark or test not in BENCHMARKS else f"{test} (local file)",
                    dataset_split=benchmark.hub_splits.get(split, split) if benchmark else None,
                    metric_type=EVALUATE_NAMES[metric],
                    metric_name=f"{METRIC_TITLES[metric]} ({kind})" if upload.subfolders else METRIC_TITLES[metric],
                    metric_value=score,
                )
            )
    return results


def _hub_datasets(run: FinishedRun) -> list[str]:
    """The pool's sources that the Hub knows."""
    sources = [count.source for count in run.pool.sources if _is_on_hub(count)]
    repositories = [
        BENCHMARKS[source].repository if source in BENCHMARKS else re.split("[:@]", source)[0] for source in sources
    ]
    return list(dict.fromkeys(repositories))


def _source_name(count: SourceCount) -> str:
    """A source's name, without the folders of this machine."""
    return count.source if _is_on_hub(count) else Path(count.source).name


def _is_on_hub(count: SourceCount) -> bool:
    """Whether a source is a data set of the Hub: files have a hash, and folders exist."""
    named = count.source in BENCHMARKS or HUB_DATASET.fullmatch(count.source) is not None
    return named and count.sha256 is None and not Path(count.source).exists()
