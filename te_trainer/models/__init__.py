"""The two encoders of the method, and how they are loaded and saved."""

from te_trainer.models.bi_encoder import BiEncoder
from te_trainer.models.cross_encoder import CrossEncoder
from te_trainer.models.trained import check_trained, load_trained

Encoder = BiEncoder | CrossEncoder

__all__ = ["BiEncoder", "CrossEncoder", "Encoder", "check_trained", "load_trained"]
