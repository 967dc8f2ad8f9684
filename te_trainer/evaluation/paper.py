"""The paper's own scores, to stand beside ours: Trans-Encoder (ICLR 2022, arXiv 2109.13059v4), Tables 1 and 11.

Of its SimCSE starts, base and large, and of what the paper made of them, where it tests on what they were trained for.
Averages are not kept: they follow from these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from te_trainer.config.names import split_revision
from te_trainer.config.types import Kind
from te_trainer.runs.layout import RunLayout

STS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr")  # Table 1, Spearman × 100
BINARY = ("qqp", "qnli", "mrpc")  # Table 11, ROC-AUC × 100

# The checkpoints that the paper starts from (its Table 17), and the mutual ones of STS that its authors published.
STARTS = {
    "princeton-nlp/unsup-simcse-bert-base-uncased": "BERT-base",
    "princeton-nlp/unsup-simcse-roberta-base": "RoBERTa-base",
    "princeton-nlp/unsup-simcse-bert-large-uncased": "BERT-large",
    "princeton-nlp/unsup-simcse-roberta-large": "RoBERTa-large",
}
PUBLISHED = {
    f"cambridgeltl/trans-encoder-{kind}-simcse-{plm.lower()}": (plm, f"TEnc-mutual ({kind})")
    for plm in STARTS.values()
    for kind in ("bi", "cross")
}

# What all of these rows have in common, of a run's configuration. Other values have rows in other tables, or none.
ROWS: dict[str, dict[str, Any]] = {
    "data": {"max_pairs": None, "extra": [], "sentences": []},
    "distillation": {
        **{"students": "both", "init": "refresh", "combine": "mean", "step0": None},
        **{"cross_encoder_labels": "scores", "bi_encoder_labels": "cross-encoder"},
    },
    "cross_encoder": {"loss": "bce"},
    "bi_encoder": {"loss": "mse"},
    "lora": {"rank": None},
}

# By PLMs (two of them: their ensemble) and method ("" for the start), in the order of STS and of BINARY.
SCORES: dict[tuple[str, ...], dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    ("BERT-base",): {
        "": ((68.64, 82.39, 74.30, 80.69, 78.71, 76.54, 72.22), (80.38, 71.38, 75.02)),
        "TEnc (bi)": ((72.17, 84.40, 76.69, 83.28, 80.91, 81.26, 71.84), (82.10, 75.30, 75.71)),
        "TEnc (cross)": ((71.94, 84.14, 76.39, 82.87, 80.65, 81.06, 71.16), (82.10, 75.61, 76.21)),
        "TEnc-mutual (bi)": ((75.09, 85.10, 77.90, 85.08, 83.05, 83.90, 72.76), (84.00, 76.93, 76.62)),
        "TEnc-mutual (cross)": ((75.44, 85.59, 78.03, 84.44, 82.65, 83.61, 69.52), (84.29, 77.11, 77.77)),
    },
    ("RoBERTa-base",): {
        "": ((68.34, 80.96, 73.13, 80.86, 80.61, 80.20, 68.62), (81.82, 73.54, 75.06)),
        "TEnc (bi)": ((73.36, 82.47, 76.39, 83.96, 82.67, 82.05, 67.63), (84.13, 77.08, 75.29)),
        "TEnc (cross)": ((72.59, 83.24, 76.83, 84.20, 82.82, 82.85, 69.51), (85.16, 80.49, 76.09)),
        "TEnc-mutual (bi)": ((75.01, 85.22, 78.26, 85.16, 83.22, 83.88, 72.56), (84.36, 77.29, 76.90)),
        "TEnc-mutual (cross)": ((76.37, 85.87, 79.03, 85.77, 83.77, 84.65, 72.62), (84.73, 77.32, 78.47)),
    },
    ("BERT-large",): {
        "": ((71.30, 84.32, 76.32, 84.28, 79.78, 79.04, 73.88), (82.42, 72.46, 75.93)),
        "TEnc (bi)": ((75.55, 84.08, 77.01, 85.43, 81.37, 82.88, 71.46), (84.53, 78.22, 78.42)),
        "TEnc (cross)": ((75.81, 84.51, 76.50, 85.65, 82.14, 83.47, 70.90), (84.18, 79.71, 79.43)),
        "TEnc-mutual (bi)": ((78.19, 88.51, 81.37, 88.16, 84.81, 86.16, 71.33), (85.72, 81.61, 79.59)),
        "TEnc-mutual (cross)": ((77.97, 88.31, 81.02, 88.11, 84.40, 85.95, 71.92), (86.55, 81.55, 79.69)),
    },
    ("RoBERTa-large",): {
        "": ((71.40, 84.60, 75.94, 84.36, 82.22, 82.67, 71.23), (82.99, 75.76, 77.24)),
        "TEnc (bi)": ((77.92, 86.69, 79.29, 87.23, 84.22, 86.10, 68.36), (85.65, 84.49, 79.34)),
        "TEnc (cross)": ((78.32, 86.20, 79.61, 86.88, 82.93, 84.48, 67.90), (86.16, 84.69, 81.00)),
        "TEnc-mutual (bi)": ((78.15, 88.39, 81.76, 88.38, 84.95, 86.55, 72.31), (85.65, 81.87, 79.53)),
        "TEnc-mutual (cross)": ((78.28, 88.31, 81.94, 88.63, 85.03, 86.70, 71.63), (86.38, 83.14, 81.77)),
    },
    ("BERT-base", "RoBERTa-base"): {
        "": ((70.71, 83.49, 76.45, 83.13, 81.79, 81.51, 71.94), (81.10, 72.46, 75.04)),
        "TEnc (bi)": ((73.58, 85.01, 78.35, 85.02, 83.21, 84.07, 70.93), (83.11, 76.19, 75.45)),
        "TEnc (cross)": ((74.25, 84.92, 78.57, 85.16, 83.25, 83.52, 70.73), (84.15, 78.55, 78.90)),
        "TEnc-mutual (bi)": ((75.29, 85.34, 78.49, 85.28, 83.43, 84.09, 72.75), (84.18, 77.11, 76.76)),
        "TEnc-mutual (cross)": ((76.60, 86.18, 79.09, 85.49, 83.64, 84.67, 71.96), (84.68, 77.92, 78.22)),
    },
    ("BERT-large", "RoBERTa-large"): {
        "": ((73.22, 86.03, 78.15, 85.95, 82.83, 83.05, 73.86), (82.47, 74.09, 76.55)),
        "TEnc (bi)": ((78.49, 87.02, 80.31, 87.85, 84.31, 86.54, 72.39), (85.09, 81.35, 78.88)),
        "TEnc (cross)": ((77.93, 86.91, 79.83, 87.82, 83.74, 85.58, 72.02), (86.22, 83.78, 81.06)),
        "TEnc-mutual (bi)": ((78.42, 88.60, 81.91, 88.38, 85.01, 86.52, 72.23), (86.10, 81.74, 79.56)),
        "TEnc-mutual (cross)": ((78.52, 88.70, 81.90, 88.67, 84.96, 86.70, 72.03), (86.26, 82.86, 81.41)),
    },
}


def paper_reference(members: Sequence[tuple[str, Kind]]) -> tuple[str, dict[str, float]] | None:
    """A title and the paper's scores by task, as fractions, of a model or an ensemble; None where it has no such row.

    Members are Hub ids or folders with kinds: a start of the paper's, what its authors published, or what a run made of
    such a start as the paper did. The latter two have scores of the tasks that they were trained for.
    """
    origins = [origin for path, kind in members if (origin := _origin(path, kind)) is not None]
    plms, methods = sorted(origin.plm for origin in origins), {origin.method for origin in origins}
    tasks = set(STS + BINARY).intersection(*(origin.tasks for origin in origins))
    key = next((known for known in SCORES if sorted(known) == plms), None)
    if len(origins) < len(members) or len(methods) != 1 or key is None or not tasks:
        return None
    method = methods.pop()
    sts, binary = SCORES[key][method]
    title = " + ".join(filter(None, [" and ".join(f"SimCSE-{plm}" for plm in key), method]))
    values = zip((*STS, *BINARY), (*sts, *binary), strict=True)
    return f"paper: {title}", {task: value / 100 for task, value in values if task in tasks}


class _Origin(NamedTuple):
    """Where an encoder comes from, by the paper's names."""

    plm: str
    method: str
    tasks: tuple[str, ...]  # that the paper's row of it tests


def _origin(path: str, kind: Kind) -> _Origin | None:
    known = _known_checkpoint(path)
    if known is not None or Path(path).name not in get_args(Kind):
        return known
    folder = Path(path).absolute().parent
    layout = RunLayout(folder.parent)
    try:
        config = yaml.safe_load(layout.manifest.read_text(encoding="utf-8"))["config"]
        starts = {model["name"]: _known_checkpoint(model["bi_encoder"]) for model in config["models"]}
        final = json.loads(layout.results.read_text(encoding="utf-8"))["final"]
        cycle = final[folder.name][kind]["cycle"]
        tasks = _tasks(config)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        # nothing that a run of distillation has written to its end
        return None
    plms = {name: start for name, start in starts.items() if start is not None and not start.method}
    if len(plms) < len(starts) or sorted(start.plm for start in plms.values()) not in map(sorted, SCORES):
        return None
    if not cycle:
        return plms[folder.name]
    method = f"TEnc{'-mutual' * (len(starts) == 2)} ({kind.removesuffix('-encoder')})"
    return _Origin(plms[folder.name].plm, method, tasks) if tasks else None


def _tasks(config: dict[str, Any]) -> tuple[str, ...]:
    """The tasks that the paper tests after such a run; none where it has made no such run."""
    if any(config[section][key] != value for section, keys in ROWS.items() for key, value in keys.items()):
        return ()
    pool = {str(source) for source in config["data"]["pool"]}
    if pool >= set(STS) and not pool & set(BINARY):  # beside files of the rows that the Hub's sets lack
        return STS
    return tuple(pool) if len(pool) == 1 and pool < set(BINARY) else ()


def _known_checkpoint(path: str) -> _Origin | None:
    """By the Hub id, or by a local folder that is named like it."""
    known = {start: _Origin(plm, "", STS + BINARY) for start, plm in STARTS.items()}
    known |= {name: _Origin(plm, method, STS) for name, (plm, method) in PUBLISHED.items()}
    last = split_revision(path)[0].rstrip("/").rpartition("/")[2]
    return next((origin for name, origin in known.items() if last == name.rpartition("/")[2]), None)
