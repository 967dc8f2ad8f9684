"""Trans-Encoder (Liu et al., ICLR 2022) on the Hugging Face Trainer: sentence-pair models without labels.

The names below are imported when they are first used, so that `import te_trainer` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from te_trainer.commands.in_python import DistilledRun as DistilledRun
    from te_trainer.commands.in_python import distil as distil
    from te_trainer.errors import DivergedError as DivergedError
    from te_trainer.errors import InputError as InputError
    from te_trainer.labelling import embed_sentences as embed_sentences
    from te_trainer.labelling import score_pairs as score_pairs
    from te_trainer.models import BiEncoder as BiEncoder
    from te_trainer.models import CrossEncoder as CrossEncoder
    from te_trainer.models import load_encoder as load_encoder
    from te_trainer.trainers import BiEncoderTrainer as BiEncoderTrainer
    from te_trainer.trainers import BiEncoderTrainingArguments as BiEncoderTrainingArguments
    from te_trainer.trainers import CrossEncoderTrainer as CrossEncoderTrainer
    from te_trainer.trainers import CrossEncoderTrainingArguments as CrossEncoderTrainingArguments

__version__ = "0.1.0"

_MODULES = {
    "BiEncoder": "te_trainer.models",
    "BiEncoderTrainer": "te_trainer.trainers",
    "BiEncoderTrainingArguments": "te_trainer.trainers",
    "CrossEncoder": "te_trainer.models",
    "CrossEncoderTrainer": "te_trainer.trainers",
    "CrossEncoderTrainingArguments": "te_trainer.trainers",
    "DistilledRun": "te_trainer.commands.in_python",
    "DivergedError": "te_trainer.errors",
    "InputError": "te_trainer.errors",
    "distil": "te_trainer.commands.in_python",
    "embed_sentences": "te_trainer.labelling",
    "load_encoder": "te_trainer.models",
    "score_pairs": "te_trainer.labelling",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'te_trainer' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
