"""The keys of `transformers.TrainingArguments`, read from its source.

Importing the class costs seconds, because it imports torch; `--help` and the check of a configuration file need only
names, types, defaults and help texts.
"""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# What a run decides for itself: these keys are refused in a configuration, with the reason.
MANAGED = {
    "output_dir": "each stage trains in a folder of its own below the run's output_dir",
    "seed": "the run's seed sets it",
    "data_seed": "the run's seed sets it",
    "report_to": "report_to stands at the top of the configuration",
    "run_name": "each stage has a name of its own",
    "resume_from_checkpoint": "the same command, run again, resumes",
    "do_train": "a run trains",
    "do_eval": "a run evaluates where data.dev is given",
    "do_predict": "a run labels by itself",
    "eval_strategy": "evaluation comes every eval_steps and at the end of each epoch",
    "save_strategy": "checkpoints come with the evaluations",
    "save_steps": "checkpoints come with the evaluations, every eval_steps",
    "load_best_model_at_end": "distillation.selection decides it",
    "metric_for_best_model": "distillation.task decides it",
    "greater_is_better": "distillation.task decides it",
    # the main job's sections have a key of this name of their own
    "train_sampling_strategy": "batches are drawn at random, for the sake of the negatives in them",
    "remove_unused_columns": "the trainers choose their columns",
    "label_names": "the trainers choose their columns",
    "label_smoothing_factor": "labels are scores and no classes",
    "prediction_loss_only": "a run chooses by the scores of data.dev",
    "batch_eval_metrics": "a rank correlation is no mean over batches",
    "eval_do_concat_batches": "a rank correlation is no mean over batches",
    "include_for_metrics": "a run's metric takes scores and gold scores",
    "disable_tqdm": "the run has one display of its own",
    "push_to_hub": "the run publishes at its end, not from a stage",
    "save_only_model": "a run that is killed resumes from whole checkpoints",
    "local_rank": "the launcher sets it",
    "ddp_timeout": "ddp_timeout stands at the top of the configuration, because all stages share one process group",
    "ddp_backend": "all stages share one process group, whose backend follows from the device",
    "use_cpu": "a whole run computes on one device; `accelerate launch --cpu` keeps it on the CPU",
}


@dataclass(frozen=True)
class TrainerKey:
    name: str
    type: Any
    default: Any
    help: str


@cache
def trainer_keys() -> dict[str, TrainerKey]:
    """All keys of `TrainingArguments` that a section may hold, by name."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    body = next(
        node.body
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    )
    keys = {}
    # A default may be the name of a variable of the class body; its last value is the one for a current torch.
    named = {
        target.id: node.value
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call):
            name = node.target.id
            if name in MANAGED or name.startswith("hub_"):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.value.keywords}
            default = keywords.get("default")
            if isinstance(default, ast.Name):
                default = named.get(default.id)
            keys[name] = TrainerKey(name, _type(ast.unparse(node.annotation)), _literal(default), _help(keywords))
    return keys


def _type(annotation: str) -> Any:
    known = {"int": int, "float": float, "bool": bool, "str": str, "dict": dict, "list[str]": list[str]}
    union: Any = None
    for part in (part.strip() for part in annotation.split("|")):
        part = "dict" if part.startswith("dict[") else part
        if part in known:
            union = known[part] if union is None else union | known[part]
    # Enumerations stand beside `str` in these annotations, and every value may be left to the library's default.
    return (str if union is None else union) | None


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def _help(keywords: dict[str | None, ast.expr]) -> str:
    metadata = keywords.get("metadata")
    if not isinstance(metadata, ast.Dict):
        return ""
    for key, value in zip(metadata.keys, metadata.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == "help":
            text = _literal(value)
            return " ".join(text.split()) if isinstance(text, str) else ""
    return ""
