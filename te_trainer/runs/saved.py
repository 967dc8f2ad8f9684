"""What stages have left on the disk, checked before anything is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_from_disk
from safetensors import safe_open
from transformers import TrainerState

from te_trainer.errors import InputError
from te_trainer.files.records import DamagedError, damage_as_input_error, read_json
from te_trainer.models.tokenizer import TOKENIZER_FILES
from te_trainer.runs.layout import EncoderKey, RunLayout
from te_trainer.trainers.checkpoint_mark import mark_of

FSDP, PLAIN = "FSDP", "neither DeepSpeed nor FSDP"  # engines


def check_checkpoint(folder: Path) -> TrainerState:
    """Refuse a training's checkpoint that was whole and has been cut since, or whose best one by dev has; its state."""
    again = {
        "delete": f"the folder {folder}",
        "then": "the run's command continues from the checkpoint before, or begins this training anew",
    }
    state = folder / "trainer_state.json"
    with damage_as_input_error(state, **again):
        loaded: TrainerState = TrainerState.load_from_json(str(state))
        loaded.global_step.bit_length()
        best = loaded.best_model_checkpoint and folder.with_name(Path(loaded.best_model_checkpoint).name)
    _check_sizes(folder, **again)
    if best and best != folder:
        # a Trainer that does not find it keeps the last weights without a word
        anew = {"delete": f"the folder {folder.parent}", "then": "the run's command begins this training anew"}
        with damage_as_input_error(best, **anew):
            mark_of(best).stat()
        _check_sizes(best, **anew)
    return loaded


def checkpoint_engine(folder: Path) -> str:
    """The engine that wrote a full checkpoint, named as `engine_of` does.

    The files tell it, because each engine has its own for the optimiser's states.
    """
    if (folder / "latest").exists():
        states = [path.name for path in folder.glob("global_step*/*_states.pt")]
        return _deepspeed("mp_rank_00_model_states.pt" not in states, sum("_optim_" in name for name in states))
    return FSDP if list(folder.glob("pytorch_model_fsdp*")) else PLAIN


def engine_of(trainer: Any) -> str:
    """The engine of a trainer, named so that it resumes from the full checkpoints of an engine of that name."""
    if trainer.is_deepspeed_enabled:
        stage = trainer.accelerator.state.deepspeed_plugin.hf_ds_config.get_value("zero_optimization.stage", 0)
        return _deepspeed(stage == 3, trainer.args.world_size if stage else 0)
    return FSDP if trainer.is_fsdp_enabled else PLAIN


def computation_of(trainer: Any) -> str:
    """What the hardware decides of a training: the order of its batches, too, so that none goes on with another."""
    groups = trainer.args.loss != "info_nce" and trainer.groups_by_length()
    batches = "batches of similar length" if groups else "random batches"
    return f"{trainer.args.arithmetic} and {batches} on a {trainer.args.device.type}"


def _deepspeed(weights_are_divided: bool, parts: int) -> str:
    """Each process reads its own part of the optimiser's states alone; ZeRO-1 and ZeRO-2 write the same files."""
    return f"DeepSpeed ({'ZeRO-3' if weights_are_divided else 'whole weights'}, optimiser in {parts} parts)"


def _check_sizes(checkpoint: Path, **again: str) -> None:
    """Refuse a checkpoint of which a file is gone, or has another size than when it was whole."""
    mark = mark_of(checkpoint)
    with damage_as_input_error(mark, **again):
        sizes: dict[str, int] = json.loads(mark.read_text(encoding="utf-8"))
        files = [(checkpoint / name, size) for name, size in sizes.items()]
    for path, size in files:
        with damage_as_input_error(path, **again):
            # a run that has moved writes this file again
            if path.stat().st_size != size and path.name != "trainer_state.json":
                raise ValueError("it was cut")


def check_encoder_files(folder: Path, **again: str) -> None:
    """Refuse a saved encoder that was whole, and of which something is gone or cut; `again` says how to make it again.

    Raises:
        DamagedError: Names the file.
    """
    if not list(folder.glob("*.safetensors")):
        with damage_as_input_error(folder, **again):
            raise FileNotFoundError
    needed = {folder / "config.json", folder / "tokenizer_config.json"}
    if folder.name == "bi-encoder":
        needed |= {folder / "modules.json", folder / "1_Pooling" / "config.json"}
    # an encoder loads without these files too, with an empty vocabulary
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        needed.add(folder / TOKENIZER_FILES[0])
    for path in sorted(needed | set(folder.glob("*.json"))):
        with damage_as_input_error(path, **again):
            json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.safetensors")):
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


def read_labels(folder: Path, expected: dict[str, str], pairs: int, **again: str) -> np.ndarray:
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
                f"{again['delete']}, and {again['then']}"
            )
    return labels


def read_label_record(folder: Path, **again: str) -> dict[str, Any]:
    """Read the record that lies with labels."""
    return read_json(folder / "fingerprint.json", "teacher", "kind", "precision", "pool", "seconds", **again)
