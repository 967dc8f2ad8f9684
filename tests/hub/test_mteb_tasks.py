"""Tasks of MTEB, from the Hub that both it and `te-trainer evaluate` read: real names, loaders and splits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from clients import online, python
from conftest import SAMPLE, results_of
from datasets import Dataset
from server import HubServer

from te_trainer.models import BiEncoder, CrossEncoder

SCORING = """
import json, sys
import mteb
from te_trainer.cli import start
from te_trainer.evaluation.mteb import PairScorer

models, tasks, output = json.loads(sys.argv[1])
start("evaluate", ["--models", str(models), "--tasks", str(list(tasks)), "--output_dir", output])
found = {}
for model in models:
    results = mteb.evaluate(PairScorer(model), mteb.get_tasks(tasks=list(tasks.values())), cache=None,
                            show_progress_bar=False, co2_tracker=False)
    found[model] = {task.task_name: task.scores["test"][0] for task in results.task_results}
print(json.dumps(found))
"""


@pytest.mark.slow
def test_mteb_and_evaluate_agree_on_tasks_of_the_hub(models: dict[str, str], tmp_path: Path) -> None:
    from mteb import get_task  # takes seconds, for which no other file's tests are to wait

    tasks = {"stsb": "STSBenchmark", "sickr": "SICK-R"}
    rows = [line.split("\t") for line in (SAMPLE / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    with HubServer(tmp_path / "hub") as hub:
        for number, name in enumerate(tasks.values()):
            metadata = get_task(name).metadata
            folder = hub.root / "datasets" / metadata.dataset["path"]
            folder.mkdir(parents=True)
            part = rows[number::2]
            columns = {"sentence1": [row[1] for row in part], "sentence2": [row[2] for row in part]}
            Dataset.from_dict(columns | {"score": [float(row[0]) for row in part]}).to_parquet(folder / "test.parquet")
            # MTEB asks for one revision of each set
            shutil.copytree(folder, hub.branch(metadata.dataset["path"], metadata.dataset["revision"]))
        folders = {kind: str(tmp_path / kind) for kind in ("bi-encoder", "cross-encoder")}
        BiEncoder.from_pretrained(models["bert"], pooling="mean").save_pretrained(folders["bi-encoder"])
        torch.manual_seed(0)
        CrossEncoder.from_pretrained(models["bert"]).save_pretrained(folders["cross-encoder"])
        request = json.dumps([list(folders.values()), tasks, str(tmp_path / "scores")])
        done = python("-c", SCORING, request, **online(hub.url, tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = results_of(tmp_path / "scores")["models"]
    for model, folder in zip(ours, folders.values(), strict=True):
        assert len(model["tasks"]) == 2
        for task in model["tasks"]:
            expected = task["scores"]["test"][0]
            found = theirs[folder][task["task_name"]]
            assert abs(expected["spearman"]) > 1e-3
            for metric in ("spearman", "pearson"):
                assert found[f"cosine_{metric}"] == pytest.approx(expected[metric], abs=1e-6)
