# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""From unlabelled sentence pairs to a bi-encoder and a cross-encoder (Trans-Encoder, Liu et al., ICLR 2022).

    accelerate launch recipes/trans_encoder.py --config recipes/quickstart.yaml --output_dir runs/quickstart

Every key of the YAML file can be overridden as `--section.key value`; `--help` lists them. The same command, run again
after an interruption, continues.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("distil"))
