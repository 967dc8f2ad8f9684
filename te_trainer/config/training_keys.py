"""The keys of `transformers.TrainingArguments`, read from its source.

Importing the class costs seconds, because it imports torch; `--help` and the check of a configuration file need only
names, types, defaults and help texts.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_
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
    **dict.fromkeys(("eval_strategy", "eval_delay"), "evaluation comes every eval_steps and at the end of each epoch"),
    **dict.fromkeys(
        ("save_strategy", "save_steps"),
        "the best weights by data.dev are saved, and about once in a minute a checkpoint to resume from",
    ),
    "save_total_limit": "a training keeps its best checkpoint and the last one to resume from",
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
    "enable_jit_checkpoint": "a run that is stopped resumes from the checkpoint of the last minute",
    "ignore_data_skip": "a training that resumes goes on where it was in its pairs",
    "eval_on_start": "a run scores its start by itself",
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), "evaluations compute as the training does"),
    "length_column_name": "the trainers count tokens themselves",
    "local_rank": "the launcher sets it",
    "ddp_timeout": "ddp_timeout stands at the top of the configuration, because all stages share one process group",
    "ddp_backend": "all stages share one process group, whose backend follows from the device",
    "use_cpu": "a whole run computes on one device; `accelerate launch --cpu` keeps it on the CPU",
}

# Keys that people know from other libraries and no command has, by their last part.
FLOAT32 = (
    "weights are learnt and saved in float32, whatever a checkpoint holds; a key precision (of te-trainer distil, "
    "distillation.precision) chooses the arithmetic"
)
NEVER_KEYS = {
    "trust_remote_code": "code of a model's repository is never run; start from a model that transformers knows",
    "model_kwargs": f"{FLOAT32}; attn_implementation is a key of its own",
    **dict.fromkeys(("dtype", "torch_dtype"), FLOAT32),
    "group_by_length": "its name is train_sampling_strategy, which may be group_by_length",
    "evaluation_strategy": MANAGED["eval_strategy"],
    "no_cuda": MANAGED["use_cpu"],
    "adafactor": "optim chooses the optimiser, adafactor among them",
    "half_precision_backend": FLOAT32,
}


@dataclass(frozen=True)
class Key:
    """A key of a configuration: its dotted name, its type, its default, and its meaning."""

    name: str
    type: Any
    default: Any
    help: str
    of_trainer: bool = False  # a key of TrainingArguments


@cache
def trainer_keys() -> dict[str, Key]:
    """All keys of `TrainingArguments` that a section may hold, by name."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0], "training_args.py").read_text(encoding="utf-8")
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    keys, named = {}, {}
    for node in ast.walk(classes["TrainingArguments"]):
        # a default may be the name of a variable, whose last value is the one for a current torch
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] = node.value
    for node in classes["TrainingArguments"].body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Call):
            name = node.target.id
            given = {keyword.arg: keyword.value for keyword in node.value.keywords}
            default = given.get("default")
            default = named.get(default.id) if isinstance(default, ast.Name) else default
            if name not in MANAGED and not name.startswith("hub_"):
                kind, text = _type(ast.unparse(node.annotation)), _help(given.get("metadata"))
                keys[name] = Key(name, kind, _literal(default), text, of_trainer=True)
    return keys


def _type(annotation: str) -> Any:
    """The plain types of an annotation; enumerations stand beside `str`, and every value may be left to the library."""
    known = {"int": int, "float": float, "bool": bool, "str": str, "dict": dict, "list[str]": list[str]}
    parts = [known.get(re.sub(r"^dict\[.*", "dict", part.strip())) for part in annotation.split("|")]
    return reduce(or_, [part for part in parts if part is not None] or [str]) | None


def _literal(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def _help(metadata: ast.expr | None) -> str:
    entries = zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ()
    return "".join(" ".join(str(_literal(value)).split()) for key, value in entries if _literal(key) == "help")
