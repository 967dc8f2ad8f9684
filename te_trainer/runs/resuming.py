"""Whether a training resumes from its checkpoint: it is whole, and of the same engine and computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerState

from te_trainer.files.records import damage_as_input_error
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
