"""Several ranks share the work of labelling, and give the scores of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from forked import run_ranks
from telling import columns, new_cross_encoder, pairs_with_repeats

from te_trainer.labelling import embed_sentences, score_pairs
from te_trainer.mining import neighbours
from te_trainer.models import BiEncoder
from te_trainer.search import nearest

RANKS = """
import json, os, shutil, sys, time
from pathlib import Path
import numpy as np
import psutil
import torch
from accelerate import PartialState
from datasets import Dataset
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.labelling import embed_sentences, score_pairs
from te_trainer.mining import neighbours
from te_trainer.files.scratch import scratch_folder
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.search import nearest

quiet_libraries()
folder, *encoders = map(Path, sys.argv[1:])
rank = os.environ["RANK"]
pairs = json.loads((folder / "pairs.json").read_text())

def score(encoder, name, count, scratch=None):
    rows = []
    hook = encoder.model.register_forward_pre_hook(
        lambda model, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True, prepend=True
    )
    seen = {}
    try:
        scores = score_pairs(encoder, {side: texts[:count] for side, texts in pairs.items()}, scratch=scratch)
        seen |= {"scores": scores.tolist(), "dtype": str(scores.dtype)}
    except Exception as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    hook.remove()
    seen |= {"rows": sum(rows), "world": PartialState().num_processes, "backend": PartialState().backend}
    (folder / f"{name}-{rank}.json").write_text(json.dumps(seen))

loaded = BiEncoder.from_pretrained(str(encoders[0])), CrossEncoder.from_pretrained(str(encoders[1]))
score(loaded[0], "untold", 3)
PartialState._reset_state()
PartialState(cpu=True)
score(loaded[0], "no-scratch", 3)

# A disk on the network, seen by two machines: what one has closed before a barrier, the other sees when it opens it.
client, server = (folder.resolve() / name for name in (f"client-{rank}", "server"))
plain_wait = PartialState.wait_for_everyone
def copy(source, target):
    opened = {file.path for file in psutil.Process().open_files()}
    for file in source.rglob("*.*"):
        other = target / file.relative_to(source)
        is_newer = not other.exists() or file.stat().st_mtime_ns > other.stat().st_mtime_ns
        if is_newer and opened.isdisjoint({str(file), str(other)}):
            shutil.copy2(file, other)
def wait(state):
    copy(client, server)
    plain_wait(state)
    copy(server, client)
    plain_wait(state)
for place in (client, server):
    for encoder in loaded:
        (place / encoder.kind).mkdir(parents=True, exist_ok=True)
plain_wait(PartialState())
PartialState.wait_for_everyone = wait
for encoder in loaded:
    score(encoder, f"{encoder.kind}-network", None, client / encoder.kind)
vectors = np.random.default_rng(0).normal(size=(301, 16)).astype(np.float32)
texts = Dataset.from_dict({"sentence1": pairs["sentence1"]})
seen = {"embedded": embed_sentences(loaded[0], texts, client / "bi-encoder").tolist()}
seen["rows"], seen["cosines"] = (a.tolist() for a in nearest(vectors, None, 3, client / "bi-encoder", print))
neighbours.EXACT_UP_TO = 0
seen["mined"] = neighbours.nearest_pairs(vectors, np.arange(99), 3, client / "cross-encoder", print).tolist()
PartialState.wait_for_everyone = plain_wait
with scratch_folder(folder / "left-late") as place:
    time.sleep(0.5 * int(rank))
    seen["is there"] = place.exists()
(folder / f"searched-{rank}.json").write_text(json.dumps(seen))

for encoder in loaded:
    for name, count in ((encoder.kind, None), (f"{encoder.kind}-single", 1), (f"{encoder.kind}-diverged", 20)):
        if name.endswith("diverged"):
            with torch.no_grad():
                next(encoder.model.parameters()).fill_(torch.nan)
        (folder / f"scratch-{name}").mkdir(exist_ok=True)
        score(encoder, name, count, folder / f"scratch-{name}")
PartialState().destroy_process_group()
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, start: str) -> dict[str, list[dict[str, Any]]]:
    """What each of two processes saw, by what was scored."""
    folder = tmp_path_factory.mktemp("ranks")
    new_cross_encoder(start).save_pretrained(folder / "cross")
    (folder / "script.py").write_text(RANKS, encoding="utf-8")
    (folder / "pairs.json").write_text(json.dumps(columns(pairs_with_repeats(150))), encoding="utf-8")
    run = run_ranks(folder / "script.py", [str(folder), start, str(folder / "cross")])
    assert run.returncode == 0, run.stderr
    seen: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-[01].json")):
        seen.setdefault(path.stem[:-2], []).append(json.loads(path.read_text(encoding="utf-8")))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_two_ranks_share_the_work_and_give_the_scores_of_one(
    two_ranks: dict[str, list[dict[str, Any]]], start: str, kind: str
) -> None:
    pairs = columns(pairs_with_repeats(150))
    total = len(pairs["sentence1"])
    assert total % 2
    encoder = BiEncoder.from_pretrained(start) if kind == "bi-encoder" else new_cross_encoder(start)
    expected = score_pairs(encoder, pairs)
    ranks = two_ranks[kind]
    assert [(rank["world"], rank["backend"], rank["dtype"]) for rank in ranks] == [(2, "gloo", "float32")] * 2
    assert ranks[0]["scores"] == ranks[1]["scores"]
    assert [rank["scores"] for rank in two_ranks[f"{kind}-network"]] == [ranks[0]["scores"]] * 2
    np.testing.assert_allclose(ranks[0]["scores"], expected, rtol=0, atol=1e-6)
    distinct = len({text for side in pairs.values() for text in side})
    assert sum(rank["rows"] for rank in ranks) == (distinct if kind == "bi-encoder" else total)
    assert abs(ranks[0]["rows"] - ranks[1]["rows"]) <= 1
    for rank in two_ranks[f"{kind}-single"]:
        np.testing.assert_allclose(rank["scores"], expected[:1], rtol=0, atol=1e-6)
    for rank in two_ranks[f"{kind}-diverged"]:
        assert rank["error"].startswith(f"DivergedError: the {kind}'s score of pair 1 is nan")


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(
    two_ranks: dict[str, list[dict[str, Any]]], tmp_path: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk of which each rank sees what was closed before it opened it."""
    vectors = np.random.default_rng(0).normal(size=(301, 16)).astype(np.float32)
    texts = Dataset.from_dict({"sentence1": columns(pairs_with_repeats(150))["sentence1"]})
    embedded = embed_sentences(BiEncoder.from_pretrained(start), texts, tmp_path)
    rows, cosines = nearest(vectors, None, 3, tmp_path, lambda done: None)
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 0)
    mined = neighbours.nearest_pairs(vectors, np.arange(99), 3, tmp_path, lambda done: None)
    for rank in two_ranks["searched"]:
        np.testing.assert_allclose(rank["embedded"], embedded, rtol=0, atol=1e-5)
        np.testing.assert_allclose(rank["cosines"], cosines, rtol=0, atol=1e-6)
        assert (rank["rows"], rank["mined"]) == (rows.tolist(), mined.tolist())
    assert len(two_ranks["searched"]) == 2


@pytest.mark.slow
def test_a_scratch_folder_stays_until_the_last_rank_has_left_it(two_ranks: dict[str, list[dict[str, Any]]]) -> None:
    assert [rank["is there"] for rank in two_ranks["searched"]] == [True, True]


@pytest.mark.slow
def test_several_ranks_need_a_place_that_all_of_them_see(two_ranks: dict[str, list[dict[str, Any]]]) -> None:
    for rank in two_ranks["no-scratch"]:
        assert rank["error"].startswith("InputError: score_pairs: on several ranks, give a scratch folder")


@pytest.mark.slow
def test_ranks_on_a_cpu_find_each_other_untold(two_ranks: dict[str, list[dict[str, Any]]]) -> None:
    assert [rank["world"] for rank in two_ranks["untold"]] == [2, 2]
