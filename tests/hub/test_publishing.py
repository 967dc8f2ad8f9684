"""A finished run goes to a Hub through the real client, comes back through the real libraries, and scores the same."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import yaml
from clients import JOB, online, python, refused, run_commands
from conftest import SAMPLE, brief_gold, results_of, tiny_arguments
from huggingface_hub import ModelCard, parse_eval_result_entries
from markdown_it import MarkdownIt
from server import HubServer
from writing import Account, Refusal

from te_trainer.config.schema import HubConfig
from te_trainer.data import SourceCount
from te_trainer.errors import InputError
from te_trainer.hub.card import Upload, gold_scores, model_card
from te_trainer.hub.evaluations import eval_result_files
from te_trainer.hub.publish import _link_files, _uploads, check_hub, publish
from te_trainer.runs.finished import FinishedRun

pytestmark = pytest.mark.slow

KINDS = ("bi-encoder", "cross-encoder")
LIMIT = Refusal(429, "Too many", **{"RateLimit": '"api";r=0;t=55'})
FAULT = Refusal(503, "Service unavailable")
IMPATIENT_XET = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "1ms"}
IN_ONE = ["--hub.one_repository", "true", "--hub.repo_id", "owner/both"]
TOKENS = {"hf_write": Account("owner", "write"), "hf_read": Account("owner", "read")}

# Runs as a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.
LOADING = """
import contextlib, io, json, re, sys
from te_trainer.runs.quiet import quiet_libraries
quiet_libraries()
from huggingface_hub import hf_hub_download
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder, SentenceTransformer

request = json.loads(sys.argv[1])
rows = [line.split("\\t") for line in open(request["test"], encoding="utf-8").read().splitlines()[1:]]
gold, first, second = zip(*rows)
gold = [float(score) for score in gold]

def bi_encoder(name, revision):
    model = SentenceTransformer(name, revision=revision)
    predicted = model.similarity_pairwise(model.encode(list(first)), model.encode(list(second)))
    return float(spearmanr(predicted.numpy(), gold).statistic)

def cross_encoder(name, revision):
    model = CrossEncoder(name, revision=revision)
    return float(spearmanr(model.predict(list(zip(first, second))), gold).statistic)

def card(name, revision):
    # what the code in a card prints
    text = open(hf_hub_download(name, "README.md", revision=revision), encoding="utf-8").read()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\\n(.*?)```", text, re.DOTALL):
            exec(block, {})
    return [float(line) for line in printed.getvalue().split()]

print(json.dumps([globals()[function](*arguments) for function, *arguments in request["calls"]]))
"""

# What a run that begins is refused with, by its token and its keys of the Hub.
CHECKING = """
import json, os, sys
from te_trainer.config.schema import HubConfig
from te_trainer.config.types import KINDS
from te_trainer.errors import InputError
from te_trainer.hub.publish import check_hub

for os.environ["HF_TOKEN"], keys in json.loads(sys.argv[1]):
    try:
        print(check_hub(HubConfig(**keys), ["tiny"], KINDS, ask=True) or "")
    except InputError as error:
        print(error)
"""


def signed_in(hub: HubServer, home: Path, token: str = "hf_write") -> dict[str, str]:
    return online(hub.url, home, token)


def pushes(calls: list[tuple[str, list[str]]], **environment: str) -> list[subprocess.CompletedProcess[str]]:
    """What several calls of the recipe end with, each with a token of its own."""
    return run_commands("push_to_hub.py", calls, **environment)


def push(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What one call of the recipe ends with."""
    return pushes([("hf_write", list(arguments))], **environment)[0]


def load(hub: HubServer, home: Path, run: Path, calls: list[list[Any]], **environment: str) -> list[Any]:
    """What the libraries make of what is on the Hub, with an empty cache."""
    request = {"test": str(run.with_name("test.tsv")), "calls": calls}
    done = python("-c", LOADING, json.dumps(request), **signed_in(hub, home) | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def uploads(hub: HubServer) -> int:
    """How often a large file was sent."""
    return sum(request.startswith("PUT ") for request in hub.requests)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        server.shelf.accounts |= TOKENS
        yield server


@pytest.fixture(autouse=True)
def well(hub: HubServer) -> None:
    """A Hub that refuses nothing, before each test."""
    hub.refusals = {}


def training(model: Path, output: Path) -> list[str]:
    """Arguments of a run with adapters, whose test set is in the pool."""
    more = ["--distillation.keep_cycles", "true", "--lora.rank", "4", "--lora.keep_adapter", "true"]
    more += brief_gold(output.parent, 80)
    return tiny_arguments(model, output, *more, pool=[str(SAMPLE / "pool.tsv"), str(output.with_name("test.tsv"))])


@pytest.fixture(scope="module")
def trained(
    hub: HubServer, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that publishes at its end, when the Hub goes away in the middle of its first commit."""
    output = tmp_path_factory.mktemp("runs") / "tickets"
    keys = ["--hub.repo_id", "owner/tickets", "--hub.branch_per_cycle", "true", "--hub.license", "mit"]
    hub.resets["/commit/"] = 1
    done = python(JOB, *training(tiny, output), *keys, **signed_in(hub, output.parent / "home"))
    return output, done


@pytest.fixture(scope="module")
def run(trained: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """The run's folder."""
    return trained[0]


@pytest.fixture(scope="module")
def published(
    hub: HubServer, trained: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """What is printed by the command that the failed upload's error names."""
    words = shlex.split(trained[1].stderr.splitlines()[-1].partition("publishes it: ")[2])
    assert words[:2] == ["te-trainer", "push"]
    done = python("-m", "te_trainer", *words[1:], **signed_in(hub, tmp_path_factory.mktemp("again")))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def both(
    hub: HubServer, run: Path, published: str, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """How the command ends that publishes both encoders in one private repository, `owner/both`."""
    return push(str(run), *IN_ONE, "--hub.private", "true", **signed_in(hub, tmp_path_factory.mktemp("both")))


# ---------------------------------------------------------------- there and back


def test_a_torn_upload_leaves_the_run_whole_and_names_the_command_that_repeats_it(
    trained: tuple[Path, subprocess.CompletedProcess[str]], published: str, hub: HubServer
) -> None:
    run, done = trained
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith("error: hub.repo_id: owner/tickets-bi-encoder was not published: ")
    assert "Traceback" not in done.stderr
    assert results_of(run)["final"] and (run / "report.md").exists()
    assert published.split() == [word for kind in KINDS for word in ("Published:", f"{hub.url}/owner/tickets-{kind}")]


@pytest.mark.usefixtures("both")
def test_encoders_come_back_with_the_scores_of_the_run(hub: HubServer, run: Path, tmp_path: Path) -> None:
    names = {kind: f"owner/tickets-{kind}" for kind in KINDS}
    wanted = [(kind, revision) for kind in KINDS for revision in ("main", "cycle-1", "cycle-2")]
    calls = [[kind.replace("-", "_"), names[kind], revision] for kind, revision in wanted]
    calls += [["card", names[kind], "main"] for kind in KINDS]
    found = FinishedRun.load(run)
    other = 3 - found.results["final"]["tiny"]["cross-encoder"]["cycle"]
    calls += [["card", names["cross-encoder"], f"cycle-{other}"], ["card", "owner/both", "main"]]
    *scores, bi, cross, not_kept, in_one = load(hub, tmp_path, run, calls)
    cycles = {"main": None, "cycle-1": 1, "cycle-2": 2}
    expected = [found.scores("tiny", kind, cycles[revision])["test"]["test"] for kind, revision in wanted]  # type: ignore[arg-type]
    # sentence-transformers pads: pairs whose scores differ by rounding change places, which moves rho by 4e-5 or so
    assert scores == pytest.approx(expected, abs=3e-4)
    for first, second in (bi, cross, not_kept, in_one[:2], in_one[2:]):  # sentence-transformers' way and transformers'
        assert first == pytest.approx(second, abs=1e-5)
    assert cross[0] != not_kept[0]


def test_only_the_encoder_and_its_card_are_there(hub: HubServer, run: Path, published: str) -> None:
    for kind in KINDS:
        folder = hub.root / "models/owner" / f"tickets-{kind}"
        local = {path.relative_to(run / "tiny" / kind) for path in (run / "tiny" / kind).rglob("*") if path.is_file()}
        there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        assert there == {*local, Path("README.md"), Path(".gitattributes")}
        assert Path("adapter/adapter_model.safetensors") in there
        for path in there - {Path("tokenizer.json")}:
            assert str(run.parent.parent).encode() not in (folder / path).read_bytes(), path
        adapter = json.loads((folder / "adapter/adapter_config.json").read_text(encoding="utf-8"))
        assert adapter["base_model_name_or_path"] == "tiny"


def test_a_card_says_what_the_run_found(hub: HubServer, run: Path, published: str) -> None:
    for kind, pipeline in (("bi-encoder", "sentence-similarity"), ("cross-encoder", "text-ranking")):
        card = ModelCard.load(hub.root / "models/owner" / f"tickets-{kind}" / "README.md")
        final = results_of(run)["final"]["tiny"][kind]
        assert card.data.pipeline_tag == pipeline
        assert (card.data.library_name, card.data.license) == ("sentence-transformers", "mit")
        assert (card.data.base_model, card.data.datasets) == (None, None)  # local ones have no place on the Hub
        (result,) = card.data.eval_results or []
        assert (result.dataset_name, result.metric_type, result.metric_value) == (
            "test",
            "spearmanr",
            final["test"]["test"],
        )
        assert f"| kept: cycle {final['cycle']} | {kind} | {100 * final['dev']:.2f} |" in card.text
        health = results_of(run)["health"]["cycles"][final["cycle"] - 1]["tiny"][kind]
        assert card.text.count("## Scores\n\nSpearman × 100 of") == card.text.count("## Health\n\nHealth is") == 1
        assert f"| kept: cycle {final['cycle']} | {kind} | {100 * health['agreement']:z.2f} |" in card.text
        assert "Gold scores of the dev set chose checkpoints and cycles." in card.text
        both = results_of(run)["overlap"]["test"]["test"]["in_pool"]
        assert 0 < both < 96
        assert f"The pool holds {both} of the 80 pairs of the test set test, in either order, though" in card.text
        assert "unsupervised" not in card.text.partition("## Citation")[0]


def test_a_second_upload_changes_nothing_and_sends_nothing(
    hub: HubServer, run: Path, tiny: Path, published: str, tmp_path: Path
) -> None:
    """Nor did the command that repeated the torn upload send weights again; the main job of a finished run publishes
    too, and where it does so may change."""
    sent = [request for request in hub.requests if request.startswith("PUT ")]
    assert len(sent) == len(set(sent))
    before = list(hub.shelf.commits)
    done = python(
        JOB, *training(tiny, run), "--hub.repo_id", "owner/tickets", "--hub.license", "mit", **signed_in(hub, tmp_path)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Published: {hub.url}/owner/tickets-cross-encoder" in done.stdout
    assert hub.shelf.commits == before and uploads(hub) == len(sent)


def test_both_encoders_in_one_private_repository(
    hub: HubServer, run: Path, both: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    assert (both.returncode, both.stdout) == (0, f"Published: {hub.url}/owner/both\n"), both.stderr
    assert hub.shelf.private == {"owner/both"}

    # Weights of an earlier upload, in another file, would be loaded beside the new ones; what else is there stays.
    stale = hub.root / "models/owner/both/bi-encoder/pytorch_model.bin"
    foreign = [
        stale.parents[1] / name for name in ("their/model.safetensors", "openvino/openvino_model.bin", "run.bin")
    ]
    for path in (stale, *foreign):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    hub.shelf.private.clear()
    calls = [[str(run), *IN_ONE, "--hub.private", "true"], [str(run), *IN_ONE]]
    private, public = pushes([("hf_write", arguments) for arguments in calls], **signed_in(hub, tmp_path))
    refused(private, "hub.private: owner/both is there and public; make it private on the Hub first")
    assert public.returncode == 0, public.stderr
    deleted = "Deleted from owner/both, because the upload takes its place: bi-encoder/pytorch_model.bin"
    assert public.stdout.splitlines() == [deleted, f"Published: {hub.url}/owner/both"]
    assert not stale.exists() and all(path.exists() for path in foreign)


def test_several_plms_have_repositories_of_their_own(hub: HubServer, run: Path, published: str, tmp_path: Path) -> None:
    """As many as the run has. The connection breaks once in the middle of a large file, and the client goes on.

    Scores on sets of the Hub go along as its leaderboards read them; those of an earlier upload go, others' stay.
    """
    twins = tmp_path / "twins"
    shutil.copytree(run, twins)
    shutil.copytree(twins / "tiny", twins / "other")
    found = results_of(run)
    for part in (found["health"]["start"], *found["health"]["cycles"]):
        part["other"] = part["tiny"]
    for part in (found["start"], found["final"], *found["cycles"]):
        for entry in part["tiny"].values():
            entry["test"] = {"sickr": 0.75, "avg": 0.75}
        part["other"] = part["tiny"]
    found["overlap"]["test"] = {"sickr": {"name": "sickr", "from_hub": True, "pairs": 9, "in_pool": 3}}
    (twins / "results.json").write_text(json.dumps(found), encoding="utf-8")
    manifest = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    manifest["config"]["data"]["test"] = ["sickr"]
    manifest["data_commits"] = {"mteb/sickr-sts": "c" * 40}
    manifest["config"]["models"].append({**manifest["config"]["models"][0], "name": "other"})
    manifest["models"]["other"] = manifest["models"]["tiny"]
    (twins / "run.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")

    names = [f"owner/twins-{name}-{kind}" for name in ("tiny", "other") for kind in KINDS]
    scores = hub.root / "models" / names[0] / ".eval_results"
    scores.mkdir(parents=True)
    for name in ("STS12", "SICK-R-PL"):
        (scores / f"{name}.yaml").write_text("[]", encoding="utf-8")
    hub.shelf.objects.clear()
    hub.resets["/lfs/"] = 1
    done = push(str(twins), "--hub.repo_id", "owner/twins", **signed_in(hub, tmp_path / "home"))
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.resets["/lfs/"] == 0
    assert done.stdout.split()[1::2] == [f"{hub.url}/{name}" for name in names]
    card = (hub.root / "models" / names[0] / "README.md").read_text(encoding="utf-8")
    assert "Labels were combined with those of other (mutual distillation)." in card
    assert {path.name for path in scores.iterdir()} == {"SICK-R.yaml", "SICK-R-PL.yaml"}
    (entry,) = parse_eval_result_entries(yaml.safe_load((scores / "SICK-R.yaml").read_text(encoding="utf-8")))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("mteb/sickr-sts", "SICK-R", 75.0)
    assert entry.dataset_revision == "c" * 40
    assert entry.notes is not None and "bi-encoder" in entry.notes
    assert "3 of the pairs were among the training pairs, without their gold scores" in entry.notes


def test_large_files_go_through_xet(hub: HubServer, run: Path, published: str, tmp_path: Path) -> None:
    """As with hf_xet, which pip installs: the store takes the weights, the Hub their names, and neither twice.

    A commit that the Hub fails to take is sent again.
    """
    with_xet = signed_in(hub, tmp_path / "home") | {"HF_HUB_DISABLE_XET": "0"}
    arguments = [str(run), "--hub.repo_id", "owner/xet", "--hub.one_repository", "true"]
    hub.refusals = {
        "POST /api/models/owner/xet/preupload": iter([LIMIT]),
        "POST /api/models/owner/xet/commit": iter([FAULT]),
    }
    before = uploads(hub)
    done, again = pushes([("hf_write", arguments)] * 2, **with_xet)
    assert (done.returncode, done.stdout) == (0, f"Published: {hub.url}/owner/xet\n"), done.stderr
    assert done.stderr.strip() == "Rate limited. Waiting 56.0s before retry [Retry 1/5]."
    weights = [run / "tiny" / kind / "model.safetensors" for kind in KINDS]
    assert hub.xet.hashes().keys() >= {hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}
    assert again.returncode == 0, again.stderr
    assert uploads(hub) == before and hub.shelf.commits.count("owner/xet@main") == 1

    hub.requests.clear()
    (printed,) = load(hub, tmp_path / "through-xet", run, [["card", "owner/xet", "main"]], HF_HUB_DISABLE_XET="0")
    assert sum("/xet-read-token/" in request for request in hub.requests) > 0
    assert printed[::2] == pytest.approx(printed[1::2], abs=1e-5) and len(printed) == 4


# ---------------------------------------------------------------- what goes wrong


def test_a_hub_that_takes_no_more_is_named_with_the_mend(
    hub: HubServer, run: Path, published: str, tmp_path: Path
) -> None:
    """Wherever an upload ends: in a commit, or where hf_xet asks for its store."""
    limited = "was not published: the Hub takes no more requests for now (429); try again in 55 seconds; "
    faulty = "was not published: the Hub has a fault of its own (503); try again later; "
    cases = [
        ("POST /api/models/owner/one/commit", FAULT, faulty),
        ("POST /api/models/owner/two/commit", LIMIT, limited),
        # in hf_xet's own words, which say no time
        ("GET /api/models/owner/three/xet-write-token", LIMIT, "was not published: Rate limited: "),
    ]
    before = list(hub.shelf.commits)
    hub.refusals = {beginning: repeat(refusal) for beginning, refusal, _ in cases}
    names = [beginning.split("/")[4] for beginning, *_ in cases]
    calls = [[str(run), "--hub.repo_id", f"owner/{name}", "--hub.one_repository", "true"] for name in names]
    environment = signed_in(hub, tmp_path / "home") | {"HF_HUB_DISABLE_XET": "0", **IMPATIENT_XET}
    every = pushes([("hf_write", arguments) for arguments in calls], **environment)
    for name, (_, refusal, sentence), done in zip(names, cases, every, strict=True):
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and last.startswith(f"error: hub.repo_id: owner/{name} {sentence}"), done.stderr
        assert f"the run in {run} is whole, and this publishes it: te-trainer push {run} --hub.repo_id" in last
        assert str(refusal.status) in last and "Traceback" not in done.stderr
    assert hub.shelf.commits == before


def test_what_the_hub_refuses_is_said_in_one_line(hub: HubServer, run: Path, published: str, tmp_path: Path) -> None:
    before = list(hub.shelf.commits)
    here = [str(run), "--hub.repo_id", "owner/tickets"]
    cases = [
        ("", here, "there is no token for the Hub"),
        ("hf_wrong", here, "the Hub refuses the token (401)"),
        ("hf_read", here, "the token may not write there (403)"),
        ("hf_write", [str(run), "--hub.repo_id", "them/tickets"], "the token may not write there (403)"),
        ("hf_write", [str(run), "--hub.repo_id", "owner/unlicensed", "--hub.license", "mine"], "hub.license: the Hub"),
    ]
    done = pushes([(token, arguments) for token, arguments, _ in cases], **signed_in(hub, tmp_path))
    for process, (_, arguments, part) in zip(done, cases, strict=True):
        refused(process, "hub.license: " if "mine" in arguments else "hub.repo_id: ", part)
    assert f"knows no license 'mine'; write one as {hub.url}/docs/" in done[-1].stderr
    assert done[-1].stderr.endswith(f"publishes it: te-trainer push {run} --hub.repo_id owner/unlicensed\n")
    assert hub.shelf.commits == before and not list((hub.root / "models/owner").glob("unlicensed*"))


def test_what_is_not_whole_is_refused(run: Path, tmp_path: Path) -> None:
    def sentence(root: Path, **keys: Any) -> str:
        with pytest.raises(InputError) as caught:
            publish(root, HubConfig("owner/tickets", **keys))
        return str(caught.value)

    assert sentence(tmp_path) == f"{tmp_path} holds no run.yaml; name the output folder of a run"
    # these tests' own process is told to be offline
    assert sentence(run) == "hub.repo_id: HF_HUB_OFFLINE is set, so nothing can be published; unset it"
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "cycle-1/tiny/bi-encoder")
    assert sentence(copy, branch_per_cycle=True).startswith(f"hub.branch_per_cycle: {copy}/cycle-1/tiny/bi-encoder")
    (copy / "results.json").write_text('{"start": {}, "final": {}}', encoding="utf-8")
    assert sentence(copy).startswith(f"{copy} holds no run of distillation")
    (copy / "results.json").write_text('{"models": []}', encoding="utf-8")
    assert sentence(copy).startswith(f"{copy} holds no run of distillation")
    (copy / "results.json").unlink()
    assert sentence(copy) == f"{copy} holds a run that is not finished; the command that began it continues"


@pytest.mark.parametrize("names", [["x" * 90, "tiny"], ["a b", "a-b"], ["é", "tiny"]])
def test_plms_whose_names_no_repositories_can_have_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="cannot name a repository, or names two; choose another NAME, or other names"):
        check_hub(HubConfig("owner/tickets"), names, KINDS, ask=False)


def test_what_a_repository_cannot_be_called_is_replaced_in_its_name() -> None:
    uploads = _uploads(HubConfig("owner/tickets", one_repository=True), dict.fromkeys(["a - b", "c"], KINDS))
    assert [upload.repo_id for upload in uploads] == ["owner/tickets-a-b", "owner/tickets-c"]


def test_a_hub_that_is_gone_ends_the_command_with_one_line(run: Path, tmp_path: Path) -> None:
    with HubServer(tmp_path / "nothing") as server:
        environment = signed_in(server, tmp_path / "home")
    done = push(str(run), "--hub.repo_id", "owner/tickets", **environment)
    refused(
        done,
        "tickets-bi-encoder was not published: [Errno 111] Connection refused",
        f"te-trainer push {run} --hub.repo_id",
    )


def test_a_run_does_not_begin_that_could_not_be_published(hub: HubServer, tiny: Path, tmp_path: Path) -> None:
    arguments = tiny_arguments(tiny, tmp_path / "run", "--hub.repo_id", "owner/tickets")
    calls = [("hf_wrong", arguments), ("hf_read", arguments)]
    wrong, read = run_commands("trans_encoder.py", calls, **signed_in(hub, tmp_path / "home"))
    refused(wrong, "refuses the token (401)")
    refused(read, "may only read")
    assert not (tmp_path / "run").exists()


def test_the_hub_is_asked_before_a_run_what_it_would_refuse_at_its_end(
    hub: HubServer, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = {"hf_member": Account("owner", "write", ("Team",)), "hf_fine": Account("owner", "fineGrained", ())}
    monkeypatch.setattr(hub.shelf, "accounts", TOKENS | member)
    no_owner = "hub.repo_id: the token may not write to 'them'; name owner or Team as owner, or take a token that may"
    public = "hub.private: owner/tickets-bi-encoder is there and public; make it private on the Hub first"
    licenses = f"{hub.url}/docs/hub/repositories-licenses"
    unknown = f"hub.license: the Hub knows no license 'mine'; write one as {licenses} has it, or leave it out"
    cases = [
        ("hf_member", {"repo_id": "them/tickets"}, no_owner),
        ("hf_member", {"repo_id": "team/tickets", "private": True, "license": "mit"}, ""),
        ("hf_fine", {"repo_id": "them/tickets"}, ""),
        ("hf_write", {"repo_id": "them/tickets"}, ""),  # of a Hub that names no organisations
        ("hf_write", {"repo_id": "owner/tickets", "license": "mine"}, unknown),
        ("hf_write", {"repo_id": "owner/tickets", "private": True}, public),
        ("hf_write", {"repo_id": "owner/tickets", "private": False}, ""),
    ]
    calls = json.dumps([[token, keys] for token, keys, _ in cases])
    done = python("-c", CHECKING, calls, **signed_in(hub, tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [sentence for *_, sentence in cases]


# ---------------------------------------------------------------- cards of other runs


def card_of(run: FinishedRun, license: str | None = None) -> ModelCard:
    return ModelCard(model_card(run, Upload("me/x", "tiny", ["bi-encoder"], False), license))


def test_a_card_names_the_hubs_models_and_data_sets(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = FinishedRun.load(run)
    manifest = json.loads(json.dumps(found.manifest))
    manifest["config"]["models"][0] |= {"bi_encoder": "princeton-nlp/start", "cross_encoder": "bert-base-uncased"}
    manifest["models"]["tiny"] = {"bi_encoder": "a" * 40, "cross_encoder": "b" * 40}
    manifest["data_commits"] = {"mteb/stsbenchmark-sts": "c" * 40, "owner/pairs": "d" * 40}
    manifest["config"]["data"] |= {"test": ["stsb", "sts12"], "dev": "stsb", "pool": ["stsb", "owner/pairs:small"]}
    in_pool = [("stsb", 3), ("stsb", 9), ("sts12", 0)]
    entries = [{"name": name, "from_hub": True, "pairs": 9, "in_pool": count} for name, count in in_pool]
    overlap = {"dev": entries[0], "test": {entry["name"]: entry for entry in entries[1:]}}
    pool = replace(found.pool, sources=[SourceCount("stsb"), SourceCount("owner/pairs:small")])
    scores = {"stsb": 0.75, "sts12": 0.5, "avg": 0.625}
    found.results["final"]["tiny"]["bi-encoder"]["test"] = scores
    found = replace(found, manifest=manifest, pool=pool, results=found.results | {"overlap": overlap})
    card = card_of(found)
    assert (card.data.base_model, card.data.base_model_relation) == (["princeton-nlp/start"], "finetune")
    _link_files(tmp_path, found, Upload("me/x", "tiny", ["bi-encoder"], False))
    adapter = json.loads((tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("princeton-nlp/start", "a" * 40)
    assert f"It started from `princeton-nlp/start` at revision `{'a' * 40}`; these are" in card.text
    assert card.data.datasets == ["mteb/stsbenchmark-sts", "owner/pairs"]
    described = [(result.dataset_type, result.dataset_split, result.metric_value) for result in card.data.eval_results]
    assert described == [("mteb/stsbenchmark-sts", "test", 0.75), ("mteb/sts12-sts", "test", 0.5)]
    both = Upload("me/x", "tiny", ["bi-encoder"], True)
    files = eval_result_files(gold_scores(found, both), "spearman", True)
    assert list(files) == [".eval_results/STSBenchmark_bi-encoder.yaml", ".eval_results/STS12_bi-encoder.yaml"]
    assert not eval_result_files(gold_scores(found, both), "roc_auc", True)
    pairs = "3 of the 9 pairs of the dev set stsb, 9 of the 9 pairs of the test set stsb"
    assert f"The pool holds {pairs}, in either order, though" in card.text
    assert "The encoders have seen these" in card.text and "were among" in " ".join(files.values())
    # the start is kept, and it is what step 0 made
    found.results["final"]["tiny"]["bi-encoder"]["cycle"] = 0
    files = eval_result_files(gold_scores(found, both), "spearman", True)
    assert "were among" not in "".join(files.values()) and "have seen these" not in card_of(found).text
    assert found.start_path("tiny") == f"princeton-nlp/start@{'a' * 40}"
    manifest["step0"] = {"contrastive": {}}
    assert found.start_path("tiny") == str(run / "start" / "tiny" / "bi-encoder")
    card = card_of(found)
    assert (
        "of which step 0, contrastive training on sentences of the run's own texts, made a bi-encoder; these are the"
        in card.text
    )
    assert "the weights of step 0: no cycle's encoder was kept" in card.text and "have seen these" in card.text
    # sentences of its own
    monkeypatch.setattr(FinishedRun, "step0_sources", [SourceCount("owner/pairs:all"), SourceCount("/texts/x.txt")])
    card = card_of(found)
    assert "on sentences of owner/pairs:all, x.txt, made a bi-encoder" in card.text and "seen these" not in card.text
    assert "No licence was named" in card.text


def test_a_local_file_is_published_as_no_data_set_of_the_hub(run: Path) -> None:
    """A benchmark that was read from data.dir is what the user put there, in a pool and in a test set."""
    found = FinishedRun.load(run)
    manifest = json.loads(json.dumps(found.manifest))
    # what was read counts, not what is there when the card is made
    manifest["config"]["data"] |= {"test": ["sickr"], "dir": None, "pool": ["sickr"]}
    pool = replace(found.pool, sources=[SourceCount("sickr", sha256="0" * 64)])
    found.results["final"]["tiny"]["bi-encoder"]["test"] = {"sickr": 0.75, "avg": 0.75}
    entry = {"name": "sickr", "from_hub": False, "pairs": 9, "in_pool": 0}
    found.results["overlap"] = {"test": {"sickr": entry}}
    card = card_of(replace(found, manifest=manifest, pool=pool))
    assert "mteb/" not in str(card) and card.data.datasets is None
    (result,) = card.data.eval_results or []
    assert (result.dataset_type, result.dataset_name) == ("unknown", "sickr (local file)")
    assert "No pair of a set with gold scores is in the pool" in card.text and "The pool holds" not in card.text


def test_names_neither_break_a_card_nor_mean_anything_in_it(run: Path) -> None:
    found = FinishedRun.load(run)
    manifest = json.loads(json.dumps(found.manifest))
    test, other, start = 'a: "b" | #{{ 7 * 7 }} <b>', "*kept* [x](y) | `z`", "start`|<i>"
    manifest["config"]["models"][0] |= {"bi_encoder": f"/home/{start}", "cross_encoder": f"/home/{start}"}
    results = found.results
    results["overlap"] = {"test": {test: {"name": test, "from_hub": False, "pairs": 9, "in_pool": 2}}}
    for part in (results["start"], results["final"], *results["cycles"]):
        for entry in part["tiny"].values():
            entry["test"] = {test: 0.5, "avg": 0.5}
        part[other] = part["tiny"]
    pool = replace(found.pool, sources=[SourceCount("/home/_me_/- | [p](q)\x1b.tsv", sha256="0" * 64)])
    card = card_of(replace(found, manifest=manifest, pool=pool), "other: 'mine'\n---\n")
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, card.data.license) == (test, "other: 'mine'\n---\n")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(card.text)
    assert escape(test) in html and escape(f"2 of the 9 pairs of the test set {test}") in html
    assert f"combined with those of {escape(other)} (mutual" in html
    assert f"a local checkpoint, <code>{escape(start)}</code>" in html
    assert escape("- | [p](q)\\x1b.tsv") in html and "/home" not in card.text
    tables = re.findall(r"<table>(.*?)</table>", html, re.DOTALL)
    assert len(tables) == 2
    for table in tables:
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        assert len(rows) > 3 and len({row.count("<t") for row in rows}) == 1


def test_nothing_but_an_encoder_is_published(
    hub: HubServer, run: Path, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "tiny/bi-encoder/.env").write_text("TOKEN=secret", encoding="utf-8")
    (copy / "tiny/bi-encoder/README.md").write_text("mine", encoding="utf-8")
    environment = signed_in(hub, tmp_path / "home")
    (tmp_path / "secret.json").write_text("{}", encoding="utf-8")
    # an adapter that was trained on a teacher's weights is for nothing that is published
    adapter = copy / "tiny" / "bi-encoder" / "adapter"
    begun = (copy / "run.yaml").read_text(encoding="utf-8")
    (copy / "run.yaml").write_text(begun.replace("init: refresh", "init: sequential"), encoding="utf-8")
    # what an earlier upload may have left, of which a loader would take the adapter
    there = hub.root / "models/owner/clean-bi-encoder"
    stale = ["adapter_config.json", "adapter_model.safetensors", "adapter/adapter_config.json"]
    for name in stale:
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text("{}", encoding="utf-8")
    # an organisation may want its new repositories private
    monkeypatch.setattr(hub.shelf, "private_by_default", True)
    first = push(str(copy), "--hub.repo_id", "owner/clean", **environment)
    assert first.returncode == 0, first.stderr
    assert "owner/clean-cross-encoder" in hub.shelf.private
    assert f"Not published, because it is no file of a checkpoint: {copy}/tiny/bi-encoder/.env" in first.stdout
    assert f"Not published, because what it was trained on is not published: {adapter}, " in first.stdout
    assert not any((there / name).exists() for name in stale)
    assert not (there / ".env").exists() and (there / "model.safetensors").exists()
    assert (copy / "tiny/bi-encoder/README.md").read_text(encoding="utf-8") == "mine"
    (copy / "tiny/cross-encoder/vocab.json").symlink_to(tmp_path / "secret.json")
    before = list(hub.shelf.commits)
    with pytest.raises(InputError, match=r"cross-encoder/vocab.json is a link to .*secret.json, and nothing"):
        publish(copy, HubConfig("owner/linked"))
    assert hub.shelf.commits == before


def test_a_card_calls_unsupervised_only_what_no_gold_score_chose(run: Path) -> None:
    found = FinishedRun.load(run)
    manifest = json.loads(json.dumps(found.manifest))
    manifest["config"]["distillation"]["selection"] = "last"
    manifest["config"]["data"] |= {"test": [], "dev": None}
    parts = [found.results["start"], found.results["final"], *found.results["cycles"]]
    for scores in (part["tiny"] for part in parts):
        for entry in scores.values():
            entry.pop("dev", None)
            entry.pop("test", None)
    card = card_of(replace(found, manifest=manifest), "mit")
    assert "No gold score chose anything in this run, so the distillation was unsupervised" in card.text
    assert "How the starting checkpoints were trained is another matter." in card.text
    assert "No test set with gold scores was given to the run" in card.text
    assert card.data.eval_results is None and card.data.metrics is None
    # where nothing was scored, what is known without gold takes the place of a table without numbers
    assert "## Scores" not in card.text and "Spearman × 100" not in card.text
    start = found.results["health"]["start"]["tiny"]["bi-encoder"]
    (row,) = re.findall(r"^\| start \| bi-encoder \|.*$", card.text, re.MULTILINE)
    assert f"| {start['std']:.3f} |" in row


@pytest.mark.parametrize(("pooling", "prompt"), [("cls", ""), ("last", 'say "so": '), ("mean", "\N{EYES} query: ")])
def test_the_code_in_a_card_pools_as_the_encoder_does(run: Path, tmp_path: Path, pooling: str, prompt: str) -> None:
    """Both ways of a card give the same number, whatever the pooling and the prompt."""
    from te_trainer.models import BiEncoder

    source = FinishedRun.load(run)
    copy = tmp_path / "run"
    encoder = BiEncoder.from_pretrained(str(run / "tiny/bi-encoder"), pooling=pooling, prompt=prompt)  # type: ignore[arg-type]
    encoder.save_pretrained(copy / "tiny/bi-encoder")
    text = card_of(replace(source, root=copy)).text.replace('"me/x"', f'"{copy / "tiny/bi-encoder"}"')
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(block, {})
    first, second = (float(line) for line in printed.getvalue().split())
    assert first == pytest.approx(second, abs=1e-5)
