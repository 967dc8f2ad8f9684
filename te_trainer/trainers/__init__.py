"""`Trainer` subclasses for the two half-cycles; each can be used alone with a Dataset of pairs and labels."""

from te_trainer.trainers.arguments import BiEncoderTrainingArguments, CrossEncoderTrainingArguments
from te_trainer.trainers.bi_encoder import BiEncoderTrainer
from te_trainer.trainers.cross_encoder import CrossEncoderTrainer

__all__ = [
    "BiEncoderTrainer",
    "BiEncoderTrainingArguments",
    "CrossEncoderTrainer",
    "CrossEncoderTrainingArguments",
]
