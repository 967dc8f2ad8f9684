"""Publish a finished run on the Hugging Face Hub: its encoders, each with a card of its own."""

from __future__ import annotations

from pathlib import Path

from te_trainer.config.schema import PushConfig
from te_trainer.hub.publish import publish
from te_trainer.runs.quiet import quiet_libraries


def main(config: PushConfig) -> None:
    quiet_libraries()
    for address in publish(Path(config.run), config.hub):
        print(f"Published: {address}")
