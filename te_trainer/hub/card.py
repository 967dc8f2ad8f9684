"""Model cards of a finished run: what the Hub shows of its encoders.

Only names of local files stand in them, never their folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from te_trainer.config.types import Kind, section_of
from te_trainer.data import SourceCount
from te_trainer.data.benchmarks import BENCHMARKS
from te_trainer.data.hub_sets import pin_key
from te_trainer.data.readers import repository_of
from te_trainer.escaping import markdown_code, markdown_text
from te_trainer.hub.evaluations import GoldScore, front_matter
from te_trainer.metrics import METRIC_TITLES
from te_trainer.models import resolve_checkpoint
from te_trainer.models.bi_encoder import resolve_pooling
from te_trainer.models.card_parts import PIPELINE_TAGS, card_tags, render_card
from te_trainer.models.cross_encoder import resolve_activation
from te_trainer.report.remarks import HEALTH_DESCRIPTION, remarks, selection_note
from te_trainer.report.run_results import has_scores, overlap_entries
from te_trainer.report.run_tables import contrastive_table, health_table, score_table
from te_trainer.runs.finished import FinishedContrastive, FinishedRun, Start

TEMPLATE = Path(__file__).with_name("run_card.md")
CONTRASTIVE_TEMPLATE = Path(__file__).with_name("contrastive_card.md")


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
    data = card_data(run, upload, license, [*run.sources, *run.step0_sources], card_tags(upload.kinds))
    encoders = [_describe_run_encoder(run, upload, kind) for kind in upload.kinds]
    return render_card(
        TEMPLATE,
        data,
        title=markdown_text(upload.repo_id.partition("/")[2]),
        upload=upload,
        encoders=encoders,
        trained=any(encoder["cycle"] for encoder in encoders),
        has_step0=run.has_step0,
        step0_sources=source_names(run, run.step0_sources),
        cycles=len(run.cycles),
        others=[markdown_text(other) for other in run.names if other != upload.model],
        with_cross_encoder=run.distillation.students == "both",
        pairs=run.pool.num_rows,
        mined=sum(results["mining"]["pairs"].values()) if "mining" in results else 0,
        sources=source_names(run, run.sources),
        metric=METRIC_TITLES[run.metric],
        scores=score_table(results, run.metric) if has_scores(results) else None,
        health=health_table(results),
        health_description=HEALTH_DESCRIPTION,
        notes=list(map(markdown_text, remarks(results))),
        selection_note=selection_note(results, run.distillation),
        overlap=[
            f"{entry['in_pool']:,} of the {entry['pairs']:,} pairs of the {role} set {markdown_text(entry['name'])}"
            for role, entry in overlap_entries(run.results)
            if entry["in_pool"]
        ],
        tested=bool(data.eval_results),
    )


def contrastive_card(run: FinishedContrastive, upload: Upload, license: str | None) -> str:
    """The card of a bi-encoder that contrastive training made."""
    section = run.manifest["resolved"]
    encoder = run.encoder(upload.model, "bi-encoder", None)
    method = run.manifest["config"]["contrastive"]["method"]
    tags = card_tags(["bi-encoder"], method=method.replace("_", "-"))
    data = card_data(run, upload, license, run.sentences.sources, tags)
    return render_card(
        CONTRASTIVE_TEMPLATE,
        data,
        title=markdown_text(upload.repo_id.partition("/")[2]),
        upload=upload,
        encoder=encoder_facts("bi-encoder", encoder, run.start(), section["max_length"]),
        method=method,
        span=section["span"],
        sentences=run.sentences.num_rows,
        sources=source_names(run, run.sentences.sources),
        metric=METRIC_TITLES[run.metric],
        table=contrastive_table(run.results, run.metric),
        chosen="dev" in run.results["final"]["bi-encoder"],
        tested=bool(data.eval_results),
    )


def card_data(
    run: FinishedRun | FinishedContrastive,
    upload: Upload,
    license: str | None,
    sources: Sequence[SourceCount],
    tags: list[str],
) -> ModelCardData:
    """The front matter of a card."""
    results = front_matter(gold_scores(run, upload), run.metric, upload.subfolders)
    starts = [run.start(upload.model, kind) for kind in upload.kinds]
    base_models = list(dict.fromkeys(start.name for start in starts if start.commit))
    return ModelCardData(
        base_model=base_models or None,
        # the repositories of the sources that the run read from the Hub
        datasets=list(dict.fromkeys(filter(None, (_repository(run, count) for count in sources)))) or None,
        license=license,
        library_name="sentence-transformers",
        pipeline_tag=PIPELINE_TAGS[upload.kinds[0]],
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=tags,
        model_name=upload.repo_id.partition("/")[2] if results else None,
        eval_results=results or None,
        # the Hub would take two base models for a merge, and an adapter beside whole weights for an adapter
        base_model_relation="finetune" if base_models else None,
    )


def _describe_run_encoder(run: FinishedRun, upload: Upload, kind: Kind) -> dict[str, Any]:
    max_length = run.manifest["config"][section_of(kind)]["max_length"]
    folder = run.encoder(upload.model, kind, upload.cycle)
    cycle = upload.cycle or run.results["final"][upload.model][kind]["cycle"]
    return encoder_facts(kind, folder, run.start(upload.model, kind), max_length) | {"cycle": cycle}


def encoder_facts(kind: Kind, folder: Path, start: Start, max_length: int) -> dict[str, Any]:
    """What a person needs to know to use an encoder."""
    checkpoint = resolve_checkpoint(str(folder))
    description = {
        "kind": kind,
        "start": markdown_code(start.name),
        "commit": start.commit,
        "max_length": max_length,
    }
    if kind == "bi-encoder":
        return description | {"pooling": resolve_pooling(checkpoint), "prompt": checkpoint.layout.prompt}
    return description | {"activation": resolve_activation(checkpoint)}


def gold_scores(run: FinishedRun | FinishedContrastive, upload: Upload) -> list[GoldScore]:
    """What the run's encoders score on test sets, with what the Hub knows of each set."""
    data, commits, scores = run.manifest["config"]["data"], run.manifest.get("data_commits", {}), []
    # contrastive training does not look for pairs of the sets among its sentences
    overlaps = run.results["overlap"]["test"] if isinstance(run, FinishedRun) else {}
    for kind in upload.kinds:
        encoder = run.scores(upload.model, kind, upload.cycle)
        has_learnt = encoder.get("cycle") != 0
        for test, score in encoder.get("test", {}).items():
            if test != "avg":
                overlap = overlaps.get(test, {})
                from_hub = overlap["from_hub"] if overlap else repository_of(test, data["dir"]) is not None
                benchmark = BENCHMARKS.get(test) if from_hub and test in data["test"] else None
                commit = commits.get(benchmark.repository) if benchmark else None
                in_pool = overlap.get("in_pool") if has_learnt else None
                scores.append(GoldScore(test, kind, score, benchmark, commit, in_pool))
    return scores


def source_names(run: FinishedRun | FinishedContrastive, counts: Sequence[SourceCount]) -> list[str]:
    """Sources' names for a card, without the folders of this machine."""
    names = (count.source if _repository(run, count) else Path(count.source).name for count in counts)
    return list(map(markdown_text, names))


def _repository(run: FinishedRun | FinishedContrastive, count: SourceCount) -> str | None:
    """The Hub's repository that a source was read from: a file has a hash, and a folder no commit in `run.yaml`."""
    found = repository_of(count.source, None) if count.sha256 is None else None
    return found[0] if found and pin_key(*found) in run.manifest.get("data_commits", {}) else None
