"""The stages of a run: label a pool, train an encoder, score it. Each is skipped if its result is there."""

from te_trainer.stages.runner import StageRunner

__all__ = ["StageRunner"]
