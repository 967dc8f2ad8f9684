# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""Publish a finished run on the Hugging Face Hub: its encoders, each with a card of its own.

    python recipes/push_to_hub.py runs/tickets --hub.repo_id me/tickets

It can be repeated: what the Hub has already is not sent again.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("push"))
