"""The model card of a bi-encoder that contrastive training made."""

from __future__ import annotations

from pathlib import Path

from te_trainer.data.readers import repository_of
from te_trainer.escaping import markdown_text
from te_trainer.hub.card import Upload, card_data, describe_encoder, hub_score, source_name
from te_trainer.hub.evaluations import GoldScore, front_matter
from te_trainer.metrics import METRIC_TITLES, spearman
from te_trainer.models.model_card import card_tags, render_card
from te_trainer.report.run_tables import contrastive_table
from te_trainer.runs.finished import FinishedContrastive

TEMPLATE = Path(__file__).with_name("contrastive_card.md")


def contrastive_card(run: FinishedContrastive, upload: Upload, license: str | None) -> str:
    """The card of a repository: front matter and text."""
    metric, scores = spearman.__name__, contrastive_scores(run)
    section = run.manifest["resolved"]
    encoder = run.encoder(upload.model, "bi-encoder", None)
    method = run.manifest["config"]["contrastive"]["method"]
    return render_card(
        TEMPLATE,
        card_data(
            upload,
            license,
            [run.start()],
            run.sentences.sources,
            front_matter(scores, metric, upload.subfolders),
            card_tags(["bi-encoder"], method=method.replace("_", "-")),
        ),
        title=markdown_text(upload.repo_id.partition("/")[2]),
        upload=upload,
        encoder=describe_encoder("bi-encoder", encoder, run.start(), section["max_length"]),
        method=method,
        span=section["span"],
        sentences=run.sentences.num_rows,
        sources=[markdown_text(source_name(count)) for count in run.sentences.sources],
        metric=METRIC_TITLES[metric],
        table=contrastive_table(run.results, metric),
        chosen="dev" in run.results["final"]["bi-encoder"],
        tested=bool(scores),
    )


def contrastive_scores(run: FinishedContrastive) -> list[GoldScore]:
    """What the encoder scores on test sets."""
    scores, data = run.results["final"]["bi-encoder"].get("test", {}), run.manifest["config"]["data"]
    return [
        hub_score(
            run.manifest,
            test,
            "bi-encoder",
            score,
            test in data["test"] and repository_of(test, data["dir"]) is not None,
        )
        for test, score in scores.items()
        if test != "avg"
    ]
