"""Encoders and labels that stages have left on the disk, checked before anything is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk
from safetensors import safe_open

from te_trainer.errors import InputError
from te_trainer.files.records import DamagedError, damage_as_input_error, read_json, what_to_delete
from te_trainer.models.tokenizer import TOKENIZER_FILES
from te_trainer.runs.layout import EncoderKey, RunLayout


def check_encoder_files(folder: Path, **again: Any) -> None:
    """Refuse a saved encoder that was whole, and of which something is gone or cut; `again` says how to make it again.

    Raises:
        DamagedError: Names the file.
    """
    # macOS keeps what it knows of a file beside it, under a name with a dot, where the disk cannot
    weights, records = (sorted(folder.glob(pattern)) for pattern in ("[!.]*.safetensors", "[!.]*.json"))
    if not weights:
        with damage_as_input_error(folder, **again):
            raise FileNotFoundError
    needed = {folder / "config.json", folder / "tokenizer_config.json"}
    if folder.name == "bi-encoder":
        needed |= {folder / "modules.json", folder / "1_Pooling" / "config.json"}
    # an encoder loads without these files too, with an empty vocabulary
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        needed.add(folder / TOKENIZER_FILES[0])
    for path in sorted(needed.union(records)):
        with damage_as_input_error(path, **again):
            json.loads(path.read_text(encoding="utf-8"))
    for path in weights:
        # opening them compares their size with what their header says
        with damage_as_input_error(path, **again), safe_open(path, framework="pt"):
            pass


def refuse_missing_encoders(layout: RunLayout, results: dict[str, Any]) -> None:
    """Refuse to call a run finished whose encoders are not there any more, or are damaged."""
    missing, delete = [], [layout.results]
    for name, kinds in results["final"].items():
        for kind, entry in kinds.items() if name != "ensemble" else ():
            encoder, key = layout.kept_encoder(name, kind), EncoderKey(entry["cycle"], name, kind)
            if not _is_whole(encoder):
                missing.append(encoder)
                delete.append(encoder)
                delete += [] if _is_whole(layout.encoder(*key)) else [layout.encoder(*key), layout.scores(*key)]
    if missing:
        raise InputError(
            f"the run in {layout.root} is finished, but not whole any more: {' and '.join(map(str, missing))} was "
            f"moved, removed or damaged; delete {' and '.join(str(path) for path in delete if path.exists())}, and the "
            "same command makes it again"
        )


def _is_whole(encoder: Path) -> bool:
    try:
        check_encoder_files(encoder)
    except DamagedError:
        return False
    return True


def read_labels(folder: Path, expected: dict[str, str], pairs: int, **again: Any) -> np.ndarray:
    """Read the labels that an encoder gave a pool, float32 of shape (pairs,).

    Raises:
        DamagedError: One of their files is missing or damaged; `again` says how to label again.
        InputError: Their record holds something else than what is expected.
    """
    with damage_as_input_error(folder, **again):
        labels = np.asarray(load_from_disk(str(folder)).with_format("numpy")["score"][:], dtype=np.float32)
        if len(labels) != pairs:
            raise ValueError("they were cut")
    record = read_label_record(folder, **again)
    for key, wanted in expected.items():
        if record[key] != wanted:
            raise InputError(
                f"{folder}: its labels are of another {key} ({record[key]}) than this run's ({wanted}); delete "
                f"{what_to_delete(again['delete'])}, and {again['then']}"
            )
    return labels


def read_label_record(folder: Path, **again: Any) -> dict[str, Any]:
    """Read the record that lies with labels."""
    return read_json(folder / "fingerprint.json", "teacher", "kind", "precision", "pool", "seconds", **again)
