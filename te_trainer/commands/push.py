"""Publish a finished run on the Hugging Face Hub: its encoders, each with a card of its own.

    python recipes/push_to_hub.py runs/tickets --hub.repo_id me/tickets

It can be repeated: what the Hub has already is not sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from te_trainer.config.commands import parse_push


def main(argv: Sequence[str] | None = None) -> None:
    config = parse_push(argv)
    from te_trainer.hub import publish
    from te_trainer.runs.quiet import quiet_libraries

    quiet_libraries()
    for address in publish(Path(config.run), config.hub):
        print(f"Published: {address}")
