"""te_trainer: Trans-Encoder on the Hugging Face Trainer.

from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers import BiEncoderTrainer, CrossEncoderTrainer
from te_trainer.labelling import score_pairs
"""
