"""Publishing a finished run on the Hugging Face Hub."""

from te_trainer.finished import FinishedRun
from te_trainer.hub.publish import check_hub, publish

__all__ = ["FinishedRun", "check_hub", "publish"]
