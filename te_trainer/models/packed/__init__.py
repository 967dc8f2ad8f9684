"""Short texts without padding, and dropout that is fast on a CPU: the only package that knows of either.

An encoder is plain transformers. Trainings and labellings choose a backend for their device, and enter `use_backend`.
"""

from te_trainer.models.packed.backend import AttentionBackend, use_backend
from te_trainer.models.packed.transfer import to_device
from te_trainer.models.packed.when_to_pack import choose_backend

__all__ = ["AttentionBackend", "choose_backend", "to_device", "use_backend"]
