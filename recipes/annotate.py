# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""Choose pairs of a finished run's pool to score by hand: those that tell most about its start against its result.

    python recipes/annotate.py runs/tickets --output labels.tsv

The file, filled in, is a set with gold scores: `data.dev` of a run, or a task of `recipes/evaluate_sts.py`.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("annotate"))
