"""Publishing a finished run on the Hugging Face Hub."""

from te_trainer.hub.publish import check_hub, publish

__all__ = ["check_hub", "publish"]
