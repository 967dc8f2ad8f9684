"""The two encoders of the method, and how they are loaded and saved."""

from te_trainer.models.bi_encoder import BiEncoder
from te_trainer.models.checkpoint import Checkpoint, local_fingerprint, resolve_checkpoint
from te_trainer.models.cross_encoder import CrossEncoder
from te_trainer.models.encoder import Encoder, check_encoder, describe_encoder, load_encoder

__all__ = [
    "BiEncoder",
    "Checkpoint",
    "CrossEncoder",
    "Encoder",
    "check_encoder",
    "describe_encoder",
    "load_encoder",
    "local_fingerprint",
    "resolve_checkpoint",
]
