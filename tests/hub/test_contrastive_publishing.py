"""Finished contrastive training goes to a Hub, and its card says what it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clients import online, python
from conftest import SAMPLE, results_of, sample_pairs
from huggingface_hub import ModelCard
from server import HubServer
from test_publishing import TOKENS

from te_trainer.cli import start
from te_trainer.config.schema import HubConfig
from te_trainer.errors import InputError
from te_trainer.hub.card import Upload, contrastive_card, gold_scores
from te_trainer.hub.evaluations import eval_result_files
from te_trainer.hub.publish import publish
from te_trainer.runs.finished import FinishedContrastive, load_finished

pytestmark = pytest.mark.slow

# Runs as a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.
PUSHING = """
import re, sys
from te_trainer.cli import start
from huggingface_hub import hf_hub_download

start("push", [sys.argv[1], "--hub.repo_id", "owner/tickets", "--hub.license", "mit"])
card = open(hf_hub_download("owner/tickets-bi-encoder", "README.md"), encoding="utf-8").read()
for block in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):
    exec(block, {})
"""


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of two steps."""
    folder = tmp_path_factory.mktemp("contrastive")
    sentences = folder / "sentences.txt"
    sentences.write_text("\n".join(text for pair in sample_pairs(16) for text in pair) + "\n", encoding="utf-8")
    output = folder / "run"
    gold = ["--data.dev", str(SAMPLE / "dev.tsv"), "--data.test", str(SAMPLE / "test.tsv")]
    short = ["--contrastive.per_device_train_batch_size", "8", "--contrastive.max_steps", "2"]
    names = ["--model", str(tiny), "--data.sentences", str(sentences), "--output_dir", str(output)]
    start("contrastive", [*names, *gold, *short, "--contrastive.precision", "float32"])
    return output


def test_its_encoder_is_published_with_a_card(run: Path, tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        hub.shelf.accounts |= TOKENS
        done = python("-c", PUSHING, str(run), **online(hub.url, tmp_path / "home", "hf_write"))
    assert done.returncode == 0, done.stderr
    published, *printed = done.stdout.splitlines()
    assert published == f"Published: {hub.url}/owner/tickets-bi-encoder"
    first, second = map(float, printed)  # sentence-transformers' way and transformers'
    assert first == pytest.approx(second, abs=1e-5)

    folder = tmp_path / "hub/models/owner/tickets-bi-encoder"
    encoder = run / "bi-encoder"
    local = {path.relative_to(encoder) for path in encoder.rglob("*") if path.is_file()}
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert there == {*local, Path("README.md"), Path(".gitattributes")}
    card = ModelCard.load(folder / "README.md")
    assert (card.data.pipeline_tag, card.data.license, card.data.base_model) == ("sentence-similarity", "mit", None)
    assert "simcse" in card.data.tags and "trans-encoder" not in card.data.tags
    found = results_of(run)["final"]["bi-encoder"]
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, result.metric_value) == ("test", found["test"]["test"])
    assert "It started from a local checkpoint, `tiny`." in card.text
    assert f"| kept | bi-encoder | {100 * found['dev']:.2f} | {100 * found['test']['test']:.2f} |" in card.text
    assert "Gold scores of the dev set chose the checkpoint." in card.text
    assert "sentences.txt" in card.text and str(run.parent) not in card.text


def test_a_card_names_method_hub_models_and_sets(run: Path) -> None:
    found = load_finished(run)
    assert isinstance(found, FinishedContrastive)
    manifest = json.loads(json.dumps(found.manifest))
    manifest["config"] |= {"model": "google-bert/bert-base-uncased@main"}
    manifest["config"]["contrastive"]["method"] = "mirror_bert"
    manifest["config"]["data"]["test"] = ["stsb", "gold/sts12.tsv"]
    manifest |= {"model": "a" * 40, "data_commits": {"mteb/stsbenchmark-sts": "b" * 40}}
    manifest["resolved"]["span"] = 5
    scores = {"test": {"stsb": 0.7512345678, "sts12": 0.5, "avg": 0.6}}
    results = found.results | {"start": {"bi-encoder": scores}, "final": {"bi-encoder": scores}}
    other = replace(found, manifest=manifest, results=results)
    upload = Upload("me/x", "bert-base-uncased", ["bi-encoder"], False)
    card = ModelCard(contrastive_card(other, upload, None))
    assert card.data.base_model == ["google-bert/bert-base-uncased"]
    assert card.data.base_model_relation == "finetune"
    assert f"It started from `google-bert/bert-base-uncased` at revision `{'a' * 40}`." in card.text
    assert "as Mirror-BERT does it" in card.text and "a masked span of 5 characters" in card.text
    assert "liu2021mirrorbert" in card.text and "gao2021simcse" not in card.text
    assert "No gold score chose anything" in card.text
    # sts12 is a file
    described = [(result.dataset_type, result.dataset_name) for result in card.data.eval_results or []]
    assert described == [("mteb/stsbenchmark-sts", "stsb"), ("unknown", "sts12 (local file)")]
    files = eval_result_files(gold_scores(other, upload), "spearman", several_kinds=False)
    assert list(files) == [".eval_results/STSBenchmark.yaml"]
    manifest["config"]["data"] |= {"test": ["stsb", "sts12"], "dir": "gold"}
    assert not eval_result_files(gold_scores(other, upload), "spearman", several_kinds=False)
    assert "value: 75.12346\n" in files[".eval_results/STSBenchmark.yaml"]


def test_without_gold_a_card_says_so(run: Path) -> None:
    found = load_finished(run)
    assert isinstance(found, FinishedContrastive)
    nothing = replace(found, results=found.results | {"start": {"bi-encoder": {}}, "final": {"bi-encoder": {}}})
    card = ModelCard(contrastive_card(nothing, Upload("me/x", "tiny", ["bi-encoder"], False), None))
    assert "None: no pairs with gold scores were given." in card.text
    assert card.data.eval_results is None and card.data.metrics is None


def test_it_has_no_cycles_to_publish(run: Path) -> None:
    with pytest.raises(InputError, match=r"holds contrastive training, which has no cycles; leave it out"):
        publish(run, HubConfig("owner/tickets", branch_per_cycle=True))
