"""MTEB scores what we save as `te-trainer evaluate` does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SAMPLE, results_of
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from te_trainer.cli import start
from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, CrossEncoder


@pytest.fixture(scope="module")
def of_mteb() -> Any:
    """What needs MTEB, whose import takes seconds for which no other file's tests are to wait."""
    import mteb
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    from te_trainer.evaluation.mteb import PairScorer

    rows = [line.split("\t") for line in (SAMPLE / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]

    class SampleSTS(AbsTaskSTS):
        """The project's own test pairs as a task of MTEB, without the Hub."""

        metadata = TaskMetadata(
            name="SampleSTS",
            description="Questions about home and network devices.",
            reference=None,
            dataset={"path": "none/none", "revision": "1"},
            type="STS",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
        )

        def load_data(self, **_: Any) -> None:
            scores, one, two = zip(*((float(row[0]), row[1], row[2]) for row in rows), strict=True)
            self.dataset = DatasetDict(test=Dataset.from_dict({"sentence1": one, "sentence2": two, "score": scores}))
            self.data_loaded = True

    def scores(model: Any) -> dict[str, float]:
        result = mteb.evaluate(model, SampleSTS(), cache=None, show_progress_bar=False, co2_tracker=False)
        return result.task_results[0].scores["test"][0]

    return SimpleNamespace(task=SampleSTS, scorer=PairScorer, scores=scores)


@pytest.fixture(scope="module")
def encoders(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bi-encoder, a cross-encoder, and a cross-encoder without a sigmoid."""
    root = tmp_path_factory.mktemp("encoders")
    found = {kind: root / kind for kind in ("bi-encoder", "cross-encoder", "identity")}
    BiEncoder.from_pretrained(models["bert"], pooling="mean").save_pretrained(found["bi-encoder"])
    set_seed(0)
    cross = CrossEncoder.from_pretrained(models["bert"])
    with torch.no_grad():
        cross.model.classifier.weight.mul_(100)
    cross.save_pretrained(found["cross-encoder"])
    cross.activate_with("identity")
    cross.save_pretrained(found["identity"])
    return found


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder", "identity"])
def test_mteb_and_evaluate_agree(of_mteb: Any, encoders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    keys = ["--models", encoders[kind], "--tasks", SAMPLE / "test.tsv", "--output_dir", tmp_path / "scores"]
    start("evaluate", [*map(str, keys)])
    results = results_of(tmp_path / "scores")
    expected = results["models"][0]["tasks"][0]["scores"]["test"][0]
    found = of_mteb.scores(of_mteb.scorer(encoders[kind]))
    assert abs(expected["spearman"]) > 0.01
    for metric in ("spearman", "pearson"):
        assert found[metric] == pytest.approx(expected[metric], abs=1e-6)
        assert found[f"cosine_{metric}"] == pytest.approx(expected[metric], abs=1e-6)
    # every distance of MTEB's orders the pairs as their scores do
    for distance in ("euclidean", "manhattan"):
        assert found[f"{distance}_spearman"] == pytest.approx(found["spearman"], abs=1e-6)
    assert found["main_score"] == found["cosine_spearman"]


def test_mteb_reads_a_bi_encoder_as_sentence_transformers_does(of_mteb: Any, encoders: dict[str, Path]) -> None:
    own = of_mteb.scores(of_mteb.scorer(encoders["bi-encoder"]))
    theirs = of_mteb.scores(SentenceTransformer(str(encoders["bi-encoder"]), device="cpu"))
    assert own["cosine_spearman"] == pytest.approx(theirs["cosine_spearman"], abs=1e-4)


def test_a_part_that_was_broken_off_is_forgotten(of_mteb: Any, encoders: dict[str, Path]) -> None:
    scorer = of_mteb.scorer(encoders["cross-encoder"])
    where = {"task_metadata": of_mteb.task.metadata, "hf_split": "dev", "hf_subset": "default"}
    scorer.encode([{"text": ["a sentence of another part"]}], **where)
    assert of_mteb.scores(scorer) == of_mteb.scores(of_mteb.scorer(encoders["cross-encoder"]))


def test_a_model_that_is_trained_again_has_another_revision(of_mteb: Any, encoders: dict[str, Path]) -> None:
    metas = [of_mteb.scorer(encoders[kind]).mteb_model_meta for kind in ("bi-encoder", "cross-encoder")]
    assert metas[0].revision != metas[1].revision
    assert metas[0].name.endswith("-bi-encoder")
    short = of_mteb.scorer(encoders["cross-encoder"], max_length=8)
    assert short.mteb_model_meta.experiment_kwargs == {"max_length": 8}


def test_other_tasks_are_refused(of_mteb: Any, encoders: dict[str, Path]) -> None:
    other = of_mteb.task.metadata.model_copy(update={"type": "Retrieval"})
    with pytest.raises(InputError, match=r"SampleSTS: a task of the type Retrieval.*SentenceTransformer"):
        of_mteb.scorer(encoders["bi-encoder"]).encode([], task_metadata=other, hf_split="test", hf_subset="default")
