"""Uploading encoders and their cards. Everything can be done again: what is there already is not sent twice."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from te_trainer.config.commands import REPOSITORY
from te_trainer.config.schema import HubConfig
from te_trainer.config.types import Kind
from te_trainer.errors import InputError, causes
from te_trainer.escaping import printable
from te_trainer.files.atomic import write_text
from te_trainer.files.records import write_json
from te_trainer.hub.card import Upload, contrastive_card, gold_scores, model_card
from te_trainer.hub.evaluations import STALE_RESULTS, eval_result_files
from te_trainer.hub.files import encoder_files
from te_trainer.hub_errors import hub_trouble
from te_trainer.models.weights import replaced_weights
from te_trainer.runs.finished import FinishedContrastive, FinishedRun, load_finished
from te_trainer.runs.layout import ADAPTER

TOKEN_FIX = f"make one that may write at {constants.ENDPOINT}/settings/tokens, and set HF_TOKEN or call `hf auth login`"
LICENSE_FIX = f"write one as {constants.ENDPOINT}/docs/hub/repositories-licenses has it, or leave it out"


def check_hub(hub: HubConfig, names: Sequence[str], kinds: Sequence[Kind], ask: bool) -> None:
    """Refuse, before a run begins, what could not be published at its end: names, a token, an owner, a license.

    If `ask` and the Hub does not answer, the end of the run will tell.
    """
    if hub.repo_id is None:
        return
    uploads = _uploads(hub, dict.fromkeys(names, kinds))
    _check_token()
    if ask:
        try:
            _check_answers(hub, [upload.repo_id for upload in uploads])
        except InputError:
            raise
        except Exception:  # no answer, of whichever kind
            return


def publish(root: Path, hub: HubConfig) -> list[str]:
    """Upload a finished run's encoders, a repository each, or both of a PLM in one.

    Of an encoder's folder, the files of a checkpoint are uploaded; what else lies there is named and left out. Gives
    the repositories' addresses. The refusal of an upload that failed ends with the command that repeats it.
    """
    run = load_finished(root)
    if isinstance(run, FinishedContrastive) and hub.branch_per_cycle:
        raise InputError(f"hub.branch_per_cycle: {root} holds contrastive training, which has no cycles; leave it out")
    cycles = run.whole_cycles if isinstance(run, FinishedRun) and hub.branch_per_cycle else ()
    uploads = _uploads(hub, {name: run.kinds_of(name) for name in run.names}, cycles)
    encoders = [(run.encoder(upload.model, kind, upload.cycle), kind) for upload in uploads for kind in upload.kinds]
    left_out = [str(encoder / name) for encoder, _ in encoders for name in encoder_files(encoder, root).left_out]
    adapters = [str(encoder / ADAPTER) for encoder, kind in encoders if not run.trains_from_start(kind)]
    _check_token()
    if not sys.stderr.isatty():
        disable_progress_bars()
    api = HfApi()
    with _upload_errors_as_input_error(uploads[0].repo_id, root, hub):
        has_license = _knows_license(hub.license)
    if not has_license:
        raise InputError(f"{_unknown_license(hub)}; {_repetition(root, replace(hub, license=None))}")
    for upload in uploads:
        with tempfile.TemporaryDirectory() as folder:
            _link_files(Path(folder), run, upload)
            for name, text in _written_files(run, upload, hub.license).items():
                write_text(Path(folder, name), text)
            with _upload_errors_as_input_error(upload.repo_id, root, hub):
                _upload(api, folder, upload, hub.private)
    if left_out:
        print(f"Not published, because it is no file of a checkpoint: {printable(', '.join(left_out))}")
    if adapters := [adapter for adapter in adapters if Path(adapter).is_dir()]:
        print(f"Not published, because what it was trained on is not published: {printable(', '.join(adapters))}")
    return list(dict.fromkeys(f"{api.endpoint}/{upload.repo_id}" for upload in uploads))


def _uploads(hub: HubConfig, kept: Mapping[str, Sequence[Kind]], cycles: Sequence[int] = ()) -> list[Upload]:
    """Which encoders go where, of each PLM those of the kinds `kept`.

    Those of each cycle go on a branch, those that were kept on the main one.
    """
    uploads: list[Upload] = []
    for name, kinds in kept.items():
        # what no repository's name may hold
        part = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
        base = f"{hub.repo_id}-{part}" if len(kept) > 1 else str(hub.repo_id)
        repositories = {base: kinds} if hub.one_repository else {f"{base}-{kind}": [kind] for kind in kinds}
        for repo_id, kinds_in_it in repositories.items():
            if REPOSITORY.fullmatch(repo_id) is None or repo_id in (upload.repo_id for upload in uploads):
                raise InputError(
                    f"hub.repo_id: '{repo_id}' cannot name a repository, or names two; choose another NAME, or other "
                    "names of models"
                )
            uploads += [Upload(repo_id, name, kinds_in_it, hub.one_repository, cycle) for cycle in (None, *cycles)]
    return uploads


def _written_files(run: FinishedRun | FinishedContrastive, upload: Upload, license: str | None) -> dict[str, str]:
    """What says about the encoders: the card and their scores, by path in the repository."""
    if isinstance(run, FinishedContrastive):
        card = contrastive_card(run, upload, license)
    else:
        card = model_card(run, upload, license)
    return {"README.md": card, **eval_result_files(gold_scores(run, upload), run.metric, upload.subfolders)}


def _link_files(folder: Path, run: FinishedRun | FinishedContrastive, upload: Upload) -> None:
    """Link the encoders' files into an empty folder; an adapter's configuration is written without local folders."""
    for kind in upload.kinds:
        encoder = run.encoder(upload.model, kind, upload.cycle)
        for name in encoder_files(encoder, run.root).published:
            if name.startswith(f"{ADAPTER}/") and not run.trains_from_start(kind):
                continue
            file, link = encoder / name, folder / (kind if upload.subfolders else "") / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if file.name == "adapter_config.json":
                adapter = json.loads(file.read_text(encoding="utf-8"))
                start = run.start(upload.model, kind)
                adapter |= {"base_model_name_or_path": start.name, "revision": start.commit}
                write_json(link, adapter)
            else:
                link.symlink_to(file.absolute())


def _upload(api: HfApi, folder: str, upload: Upload, private: bool | None) -> None:
    api.create_repo(upload.repo_id, private=private, exist_ok=True)
    if private:
        _refuse_public(api, upload.repo_id)
    if upload.revision is not None:
        api.create_branch(upload.repo_id, branch=upload.revision, exist_ok=True)
    present = api.list_repo_files(upload.repo_id, revision=upload.revision)
    replaced = replaced_weights(Path(folder), present, beside=ADAPTER)
    api.upload_folder(
        repo_id=upload.repo_id,
        folder_path=folder,
        revision=upload.revision,
        commit_message=f"Encoders of {upload.model}" + (f", cycle {upload.cycle}" if upload.cycle else ""),
        delete_patterns=[*replaced, *STALE_RESULTS],
    )
    if replaced:
        branch = f" on {upload.revision}" if upload.revision else ""
        print(f"Deleted from {upload.repo_id}{branch}, because the upload takes its place: {', '.join(replaced)}")


def _refuse_public(api: HfApi, repo_id: str) -> None:
    if not api.model_info(repo_id).private:
        raise InputError(f"hub.private: {repo_id} is there and public; make it private on the Hub first")


def _knows_license(license: str | None) -> bool:
    """Whether the Hub takes a card with this license; where there is none, it is not asked."""
    if license is None:
        return True
    card = ModelCard(f"---\n{ModelCardData(license=license).to_yaml()}\n---\n")
    try:
        card.validate()
    except ValueError:  # what the client makes of the Hub's refusal alone
        return False
    return True


def _unknown_license(hub: HubConfig) -> str:
    return f"hub.license: the Hub knows no license {hub.license!r}; {LICENSE_FIX}"


def _check_answers(hub: HubConfig, repositories: Sequence[str]) -> None:
    """Refuse what the Hub already says could not be published."""
    api = HfApi()
    try:
        account = api.whoami()
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise InputError(f"hub.repo_id: the Hub refuses the token (401); {TOKEN_FIX}") from None
        raise
    role, owner = account["auth"]["accessToken"]["role"], repositories[0].partition("/")[0]
    if role == "read":
        raise InputError(f"hub.repo_id: the Hub's token may only read; {TOKEN_FIX}")
    # what a fine-grained token may write to, its own permissions say
    if role == "write" and "orgs" in account:
        owners = [account["name"], *(organisation["name"] for organisation in account["orgs"])]
        if owner.lower() not in map(str.lower, owners):
            raise InputError(
                f"hub.repo_id: the token may not write to '{owner}'; name {' or '.join(owners)} as owner, or take a "
                "token that may"
            )
    if not _knows_license(hub.license):
        raise InputError(_unknown_license(hub))
    for repo_id in repositories if hub.private else ():
        with contextlib.suppress(RepositoryNotFoundError):
            _refuse_public(api, repo_id)


def _check_token() -> None:
    if constants.is_offline_mode():
        raise InputError("hub.repo_id: HF_HUB_OFFLINE is set, so nothing can be published; unset it")
    if get_token() is None:
        raise InputError(f"hub.repo_id: there is no token for the Hub; {TOKEN_FIX}")


@contextlib.contextmanager
def _upload_errors_as_input_error(repo_id: str, root: Path, hub: HubConfig) -> Iterator[None]:
    """Say in one sentence why an upload failed, and how to repeat it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the client raises many kinds; each means that the upload did not end well
        raise InputError(
            f"hub.repo_id: {repo_id} was not published: {_reason(error)}; {_repetition(root, hub)}"
        ) from None


def _repetition(root: Path, hub: HubConfig) -> str:
    """How to publish a run that was not published."""
    command = ["te-trainer", "push", str(root)]
    for item in fields(hub):
        value = getattr(hub, item.name)
        if value != item.default:
            command += [f"--hub.{item.name}", str(value).lower() if isinstance(value, bool) else value]
    return f"the run in {root} is whole, and this publishes it: {shlex.join(command)}"


def _reason(error: BaseException) -> str:
    status = next((link.response.status_code for link in causes(error) if isinstance(link, HfHubHTTPError)), None)
    if status == 401:
        return f"the Hub refuses the token (401); {TOKEN_FIX}"
    if status == 403:
        return f"the token may not write there (403); {TOKEN_FIX}"
    if (trouble := hub_trouble(error)) is not None:
        return trouble
    return " ".join(str(error).split())[:400].rstrip(".") or type(error).__name__
