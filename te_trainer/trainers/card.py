"""A trainer's model card: front matter, and how to use the encoder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

TEMPLATE = Path(__file__).with_name("card.md")
# As the Hub names them: https://huggingface.co/docs/hub/sentence-transformers
PIPELINES = {"bi-encoder": "sentence-similarity", "cross-encoder": "text-ranking"}
TAGS = {"bi-encoder": ["sentence-similarity", "feature-extraction"], "cross-encoder": ["cross-encoder", "text-ranking"]}
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
CACHED = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?/snapshots/", re.ASCII)
SPEED = ("_runtime", "_per_second", "_compilation_time", "_model_preparation_time")


@dataclass(frozen=True)
class CardFacts:
    """What a user says of a model; the names are those of `Trainer.create_model_card`."""

    language: str | None = None
    license: str | None = None
    tags: str | list[str] | None = None
    model_name: str | None = None
    finetuned_from: str | None = None
    tasks: str | list[str] | None = None
    dataset_tags: str | list[str] | None = None
    dataset: str | list[str] | None = None
    dataset_args: str | list[str] | None = None


def trainer_card(trainer: Any, facts: CardFacts) -> str:
    """The card of a trainer's encoder as it is now, and of its last evaluation.

    Args:
        trainer: a `BiEncoderTrainer` or a `CrossEncoderTrainer`.
        facts: go before what the trainer knows.
    """
    encoder, args = trainer.encoder, trainer.args
    base = facts.finetuned_from or base_model(encoder.model)
    repository = trainer.hub_model_id or facts.model_name or Path(args.output_dir or "model").absolute().name
    measured = last_metrics(trainer.state.log_history)
    adapter = hasattr(encoder.model, "peft_config")
    tags = [
        "sentence-transformers",
        *TAGS[encoder.kind],
        "trans-encoder",
        "generated_from_trainer",
        *_listed(facts.tags),
    ]
    data = ModelCardData(
        language=facts.language,
        license=facts.license,
        library_name="peft" if adapter else "sentence-transformers",
        pipeline_tag=(_listed(facts.tasks) or [PIPELINES[encoder.kind]])[0],
        tags=list(dict.fromkeys(tags)),
        base_model=base,
        datasets=_listed(facts.dataset_tags) or None,
        metrics=["spearmanr"] if any(name.endswith("spearman") for name in measured) else None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=" ".join((facts.model_name or repository.rpartition("/")[2]).split()),
        repository=repository,
        encoder=encoder,
        adapter=adapter,
        base=base,
        pairs=_pairs(trainer),
        datasets=[*_listed(facts.dataset), *_listed(facts.dataset_args)],
        loss="a loss of its own" if trainer.has_custom_loss() else args.loss,
        values=_values(trainer),
        measured=measured,
        steps=trainer.state.global_step,
    )
    return str(card)


def base_model(model: Any) -> str | None:
    """The Hub's name of what a model was loaded from; None for a local folder."""
    name = str(getattr(model, "name_or_path", "") or getattr(model.config, "_name_or_path", ""))
    if cached := CACHED.search(name):
        return "/".join(part for part in cached.groups() if part)
    return name if HUB_NAME.fullmatch(name) and not Path(name).exists() else None


def last_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """The metrics of the last evaluation, without those of speed."""
    last: dict[str, float] = {}
    step = None
    for entry in history:
        found = {name: value for name, value in entry.items() if name.startswith("eval_") and not name.endswith(SPEED)}
        if found:
            # several sets are logged one after another
            last = {**(last if entry["step"] == step else {}), **found}
            step = entry["step"]
    return last


def _pairs(trainer: Any) -> int | None:
    try:
        rows = len(trainer.train_dataset)
    except TypeError:  # none, or a stream
        return None
    return rows // 2 if getattr(trainer.args, "both_orders", False) else rows


def _values(trainer: Any) -> dict[str, Any]:
    args = trainer.args
    precision = "bfloat16" if args.bf16 or args.autocast == "bfloat16" else "float16" if args.fp16 else "float32"
    length = {"max_steps": args.max_steps} if args.max_steps > 0 else {"num_train_epochs": args.num_train_epochs}
    return {
        "learning_rate": args.learning_rate,
        "lr_scheduler_type": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "warmup_steps": args.warmup_steps,
        "weight_decay": args.weight_decay,
        "batch size (all processes, accumulated)": trainer.get_total_train_batch_size(args),
        **length,
        "seed": args.seed,
        "precision": precision,
        "max_length": trainer.encoder.max_length,
    }


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
