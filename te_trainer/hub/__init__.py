"""Publishing a finished run on the Hugging Face Hub."""

from te_trainer.hub.publish import check_hub, publish
from te_trainer.runs.finished import FinishedRun

__all__ = ["FinishedRun", "check_hub", "publish"]
