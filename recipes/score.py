# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""Scores of a file of pairs, or the nearest sentences of each sentence of a file, with a trained encoder.

    accelerate launch recipes/score.py --model MODEL --data.pairs pairs.csv --output scores.tsv
    accelerate launch recipes/score.py --model MODEL --data.sentences sentences.txt --top_k 5 --output nearest.tsv

The checkpoint says whether the model is a bi-encoder or a cross-encoder; of a finished run's folder the fitting encoder
is taken. `--help` lists all keys.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("score"))
