"""What all model cards have in common: how the Hub tags an encoder, and how people use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from te_trainer.config.types import Kind

# As the Hub names them: https://huggingface.co/docs/hub/sentence-transformers
PIPELINE_TAGS: dict[Kind, str] = {"bi-encoder": "sentence-similarity", "cross-encoder": "text-ranking"}
KIND_TAGS: dict[Kind, list[str]] = {
    "bi-encoder": ["sentence-similarity", "feature-extraction"],
    "cross-encoder": ["cross-encoder", "text-ranking"],
}


def card_tags(kinds: Sequence[Kind], *more: str, method: str = "trans-encoder") -> list[str]:
    """Tags of a repository that holds encoders of some kinds."""
    tags = ["sentence-transformers", *(tag for kind in kinds for tag in KIND_TAGS[kind]), method, *more]
    return list(dict.fromkeys(tags))


def render_card(template: Path, data: ModelCardData, **values: Any) -> str:
    """A model card: front matter, and the text of a template, which may use the macros of `card_macros.md`."""
    macros = Path(__file__).with_name("card_macros.md").read_text(encoding="utf-8")
    return str(ModelCard.from_template(data, template_str=macros + template.read_text(encoding="utf-8"), **values))
