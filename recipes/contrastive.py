# /// script
# requires-python = ">=3.11"
# dependencies = ["te_trainer"]
#
# [tool.uv.sources]
# te_trainer = { path = "..", editable = true }
# ///
"""From a plain PLM and sentences to a bi-encoder, by contrastive training (SimCSE, Mirror-BERT): the paper's step 0.

    accelerate launch recipes/contrastive.py --config recipes/contrastive/simcse_bert_base.yaml

Every key of the YAML file can be overridden as `--section.key value`; `--help` lists them. The same command, run again
after an interruption, continues.
"""

import sys

from te_trainer.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("contrastive"))
