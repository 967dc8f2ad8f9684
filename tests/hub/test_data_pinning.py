"""The name of a data set of the Hub means one commit in a run, whatever is pushed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import process_environment
from datasets import Dataset
from server import HubServer

pytestmark = pytest.mark.slow

# Runs as a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.
READING = """
import json, sys
from pathlib import Path
from te_trainer.runs.quiet import quiet_libraries
quiet_libraries()
import yaml
from te_trainer.runs.commits import hub_commits, pin_begun, pin_commits
from te_trainer.data import load_gold

root = Path(sys.argv[1])
sources = [(name, None) for name in json.loads(sys.argv[2])]
answers = {}
if (root / "run.yaml").exists():
    pin_begun(yaml.safe_load((root / "run.yaml").read_text()))
pin_commits(sources=sources)
for name, _ in sources:
    try:
        gold = load_gold(name, "test", {})
        answers[name] = [gold.name, gold.sentence1[0]]
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
answers |= hub_commits(sources=sources)
(root / "run.yaml").write_text(yaml.safe_dump({"config": {}, "versions": {}, **hub_commits(sources=sources)}))
print(json.dumps(answers))
"""


def write(folder: Path, word: str) -> Path:
    folder.mkdir(parents=True)
    rows = {f"sentence{side}": [f"{word} {number}" for number in range(3)] for side in (1, 2)}
    Dataset.from_dict(rows | {"score": [0.0, 1.0, 2.0]}).to_parquet(folder / "test.parquet")
    return folder


def ask(url: str, home: Path, root: Path, names: list[str]) -> dict[str, Any]:
    root.mkdir(exist_ok=True)
    environment = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READING, str(root), json.dumps(names)],
        env=process_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write(tmp_path / "hub/datasets/owner/scored", "before")
    write(tmp_path / "hub/branches/owner/scored/v1.0", "branch")
    with HubServer(tmp_path / "hub") as server:
        yield server


def test_a_run_keeps_to_the_commits_of_its_data_sets(hub: HubServer, tmp_path: Path) -> None:
    commit = hub.commit("datasets", "owner/scored")
    names = ["owner/scored", "owner/scored@v1.0"]
    begun = ask(hub.url, tmp_path / "home", tmp_path / "run", names)
    assert begun["owner/scored"] == ["scored", "before 0"]
    assert begun["owner/scored@v1.0"] == ["scored@v1.0", "branch 0"]
    assert begun["data_commits"]["owner/scored"] == commit

    hub.push("owner/scored", write(tmp_path / "pushed", "after"), kind="datasets")
    assert hub.commit("datasets", "owner/scored") != commit
    continued = ask(hub.url, tmp_path / "again", tmp_path / "run", names[:1])
    assert continued["owner/scored"] == begun["owner/scored"]
    by_commit = f"owner/scored@{commit}"
    other = ask(hub.url, tmp_path / "empty", tmp_path / "other", ["owner/scored", by_commit, "owner/scored@v2"])
    assert other["owner/scored"][1] == "after 0"
    assert other[by_commit][1] == "before 0"
    assert other["owner/scored@v2"].startswith("InputError: owner/scored@v2: "), other

    # Without the Hub, the cache serves with the run's commit, and with no other.
    (tmp_path / "hub/datasets/owner/scored").rename(tmp_path / "gone")
    unknown = f"owner/scored@{'1' * 40}"
    cached = ask(hub.url, tmp_path / "again", tmp_path / "run", ["owner/scored", unknown])
    assert cached["owner/scored"] == begun["owner/scored"]
    assert cached[unknown].startswith(f"InputError: {unknown}: the Hub does not give revision {'1' * 40}")
