"""Where a finished run is published: the section `hub`, and the command line of `recipes/push_to_hub.py`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from te_trainer.config.parsing import Form, read
from te_trainer.config.schema import HubConfig
from te_trainer.errors import InputError

# What the Hub lets a repository be called.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)\w[\w.-]*/\w([\w.-]{0,94}\w)?", re.ASCII)


def parse_push(argv: Sequence[str] | None = None) -> tuple[str, HubConfig]:
    """The folder of a run, and where it is published.

    Raises:
        InputError: no folder, no repository, an unknown key.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    form = Form(
        prog="push_to_hub.py",
        description="Publish a finished run: push_to_hub.py RUN_FOLDER --hub.repo_id OWNER/NAME",
        keys=[("run", str | None, None, "Output folder of a finished run; may be given first, without --run.")],
        sections={"hub": HubConfig},
        trainings={},
        never_empty=frozenset({"run"}),
    )
    values = read(form, arguments)
    hub = HubConfig(**values["hub"])
    for key, value in (("run", values["run"]), ("hub.repo_id", hub.repo_id)):
        if value is None:
            raise InputError(f"{key} is missing: write push_to_hub.py RUN_FOLDER --hub.repo_id OWNER/NAME")
    check_hub_section(hub)
    return values["run"], hub


def check_hub_section(hub: HubConfig) -> None:
    """Refuse what cannot name a repository.

    Raises:
        InputError: names the key.
    """
    if hub.repo_id is None:
        if hub != HubConfig():
            raise InputError("hub: its keys say how to publish, but hub.repo_id is not given; name OWNER/NAME")
    elif not names_repository(hub.repo_id):
        raise InputError(f"hub.repo_id: '{hub.repo_id}' cannot name a repository; write it as OWNER/NAME")


def names_repository(repository: str) -> bool:
    """Whether the Hub lets a repository have this name, `OWNER/NAME`."""
    return REPOSITORY.fullmatch(repository) is not None
