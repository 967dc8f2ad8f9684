"""Uploading encoders and their cards. Everything can be done again: what is there already is not sent twice."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils.tqdm import disable_progress_bars

from te_trainer.config.commands import names_repository
from te_trainer.config.schema import HubConfig, Kind
from te_trainer.errors import InputError
from te_trainer.escaping import printable
from te_trainer.hub.card import Place, model_card
from te_trainer.hub.files import encoder_files
from te_trainer.runs.finished import FinishedRun

MEND = f"make one that may write at {constants.ENDPOINT}/settings/tokens, and set HF_TOKEN or call `hf auth login`"
# Files of an earlier upload that a loader might take instead of the new ones.
STALE = ["*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json"]


def check_hub(hub: HubConfig, names: Sequence[str], kinds: Sequence[Kind], ask: bool) -> None:
    """Refuse, before a run begins, what could not be published at its end.

    Args:
        names, kinds: the PLMs, and their encoders.
        ask: whether to ask the Hub about the token; if it does not answer, the end of the run will tell.

    Raises:
        InputError: no repository can have such a name, or there is no token that may write.
    """
    if hub.repo_id is None:
        return
    for name in names:
        _places(hub, name, names, kinds)
    _check_token()
    if ask:
        role = None
        try:
            role = HfApi().whoami()["auth"]["accessToken"]["role"]
        except HfHubHTTPError as error:
            if error.response.status_code == 401:
                raise InputError(f"hub.repo_id: {_refused()}") from None
        except Exception:  # no answer, of whichever kind
            return
        if role == "read":
            raise InputError(f"hub.repo_id: the Hub's token may only read; {MEND}")


def publish(root: Path, hub: HubConfig) -> list[str]:
    """Upload a finished run's encoders, a repository each, or both of a PLM in one.

    Of an encoder's folder, the files of a checkpoint are uploaded; what else lies there is named and left out.

    Returns:
        the repositories' addresses.

    Raises:
        InputError: the run is not finished, an encoder is a link or holds one, or the upload failed; this message ends
            with the command that repeats it.
    """
    run = FinishedRun.load(root)
    uploads = [
        (name, cycle, place)
        for name in run.names
        for place in _places(hub, name, run.names, run.kinds)
        for cycle in [None, *(run.cycles if hub.branch_per_cycle else [])]
    ]
    folders = [run.encoder(name, kind, cycle) for name, cycle, place in uploads for kind in place.kinds]
    left_out = [str(folder / name) for folder in folders for name in encoder_files(folder, root).left_out]
    _check_token()
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    for name, cycle, place in uploads:
        if cycle is not None:
            place = Place(place.repository, f"cycle-{cycle}", place.kinds, place.folders)
        with tempfile.TemporaryDirectory() as folder:
            _lay_out(Path(folder), run, name, cycle, place, hub.license)
            with _failures_are_named(place.repository, root, hub):
                _upload(api, Path(folder), place, hub.private, f"Encoders of {name}, cycle {cycle or 'kept'}")
    if left_out:
        print(f"Not published, because it is no file of a checkpoint: {printable(', '.join(left_out))}")
    return list(dict.fromkeys(f"{api.endpoint}/{place.repository}" for _, _, place in uploads))


def _places(hub: HubConfig, name: str, names: Sequence[str], kinds: Sequence[Kind]) -> list[Place]:
    """Where a PLM's encoders are published."""
    base = f"{hub.repo_id}-{name}" if len(names) > 1 else str(hub.repo_id)
    if hub.one_repository:
        places = [Place(base, None, kinds, folders=True)]
    else:
        places = [Place(f"{base}-{kind}", None, [kind], folders=False) for kind in kinds]
    for place in places:
        if not names_repository(place.repository):
            raise InputError(f"hub.repo_id: '{place.repository}' cannot name a repository; choose another NAME")
    return places


def _lay_out(folder: Path, run: FinishedRun, name: str, cycle: int | None, place: Place, license: str | None) -> None:
    """Put what is uploaded into an empty folder: the encoders' files, as links, and the card."""
    for kind in place.kinds:
        encoder = run.encoder(name, kind, cycle)
        target = folder / kind if place.folders else folder
        for published in encoder_files(encoder, run.root).published:
            file, link = encoder / published, target / published
            link.parent.mkdir(parents=True, exist_ok=True)
            if file.name == "adapter_config.json":
                about = json.loads(file.read_text(encoding="utf-8"))
                about["base_model_name_or_path"] = run.start(name, kind)[0]
                link.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            else:
                link.symlink_to(file.absolute())
    (folder / "README.md").write_text(model_card(run, name, cycle, place, license), encoding="utf-8")


def _upload(api: HfApi, folder: Path, place: Place, private: bool, message: str) -> None:
    api.create_repo(place.repository, private=private, exist_ok=True)
    if private and not api.model_info(place.repository).private:
        raise InputError(f"hub.private: {place.repository} is there and public; make it private on the Hub first")
    if place.revision is not None:
        api.create_branch(place.repository, branch=place.revision, exist_ok=True)
    api.upload_folder(
        repo_id=place.repository,
        folder_path=folder,
        revision=place.revision,
        commit_message=message,
        delete_patterns=STALE,
    )


def _check_token() -> None:
    if constants.is_offline_mode():
        raise InputError("hub.repo_id: HF_HUB_OFFLINE is set, so nothing can be published; unset it")
    if get_token() is None:
        raise InputError(f"hub.repo_id: there is no token for the Hub; {MEND}")


def _refused() -> str:
    return f"the Hub refuses the token (401); {MEND}"


@contextlib.contextmanager
def _failures_are_named(repository: str, root: Path, hub: HubConfig) -> Iterator[None]:
    """Say in one sentence why an upload failed, and how to repeat it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the client raises many kinds; each means that the upload did not end well
        raise InputError(
            f"hub.repo_id: {repository} was not published: {_reason(error)}; the run in {root} is whole, and this "
            f"publishes it: {_command(root, hub)}"
        ) from None


def _reason(error: BaseException) -> str:
    chain: list[BaseException] = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    response: Any = next((link.response for link in chain if isinstance(link, HfHubHTTPError)), None)
    if response is not None and response.status_code == 401:
        return _refused()
    if response is not None and response.status_code == 403:
        return f"the token may not write there (403); {MEND}"
    # what happened first says most, but for the library's own words on a card that the Hub refuses
    first = error if isinstance(error, ValueError) else chain[-1]
    return " ".join(str(first).split())[:400].rstrip(".") or type(first).__name__


def _command(root: Path, hub: HubConfig) -> str:
    words = ["python", "recipes/push_to_hub.py", str(root)]
    for item in fields(hub):
        value = getattr(hub, item.name)
        if value != item.default:
            words += [f"--hub.{item.name}", str(value).lower() if isinstance(value, bool) else value]
    return shlex.join(words)
