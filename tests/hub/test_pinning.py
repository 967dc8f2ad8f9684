"""A Hub model's name means one commit: in a process, on all ranks, in all stages of a run, whenever it is continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clients import JOB, ask, is_hub_client_before, online, python
from conftest import save_tiny, tiny_arguments
from datasets import Dataset
from forked import run_forked
from safetensors.torch import load_file
from server import HubServer, Repository
from transformers import AutoModel, AutoTokenizer

from te_trainer.config.schema import ModelConfig
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.runs.finished import FinishedRun

pytestmark = pytest.mark.slow

# What one model's small files cost at most where the cache holds none: the commit, the list of files, and two requests
# a file (config.json, two of the tokenizer, four of sentence-transformers).
LOOK_UP, LISTING, PER_FILE = 1, 1, 2
SMALL_FILES, WEIGHT_FILES = 7, 1


def requests_of(server: HubServer, key: str) -> list[str]:
    """What was asked for from a call's mark to the next one's."""
    begin = server.requests.index(f"GET /mark/{key}") + 1
    end = next((at for at in range(begin, len(server.requests)) if "/mark/" in server.requests[at]), None)
    return server.requests[begin:end]


def total(folder: Path) -> float:
    """The sum that tells a tiny model from another."""
    return float(AutoModel.from_pretrained(folder).embeddings.word_embeddings.weight.sum())


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is pushed: the same repository with other weights."""
    folder = save_tiny(tmp_path_factory.mktemp("later") / "tiny", seed=7)
    BiEncoder.from_pretrained(str(folder), pooling="mean").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tiny: Path, later: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    models = root / "models" / "owner"
    for name in ("mean", "many", "gated", "gone", "stages", "ranks"):
        BiEncoder.from_pretrained(str(tiny), pooling="mean").save_pretrained(models / name)
    torch.manual_seed(5)
    CrossEncoder.from_pretrained(str(tiny)).save_pretrained(models / "cross")
    shutil.copytree(later, root / "branches/owner/mean/v2")

    many = models / "many"
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx"):
        (many / name).write_bytes(b"large")
    for name in ("onnx/model.onnx", "onnx/config.json", "openvino/openvino_model.bin", "checkpoint-1/config.json"):
        (many / name).parent.mkdir(exist_ok=True)
        (many / name).write_bytes(b"large")

    shutil.copytree(tiny, models / "plain")
    for name in ("contrastive", "evaluated"):
        shutil.copytree(later, models / name)
        shutil.copytree(models / "mean", root / "branches/owner" / name / "before")
    torch_format = models / "torch-format"
    shutil.copytree(tiny, torch_format)
    torch.save(load_file(tiny / "model.safetensors"), torch_format / "pytorch_model.bin")
    (torch_format / "model.safetensors").unlink()
    (torch_format / "tf_model.h5").write_bytes(b"large")
    shards = models / "shards"
    AutoModel.from_pretrained(tiny).save_pretrained(shards, max_shard_size="50KB")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(shards)
    (shards / "pytorch_model.bin").write_bytes(b"large")
    weightless = models / "weightless"
    shutil.copytree(tiny, weightless)
    (weightless / "model.safetensors").rename(weightless / "unknown.h5")
    moved = models / "own-path"
    BiEncoder.from_pretrained(str(tiny), pooling="mean").save_pretrained(moved)
    (moved / "1_Pooling").rename(moved / "pooling")
    modules = json.loads((moved / "modules.json").read_text(encoding="utf-8"))
    modules[1]["path"] = "pooling"
    (moved / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubServer]:
    with HubServer(root) as server:
        server.gated = {"owner/gated"}
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(hub: HubServer, home: Path, tiny: Path) -> dict[str, Any]:
    """What one process finds with an empty cache."""
    commits = {name: hub.commit("models", f"owner/{name}") for name in ("mean", "gone")}
    calls = {
        "check": ["check_bi", "owner/mean"],
        "load": ["bi", "owner/mean"],
        "again": ["bi", "owner/mean"],
        "fingerprint": ["fingerprint", "owner/mean"],
        "cross": ["cross", "owner/cross"],
        "branch": ["bi", "owner/mean@v2"],
        "revision": ["bi", "owner/mean", {"revision": "v2"}],
        "main": ["fingerprint", "owner/mean@main"],
        "commit": ["bi", f"owner/mean@{commits['mean']}"],
        "unknown": ["bi", "owner/mean@v3"],
        "unknown-commit": ["bi", f"owner/mean@{'1' * 40}"],
        "empty": ["bi", "owner/mean@"],
        "twice": ["bi", "owner/mean@v2", {"revision": "main"}],
        "folder": ["bi", f"{tiny}@v2"],
        "folder-revision": ["bi", str(tiny), {"revision": "v2"}],
        "gated": ["bi", "owner/gated"],
        "absent": ["bi", "owner/absent"],
        "no-name": ["bi", "a/b/c"],
        "gone": ["pinned", "owner/gone", "2" * 40],
        "many": ["files", "owner/many"],
        "torch": ["files", "owner/torch-format"],
        "shards": ["bi", "owner/shards"],
        "shard-files": ["files", "owner/shards"],
        "weightless": ["check_bi", "owner/weightless"],
        "own-path": ["bi", "owner/own-path"],
    }
    return ask(hub.url, home, calls)


def test_a_check_and_a_load_ask_the_hub_once_for_each_file(hub: HubServer, first: dict[str, Any]) -> None:
    check = requests_of(hub, "check")
    assert len(check) <= LOOK_UP + LISTING + PER_FILE * (SMALL_FILES + WEIGHT_FILES), check
    assert sum("/resolve/main" in request for request in check) == 0
    assert first["load"]["pooling"] == "mean" and first["load"]["start"] == "owner/mean"
    for key in ("load", "again", "fingerprint", "main"):
        assert requests_of(hub, key) == [], key
    cross = requests_of(hub, "cross")
    assert len(cross) <= LOOK_UP + LISTING + PER_FILE * (3 + WEIGHT_FILES), cross


def test_a_cache_that_is_filled_costs_one_request(hub: HubServer, home: Path, first: dict[str, Any]) -> None:
    commit = hub.commit("models", "owner/mean")
    calls = {"warm": ["bi", "owner/mean"], "warm-commit": ["bi", f"owner/mean@{commit}"]}
    found = ask(hub.url, home, calls)
    assert found["warm"] == found["warm-commit"] == first["load"]
    assert requests_of(hub, "warm") == ["GET /api/models/owner/mean/revision/main"]
    assert requests_of(hub, "warm-commit") == []


def test_a_revision_is_a_branch_or_a_commit(first: dict[str, Any], hub: HubServer, tiny: Path, later: Path) -> None:
    assert first["branch"]["weight"] == first["revision"]["weight"] == pytest.approx(total(later), abs=1e-3)
    assert first["commit"] == first["load"] and first["load"]["weight"] == pytest.approx(total(tiny), abs=1e-3)
    assert total(tiny) != pytest.approx(total(later), abs=1)
    assert first["fingerprint"] == first["main"] == hub.commit("models", "owner/mean")


@pytest.mark.parametrize(
    ("key", "sentence"),
    {
        "unknown": "model owner/mean@v3: the repository has no branch, tag or commit 'v3'",
        "unknown-commit": f"model owner/mean@{'1' * 40}: the repository has no branch, tag or commit '{'1' * 40}'",
        "empty": "model owner/mean@: no revision after the '@'",
        "twice": "model owner/mean@v2@main: the repository has no branch, tag or commit 'v2@main'",
        "folder": "is a local folder, which has no revisions",
        "folder-revision": "is a local folder, which has no revisions; leave out '@v2'",
        "gated": "model owner/gated: the repository is gated; ask for access at ",
        "absent": "model owner/absent: no model here or on the Hub",
        "no-name": "model a/b/c: no model here or on the Hub",
        "gone": f"model owner/gone: its commit {'2' * 40}, which this run began with, is no longer on the Hub",
        "weightless": "model owner/weightless: it has no weights for PyTorch, model.safetensors or",
    }.items(),
)
def test_what_cannot_be_had_is_one_sentence(first: dict[str, Any], key: str, sentence: str) -> None:
    assert str(first[key]).startswith("InputError: model "), first[key]
    assert sentence in first[key] and "\n" not in first[key], first[key]


def test_weights_come_in_one_format_and_nothing_else_that_is_large(first: dict[str, Any], hub: HubServer) -> None:
    names = {"modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    assert set(first["many"]) == {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} | names
    assert [name for name in first["torch"] if "model" in name] == ["pytorch_model.bin"]
    weights = [name for name in first["shard-files"] if name.startswith(("model", "pytorch"))]
    assert len(weights) > 2 and "model.safetensors.index.json" in weights and "pytorch_model.bin" not in weights
    assert first["shards"]["weight"] == pytest.approx(first["load"]["weight"], abs=1e-3)
    assert not any("unknown.h5" in request for request in hub.requests)


def test_a_module_in_a_folder_of_another_name_is_read(first: dict[str, Any]) -> None:
    assert first["own-path"]["pooling"] == "mean"


@pytest.mark.skipif(is_hub_client_before("2.2"), reason="older clients refuse a commit that their cache holds in part")
def test_a_cache_that_another_library_filled_serves_without_the_hub(root: Path, tmp_path: Path) -> None:
    """`transformers` asks for no file of sentence-transformers, so such a cache does not know whether there are any."""
    with HubServer(root) as server:
        fills = {"plain": "transformers", "mean": "sentence-transformers", "cross": "transformers"}
        filled = ask(
            server.url, tmp_path, {name: ["fill", f"owner/{name}", library] for name, library in fills.items()}
        )
        assert [filled[name] for name in fills] == [None] * 3, filled
    calls = {
        name: ["bi" if name != "cross" else "cross", f"owner/{name}"] for name in ("plain", "mean", "cross", "many")
    }
    for offline, asked in (("0", {"plain": calls["plain"]}), ("1", calls)):
        found = ask(server.url, tmp_path, asked, HF_HUB_OFFLINE=offline)
        assert found["plain"]["pooling"] == "cls", found
        assert "model owner/plain: the Hub does not answer, and its cache does not know" in found["stderr"]
    assert found["mean"]["pooling"] == "mean", found
    assert found["cross"]["activation"] == "sigmoid", found
    assert found["many"].startswith("InputError: model owner/many: no model here"), found
    assert "model owner/mean" not in found["stderr"]


RANKS = """
import multiprocessing, os, socket, sys
from pathlib import Path

url, folder = sys.argv[1], Path(sys.argv[2])

def pin(rank, port):
    os.environ |= {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(folder / f"cache-{rank}")}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    from te_trainer.distributed import shutdown_process_group
    from te_trainer.models.model_names import locate
    from te_trainer.runs.commits import pin_commits

    pin_commits(["owner/ranks"])
    commit = Path(locate("owner/ranks"))
    (folder / f"commit-{rank}").write_text(f"{commit.name} {(commit / 'model.safetensors').is_file()}")
    shutdown_process_group()

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
ranks = [multiprocessing.get_context("fork").Process(target=pin, args=(rank, port)) for rank in range(2)]
for each in ranks:
    each.start()
for each in ranks:
    each.join()
sys.exit(max(each.exitcode for each in ranks))
"""


class PushingAtEachLookUp(list[str]):
    """Requests; between any two look-ups of the model's `main`, somebody pushes."""

    def __init__(self, server: HubServer, later: Path) -> None:
        super().__init__()
        self.server, self.later = server, later

    def append(self, request: str) -> None:
        if request in self and request.endswith("/api/models/owner/ranks/revision/main"):
            self.server.push("owner/ranks", self.later)
        super().append(request)


@pytest.mark.distributed
def test_ranks_with_caches_of_their_own_have_one_commit(root: Path, later: Path, tmp_path: Path) -> None:
    with HubServer(root) as server:
        server.requests = PushingAtEachLookUp(server, later)
        commit = server.commit("models", "owner/ranks")
        done = python("-c", RANKS, server.url, str(tmp_path))
        assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"commit-{rank}").read_text() for rank in (0, 1)] == [f"{commit} True"] * 2
    assert sum("/revision/main" in request for request in server.requests) == 1


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "tiny" / "bi-encoder" / "model.safetensors")


def test_a_push_in_the_middle_of_a_run_changes_nothing(
    root: Path, hub: HubServer, home: Path, later: Path, few_gold: list[str], tmp_path: Path
) -> None:
    """Each stage of the first run is a process of its own; the second one begins when the `main` has moved."""
    quick = ["--distillation.cycles", "1", "--distillation.students", "bi-encoder", "--data.max_pairs", "48"]
    quick += ["--bi_encoder.num_train_epochs", "1", *few_gold, "--data.test", "[]"]
    pushed, still = tmp_path / "pushed", tmp_path / "still"
    start = shutil.copytree(root / "models/owner/stages", tmp_path / "start")
    commit = hub.commit("models", "owner/stages")

    arguments = tiny_arguments(Path("owner/stages"), pushed, *quick)
    # where a process would be replaced by the next stage's, it ends
    stage = "import os, runpy, sys; os.execv = lambda *_: os._exit(75); sys.argv = sys.argv[1:]; "
    stage += "runpy.run_path(sys.argv[0], run_name='__main__')"
    isolated = ["-c", stage, JOB, *arguments, "--distillation.isolate_stages", "true"]
    done = python(*isolated, **online(hub.url, home))
    hub.push("owner/stages", later)
    statuses = [done.returncode]
    while done.returncode == 75:
        done = python(*isolated, **online(hub.url, home))
        statuses.append(done.returncode)
    assert statuses == [75, 75, 0], done.stderr
    asked = sum("/owner/stages/revision/main" in request for request in hub.requests)
    assert asked == 1 and hub.commit("models", "owner/stages") != commit

    run = yaml.safe_load((pushed / "run.yaml").read_text(encoding="utf-8"))
    assert run["commits"] == {"owner/stages": commit}
    assert run["models"]["tiny"] == {"bi_encoder": commit}
    done = run_forked("trans_encoder.py", tiny_arguments(start, still, *quick))
    assert done.returncode == 0, done.stderr
    expected = weights(still)
    assert all(torch.equal(weights(pushed)[name], weight) for name, weight in expected.items())
    assert FinishedRun.load(pushed).start("tiny", "bi-encoder") == ("owner/stages", commit)

    # A run that is continued, here with an empty cache, has the commit that it began with.
    (pushed / "results.json").unlink()
    shutil.rmtree(pushed / "cycle-1")
    shutil.rmtree(pushed / "tiny")
    done = python(JOB, *arguments, **online(hub.url, tmp_path / "empty"))
    assert done.returncode == 0, done.stderr
    assert all(torch.equal(weights(pushed)[name], weight) for name, weight in expected.items())


def test_contrastive_training_and_an_evaluation_go_on_with_their_commits(hub: HubServer, tmp_path: Path) -> None:
    begun, calls = {}, {}
    for name, repository in (("contrastive", "owner/contrastive"), ("evaluation", "owner/evaluated")):
        begun[name] = Repository(repository, hub.root / "branches" / repository / "before").commit
        assert begun[name] != hub.commit("models", repository)
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.yaml").write_text(
            yaml.safe_dump({"config": {}, "versions": {}, "commits": {repository: begun[name]}})
        )
        calls[name] = [name, repository, str(tmp_path / name)]
    found = ask(hub.url, tmp_path, calls)
    assert {name: found[name] for name in begun} == begun


def write_scored(folder: Path, word: str) -> Path:
    folder.mkdir(parents=True)
    rows = {f"sentence{side}": [f"{word} {number}" for number in range(3)] for side in (1, 2)}
    Dataset.from_dict(rows | {"score": [0.0, 1.0, 2.0]}).to_parquet(folder / "test.parquet")
    return folder


def test_a_run_keeps_to_the_commits_of_its_data_sets(tmp_path: Path) -> None:
    root, run = tmp_path / "hub", str(tmp_path / "run")
    write_scored(root / "datasets/owner/scored", "before")
    write_scored(root / "branches/owner/scored/v1.0", "branch")
    name, branch = "owner/scored", "owner/scored@v1.0"
    with HubServer(root) as hub:

        def read(home: str, run: str, *names: str) -> dict[str, Any]:
            gold = {each: ["gold", each, "test"] for each in names}
            return ask(hub.url, tmp_path / home, {"commits": ["begin", run, list(names)], **gold})

        commit = hub.commit("datasets", name)
        begun = read("home", run, name, branch)
        assert [begun[each]["name"] for each in (name, branch)] == ["scored", "scored@v1.0"]
        assert [begun[each]["pairs"][0][0] for each in (name, branch)] == ["before 0", "branch 0"]
        assert begun["commits"][name] == commit

        hub.push(name, write_scored(tmp_path / "pushed", "after"), kind="datasets")
        by_commit = f"{name}@{commit}"
        assert hub.commit("datasets", name) != commit
        assert read("again", run, name)[name] == begun[name]
        other = read("empty", str(tmp_path / "other"), name, by_commit, f"{name}@v2")
        assert [other[each]["pairs"][0][0] for each in (name, by_commit)] == ["after 0", "before 0"]
        assert other[f"{name}@v2"].startswith("InputError: owner/scored@v2: "), other

        # Without the Hub, the cache serves with the run's commit, and with no other.
        (root / "datasets/owner/scored").rename(tmp_path / "gone")
        unknown = f"{name}@{'1' * 40}"
        cached = read("again", run, name, unknown)
        assert cached[name] == begun[name]
        assert cached[unknown].startswith(f"InputError: {unknown}: the Hub does not give revision {'1' * 40}")


def test_the_folder_of_a_model_is_named_without_its_revision() -> None:
    assert ModelConfig("owner/name@refs/pr/1").name == "name"
    assert ModelConfig("name@v1").name == "name"
