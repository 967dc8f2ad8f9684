"""A Hub that takes no more requests for a while, or fails: what its client waits for, and what our user reads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from clients import ask, is_hub_client_before
from conftest import sample_pairs
from datasets import Dataset
from server import HubServer
from writing import Account, Refusal

from te_trainer.models import BiEncoder

pytestmark = pytest.mark.slow

# As the Hub sends them; Retry-After is what other servers send.
LIMIT = Refusal(
    429, "Too many", **{"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
)
RETRY_AFTER = Refusal(429, "Too many", **{"Retry-After": "7"})
BARE_LIMIT = Refusal(429, "Too many", **{"RateLimit": '"api";r=3;t=55'})
FAULT = Refusal(503, "Service unavailable")

TOKEN = ", with a token in HF_TOKEN, for which the Hub allows more"
LIMITED = "the Hub takes no more requests for now (429); try again in"


@pytest.fixture(scope="module")
def hub(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("hub")
    plain = root / "models/owner/patient"
    BiEncoder.from_pretrained(str(tiny)).save_pretrained(plain)
    for name in ("asked", "head", "file", "broken"):
        shutil.copytree(plain, root / "models/owner" / name)
    for name in ("pairs", "listed", "unknown"):
        (root / "datasets/owner" / name).mkdir(parents=True)
        one, two = zip(*sample_pairs(3), strict=True)
        rows = Dataset.from_dict({"sentence1": one, "sentence2": two})
        rows.to_parquet(root / "datasets/owner" / name / "train.parquet")
    with HubServer(root) as server:
        server.shelf.accounts["hf_read"] = Account("owner", "read")
        yield server


@pytest.fixture(scope="module")
def read(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process reads from the Hub, whose client does not really wait here."""
    hub.refusals = {
        "GET /api/models/owner/patient/tree": iter([FAULT, LIMIT]),
        "HEAD /owner/patient/resolve": iter([LIMIT, FAULT]),
        "GET /owner/patient/resolve": iter([RETRY_AFTER]),
        "GET /api/models/owner/asked": repeat(LIMIT),
        "HEAD /owner/head/resolve": repeat(FAULT),
        "GET /owner/file/resolve": repeat(RETRY_AFTER),
        "GET /owner/broken/resolve": iter([FAULT]),
        "GET /api/datasets/owner/listed": repeat(BARE_LIMIT),
        "GET /api/datasets/owner/unknown": iter([LIMIT]),
    }
    root = str(tmp_path_factory.mktemp("begun"))
    calls = {
        "patient": ["bi", "owner/patient"],
        "asked": ["bi", "owner/asked"],
        "head": ["bi", "owner/head"],
        "file": ["bi", "owner/file"],
        "broken": ["bi", "owner/broken"],
        "listed": ["pool", "owner/listed"],
        "address": ["pool", "hf://datasets/owner/listed/*.parquet"],
        "begin": ["begin", root, ["owner/unknown"]],
        "begin again": ["begin", root, ["owner/unknown"]],
        "token": ["token", "hf_read"],
        "asked with it": ["check_bi", "owner/asked"],
    }
    return ask(hub.url, tmp_path_factory.mktemp("read"), calls)


@pytest.mark.skipif(is_hub_client_before("2.1"), reason="older clients ask once where the Hub has a fault")
def test_a_limit_that_ends_is_waited_for_and_said(read: dict[str, Any]) -> None:
    assert read["patient"]["pooling"] == "cls"
    waits = [line for line in read["stderr"].splitlines() if "Rate limited." in line]
    assert "Rate limited. Waiting 56.0s before retry" in waits[0]
    assert any("Waiting 8.0s before retry" in line for line in waits)
    # nothing is said of a fault that ended after a second
    assert "503" not in read["stderr"]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("asked", f"model owner/asked: no model here, and {LIMITED} 55 seconds{TOKEN}"),
        ("head", "model owner/head: no model here, and the Hub has a fault of its own (503); try again later"),
        ("file", f"model owner/file: no model here, and {LIMITED} 7 seconds{TOKEN}"),
        ("broken", "model owner/broken: no model here, and the Hub has a fault of its own (503); try again later"),
        ("listed", f"owner/listed: not a file here, and not to be had from the Hub ({LIMITED} some minutes{TOKEN})"),
        (
            "address",
            f"hf://datasets/owner/listed/*.parquet: not to be had from this address ({LIMITED} some minutes{TOKEN})",
        ),
        # the next request would have read a commit that nobody had written down
        ("begin", f"owner/unknown: not a file here, and {LIMITED} 55 seconds{TOKEN}"),
    ],
)
def test_what_the_client_gives_up_is_one_sentence(read: dict[str, Any], key: str, sentence: str) -> None:
    assert read[key] == f"InputError: {sentence}"


def test_the_commit_is_known_once_the_limit_ends(read: dict[str, Any], hub: HubServer) -> None:
    assert read["begin again"] == {"owner/unknown": hub.commit("datasets", "owner/unknown")}


def test_who_has_a_token_is_told_of_none(read: dict[str, Any]) -> None:
    assert read["asked with it"] == f"InputError: model owner/asked: no model here, and {LIMITED} 55 seconds"
