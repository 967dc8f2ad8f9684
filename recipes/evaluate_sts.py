# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""Scores of bi-encoders, cross-encoders and ensembles on pairs with gold scores, as the paper's tables have them.

    accelerate launch recipes/evaluate_sts.py --models '[runs/sts/bert/bi-encoder, runs/sts/bert/cross-encoder]'

Every key can stand in a YAML file, too (`--config`); `--help` lists them. The same command, run again after an
interruption, continues.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate"))
