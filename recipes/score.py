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

Whether the model is a bi-encoder or a cross-encoder is found out from its checkpoint. `--help` lists all keys.
"""

import sys

from te_trainer.commands.score import main
from te_trainer.runs.exit_status import run_command

if __name__ == "__main__":
    sys.exit(run_command(main, again="begins from the start"))
