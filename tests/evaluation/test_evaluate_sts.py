"""The recipe of evaluation: its scores are those of others, and what it leaves is whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats
import sentence_transformers
import sklearn.metrics
import torch
import yaml
from conftest import GOLD_FOLDER, MINILM, ROOT, SAMPLE, Outcome, Run, results_of, text_file
from datasets import Dataset
from forked import run_ranks
from sentence_transformers.cross_encoder.evaluation import CrossEncoderCorrelationEvaluator
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from transformers import set_seed

from te_trainer.config.commands import parse
from te_trainer.config.schema import EvaluationConfig, EvaluationDataConfig
from te_trainer.data import load_gold
from te_trainer.errors import InputError
from te_trainer.evaluation.models import resolve_models
from te_trainer.evaluation.paper import STS
from te_trainer.evaluation.paper_tables import verdicts
from te_trainer.evaluation.sets import load_sets
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.metrics.bootstrap import interval, resampled
from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.runs.changes import compared_values

RECIPE = ROOT / "recipes" / "evaluate_sts.py"
TEST = SAMPLE / "test.tsv"


@pytest.fixture(scope="module")
def encoders(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bi-encoder that a run made of a start of the paper's, its cross-encoder, and another bi-encoder."""
    run = tmp_path_factory.mktemp("runs") / "sts"
    found = {"bi": run / "bert" / "bi-encoder", "cross": run / "bert" / "cross-encoder"}
    BiEncoder.from_pretrained(models["bert"], pooling="mean", max_length=40).save_pretrained(found["bi"])
    set_seed(0)
    cross = CrossEncoder.from_pretrained(models["bert"], max_length=50)
    with torch.no_grad():
        cross.model.classifier.weight.mul_(20)
    cross.save_pretrained(found["cross"])
    start = "[{name: bert, bi_encoder: princeton-nlp/unsup-simcse-bert-base-uncased}]"
    config = parse(["--models", start, "--data.pool", json.dumps(STS)])
    (run / "run.yaml").write_text(yaml.safe_dump({"config": compared_values(config)}), encoding="utf-8")
    final = {"bert": {kind: {"cycle": 1} for kind in ("bi-encoder", "cross-encoder")}}
    (run / "results.json").write_text(json.dumps({"final": final}), encoding="utf-8")
    found["start"] = tmp_path_factory.mktemp("starts") / "unsup-simcse-roberta-base"
    BiEncoder.from_pretrained(models["roberta"], pooling="mean", max_length=32).save_pretrained(found["start"])
    return found


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's test set as stsb.tsv, and as mrpc.tsv with gold scores of 0 and 1."""
    folder = tmp_path_factory.mktemp("gold")
    rows = [line.split("\t") for line in TEST.read_text(encoding="utf-8").splitlines()[1:]]
    header = "split\tscore\tsentence1\tsentence2"
    for name, gold in (("stsb", lambda score: score), ("mrpc", lambda score: str(int(float(score) > 2.5)))):
        lines = [header, *("\t".join(["test", gold(row[0]), *row[1:]]) for row in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_job: Run) -> Run:
    """The command in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def start(models: list[Any], *more: str | Path) -> Outcome:
        return run_job("evaluate", "--models", json.dumps([*map(str, models)]), "--output_dir", "out", *more)

    return start


def predictions(folder: Path, model: str, task: str) -> dict[str, np.ndarray]:
    table = pyarrow.parquet.read_table(folder / "predictions" / model / f"{task}.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


# ---------------------------------------------------------------- scores


def test_what_is_cut_is_said(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    status, _, err = run([encoders["bi"], encoders["cross"]], "--tasks", TEST, "--max_length", "10")
    assert status == 0, err
    cut = results_of(tmp_path / "out")["truncation"]
    for name, texts in (("bert_bi-encoder", "distinct sentences"), ("bert_cross-encoder", "pairs")):
        found = cut[name]
        assert 0 < found["cut"] <= found["texts"]
        assert (
            f"{name}: {found['cut']} of {found['texts']} {texts} ({100 * found['share']:.1f} %) have more than 10"
            in err
        )
    assert cut["bert_cross-encoder"]["texts"] == len({*zip(*pairs_of_test(), strict=True)})


def test_rows_that_repeat_their_pairs_are_no_more_evidence(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    header, *rows = TEST.read_text(encoding="utf-8").splitlines()[:41]
    one, two = (header.split("\t").index(name) for name in ("sentence1", "sentence2"))
    exchanged = []
    for row in (line.split("\t") for line in rows):
        row[one], row[two] = row[two], row[one]
        exchanged.append("\t".join(row))
    found = []
    for name, lines in (("once", rows), ("thrice", [*rows, *exchanged, *rows])):
        gold = text_file(tmp_path / name / "gold.tsv", "\n".join([header, *lines]) + "\n")
        done = run([encoders["bi"], encoders["start"]], "--tasks", gold, "--output_dir", f"out-{name}")
        assert done.status == 0, done.err
        assert ("120 pairs with gold scores (80 of them repeated)" in done.err) == (name == "thrice")
        assert "40 pairs " in done.out
        found.append(results_of(tmp_path / f"out-{name}")["differences"][0]["average"]["sts"]["interval"])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def pairs_of_test() -> tuple[list[str], list[str]]:
    gold = load_gold(str(TEST), "test", {})
    return gold.sentence1, gold.sentence2


def test_scores_are_those_of_others(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    """Of sentence-transformers' evaluators on the same model, and of scipy on the predictions that are written."""
    status, _, err = run([encoders["bi"], encoders["cross"]], "--tasks", TEST)
    assert status == 0, err
    assert f"bert_bi-encoder: bi-encoder, mean pooling, up to 40 tokens ({encoders['bi']})" in err
    assert f"bert_cross-encoder: cross-encoder, up to 50 tokens ({encoders['cross']})" in err
    gold = load_gold(str(TEST), "test", {})
    bi, cross = results_of(tmp_path / "out")["models"]

    theirs = EmbeddingSimilarityEvaluator(
        gold.sentence1, gold.sentence2, gold.scores.tolist(), main_similarity="cosine", name="x"
    )(sentence_transformers.SentenceTransformer(str(encoders["bi"]), device="cpu"))
    (scores,) = bi["tasks"][0]["scores"]["test"]
    assert scores["cosine_spearman"] == pytest.approx(theirs["x_spearman_cosine"], abs=1e-6)
    assert scores["cosine_pearson"] == pytest.approx(theirs["x_pearson_cosine"], abs=1e-6)

    pairs = [list(pair) for pair in zip(gold.sentence1, gold.sentence2, strict=True)]
    theirs = CrossEncoderCorrelationEvaluator(pairs, gold.scores.tolist(), name="x")(
        sentence_transformers.CrossEncoder(str(encoders["cross"]), device="cpu")
    )
    (scores,) = cross["tasks"][0]["scores"]["test"]
    assert scores["spearman"] == pytest.approx(theirs["x_spearman"], abs=1e-6)
    assert scores["pearson"] == pytest.approx(theirs["x_pearson"], abs=1e-6)
    assert "cosine_spearman" not in scores

    cut = results_of(tmp_path / "out")["truncation"]
    assert {name: (each["max_length"], each["cut"]) for name, each in cut.items()} == {
        bi["name"]: (40, 0),
        cross["name"]: (50, 0),
    }
    assert " are cut" not in err

    for model in (bi, cross):
        (scores,) = model["tasks"][0]["scores"]["test"]
        columns = predictions(tmp_path / "out", model["name"], "test")
        assert list(columns) == ["sentence1", "sentence2", "score", "prediction"]
        assert columns["sentence1"].tolist() == gold.sentence1
        assert columns["sentence2"].tolist() == gold.sentence2
        np.testing.assert_array_equal(columns["score"], gold.scores)
        values = columns["prediction"].astype(np.float64)
        assert scores["spearman"] == pytest.approx(scipy.stats.spearmanr(values, gold.scores).statistic, abs=1e-12)
        assert scores["pearson"] == pytest.approx(scipy.stats.pearsonr(values, gold.scores).statistic, abs=1e-12)
        assert scores["main_score"] == scores["spearman"]
        low, high = scores["intervals"]["spearman"]
        assert low < scores["spearman"] < high
    assert bi["tasks"][0]["scores"]["test"][0]["spearman"] != cross["tasks"][0]["scores"]["test"][0]["spearman"]


def test_families_ensembles_and_the_papers_rows(
    run: Run, encoders: dict[str, Path], binary: Path, tmp_path: Path
) -> None:
    bi, cross, start = (str(encoders[name]) for name in ("bi", "cross", "start"))
    entries = [start, bi, f"{bi}+{cross}"]
    status, out, err = run(entries, "--data.dir", binary, "--compare", "paper")
    assert status == 0, err
    results = results_of(tmp_path / "out")
    assert [(column["task"], column["family"], column["pairs"]) for column in results["columns"]] == [
        ("stsb", "sts", 257),
        ("mrpc", "binary", 257),
    ]
    names = [model["name"] for model in results["models"]]
    assert names == ["unsup-simcse-roberta-base", "bert_bi-encoder", "bert_bi-encoder+bert_cross-encoder"]
    assert [model["kind"] for model in results["models"]] == ["bi-encoder", "bi-encoder", "ensemble"]
    for model in results["models"]:
        assert [task["task_name"] for task in model["tasks"]] == ["STSBenchmark", "MRPC"]
        (scores,) = model["tasks"][1]["scores"]["test"]
        found = predictions(tmp_path / "out", model["name"], "mrpc")
        area = sklearn.metrics.roc_auc_score(found["score"], found["prediction"])
        precision = sklearn.metrics.average_precision_score(found["score"], found["prediction"])
        assert scores["main_score"] == scores["roc_auc"] == pytest.approx(area, abs=1e-12)
        assert scores["similarity_ap"] == pytest.approx(precision, abs=1e-12)
        assert ("cosine_ap" in scores) == (model["kind"] == "bi-encoder")

    one, two, both = (
        predictions(tmp_path / "out", name, "stsb")["prediction"]
        for name in ("bert_bi-encoder", "bert_cross-encoder", names[2])
    )
    np.testing.assert_allclose(both, (one.astype(np.float64) + two) / 2, rtol=0, atol=1e-7)

    assert [entry["models"] for entry in results["differences"]] == [names[:2], [names[0], names[2]], names[1:]]
    values = [model["tasks"][0]["scores"]["test"][0]["main_score"] for model in results["models"]]
    difference = results["differences"][0]["tasks"]["stsb"]
    assert difference["difference"] == pytest.approx(values[0] - values[1])
    assert difference["interval"][0] < difference["difference"] < difference["interval"][1]
    found = [predictions(tmp_path / "out", name, "stsb") for name in names[:2]]
    drawn = [
        resampled([spearman], columns["prediction"], columns["score"], seed=2021, name="stsb")[0] for columns in found
    ]
    assert difference["interval"] == pytest.approx(list(interval(drawn[0] - drawn[1])))
    assert results["models"][0]["tasks"][0]["scores"]["test"][0]["intervals"]["spearman"] == pytest.approx(
        list(interval(drawn[0]))
    )

    # Table 1 of the paper, rows 2 and 1.1; the ensemble is none of the paper's
    assert [model.get("paper", {}).get("title") for model in results["models"]] == [
        "paper: SimCSE-RoBERTa-base",
        "paper: SimCSE-BERT-base + TEnc (bi)",
        None,
    ]
    assert results["models"][1]["paper"]["scores"] == {"stsb": pytest.approx(0.8126)}  # MRPC's has learnt MRPC
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table.startswith(
        "## Spearman × 100\n\n|  | STS-B |\n| --- | ---: |\n| pairs | 257 |\n"
        f"| unsup-simcse-roberta-base | {100 * values[0]:.2f} |\n| paper: SimCSE-RoBERTa-base | 80.20 |\n"
    )
    assert "## ROC-AUC × 100\n" in table and "## Average precision × 100\n" in table
    # each but the first is compared with it, on both families, on the terminal and in the file
    sentences = verdicts(results)
    assert len(sentences) == 4 and sentences[0] in out and sentences[-1] in out.splitlines()
    assert table.count("\n- ") == 4 and table.index("## Verdict") > table.rindex("## Average precision")
    loss = results["differences"][0]["tasks"]["mrpc"]
    found, low, high = (f"{-100 * value:+z.1f}" for value in (loss["difference"], *reversed(loss["interval"])))
    assert f" than {names[0]} on MRPC: {found} ROC-AUC × 100 (95 % interval {low} to {high})" in sentences[1]
    latex = (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    assert f"bert\\_bi-encoder & {100 * values[1]:.2f} \\\\" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == table.count("## ") - 1
    for cell in ("STS-B", "MRPC", f"{100 * values[2]:.2f}", "paper: SimCSE-BERT-base + TEnc (bi)", "81.26"):
        assert cell in out


def test_groups_need_their_files_and_averages_are_of_them(
    run: Run, encoders: dict[str, Path], binary: Path, tmp_path: Path
) -> None:
    for name in ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "qnli"):
        (tmp_path / f"{name}.tsv").write_bytes((binary / "stsb.tsv").read_bytes())
    rows = (tmp_path / "sts13.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "sts13.tsv").write_text("\n".join(rows[:100]) + "\n", encoding="utf-8")
    status, _, err = run([encoders["start"]], "--tasks", "[sts, stsb]", "--data.dir", tmp_path)
    assert status == 0, err
    (model,) = results_of(tmp_path / "out")["models"]
    scores = [task["scores"]["test"][0]["spearman"] for task in model["tasks"]]
    assert [task["task_name"] for task in model["tasks"]] == [*(f"STS{year}" for year in range(12, 17)), "STSBenchmark"]
    # all hold the same pairs, but for the second, which holds some of them
    assert scores[2:] == [scores[0]] * 4
    assert scores[0] != scores[1]
    assert model["average"]["sts"]["spearman"] == pytest.approx(np.mean(scores))
    row = f"| unsup-simcse-roberta-base | {' | '.join(f'{100 * score:.2f}' for score in [*scores, np.mean(scores)])} |"
    assert row in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_pooling_length_and_dev_rows_are_the_users(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    rows = (SAMPLE / "dev.tsv").read_text(encoding="utf-8").splitlines()
    lines = ["split\t" + rows[0], *("dev\t" + row for row in rows[1:50]), *("test\t" + row for row in rows[50:])]
    (tmp_path / "stsb.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # no task is named, and this set has no dev rows
    (tmp_path / "mrpc.tsv").write_text("split\tscore\tsentence1\tsentence2\ntest\t1\ta\tb\n", encoding="utf-8")
    more = ["--data.dir", tmp_path, "--data.split", "dev"]
    status, _, err = run([encoders["bi"]], *more, "--pooling", "cls", "--max_length", "6")
    assert status == 0 and "mrpc: left out, it has no dev rows with gold scores\n" in err, err
    results = results_of(tmp_path / "out")
    member = {"model": str(encoders["bi"]), "kind": "bi-encoder", "pooling": "cls", "max_length": 6}
    assert results["models"][0]["members"] == [member]
    (scores,) = results["models"][0]["tasks"][0]["scores"]["dev"]
    gold = load_gold("stsb", "dev", {}, str(tmp_path))
    encoder = sentence_transformers.SentenceTransformer(str(encoders["bi"]), device="cpu")
    encoder.max_seq_length = 6
    encoder[1] = sentence_transformers.models.Pooling(32, "cls")
    one, two = (encoder.encode(side, convert_to_tensor=True) for side in (gold.sentence1, gold.sentence2))
    assert scores["spearman"] == pytest.approx(
        spearman(torch.cosine_similarity(one, two).numpy(), gold.scores), abs=1e-6
    )
    assert scores["pairs"] == 49


# ---------------------------------------------------------------- again, and on several ranks


def test_a_killed_evaluation_goes_on_and_a_changed_one_is_refused(
    run: Run, encoders: dict[str, Path], tmp_path: Path
) -> None:
    own = tmp_path / "own.tsv"
    own.write_bytes(TEST.read_bytes())
    assert run([encoders["bi"], encoders["start"]], "--tasks", own)[0] == 0
    before = results_of(tmp_path / "out")
    kept = tmp_path / "out" / "predictions" / "bert_bi-encoder" / "own.parquet"
    made = kept.stat().st_mtime_ns
    for path in (tmp_path / "out" / "predictions" / "unsup-simcse-roberta-base").iterdir():
        path.unlink()
    (tmp_path / "out" / "predictions" / "unsup-simcse-roberta-base").rmdir()
    (tmp_path / "out" / "results.json").unlink()
    status, _, err = run([encoders["bi"], encoders["start"]], "--tasks", own)
    assert status == 0, err
    assert results_of(tmp_path / "out") == before
    assert kept.stat().st_mtime_ns == made

    status, _, err = run([encoders["bi"]], "--tasks", own)
    assert status == 2 and "out was begun with another configuration: models" in err
    own.write_text(own.read_text(encoding="utf-8") + "1\tone more\tpair\n", encoding="utf-8")
    status, _, err = run([encoders["bi"], encoders["start"]], "--tasks", own)
    assert status == 2 and "the scored pairs of" in err and "have changed since the run in out began" in err


def test_damaged_predictions_are_named_and_made_again(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    def evaluate_again() -> tuple[int, str]:
        status, _, err = run([encoders["bi"]], "--tasks", TEST)
        return status, err

    assert evaluate_again()[0] == 0
    before = results_of(tmp_path / "out")
    (path,) = (tmp_path / "out" / "predictions").rglob("test.parquet")
    whole, folder = path.read_bytes(), path.parent.relative_to(tmp_path)
    for damage in ("cut", "empty", "other pairs", "removed"):
        if damage == "removed":
            path.unlink()
        elif damage == "other pairs":
            path.write_bytes(whole)
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(1), path)
        else:
            path.write_bytes(whole[: 500 * (damage == "cut")])
        status, err = evaluate_again()
        what = "is not there any more" if damage == "removed" else "is damaged"
        fix = f"delete the folder {folder}, and the same command predicts again"
        assert (status, err.splitlines()[-1]) == (2, f"error: {folder / path.name} {what}; {fix}")
    shutil.rmtree(path.parent)
    assert evaluate_again()[0] == 0
    assert results_of(tmp_path / "out") == before


def test_a_retrained_model_is_refused(run: Run, encoders: dict[str, Path], models: dict[str, str]) -> None:
    model = Path("model")
    BiEncoder.from_pretrained(models["bert"]).save_pretrained(model)
    assert run([model], "--tasks", TEST)[0] == 0
    # other weights; the same ones and another pooling
    for other in ({"name": models["roberta"]}, {"name": models["bert"], "pooling": "mean"}):
        BiEncoder.from_pretrained(**other).save_pretrained(model)
        status, _, err = run([model], "--tasks", TEST)
        assert status == 2 and "models: the files of model have changed since the run in out began" in err
    BiEncoder.from_pretrained(models["bert"]).save_pretrained(model)
    assert run([model], "--tasks", TEST)[0] == 0


def test_other_pairs_in_a_folder_are_refused(run: Run, encoders: dict[str, Path]) -> None:
    """A saved data set is no file that could be hashed."""
    rows = [line.split("\t") for line in TEST.read_text(encoding="utf-8").splitlines()[1:]]
    columns = [list(column) for column in zip(*rows, strict=True)]
    for first in (0, 40):
        part = [column[first : first + 40] for column in columns]
        gold = Dataset.from_dict({"score": list(map(float, part[0])), "sentence1": part[1], "sentence2": part[2]})
        shutil.rmtree("gold", ignore_errors=True)
        gold.save_to_disk("gold")
        status, _, err = run([encoders["bi"]], "--tasks", "gold")
        assert (status == 2 and "tasks: the scored pairs of gold have changed" in err) == bool(first), err


@pytest.mark.distributed
def test_two_ranks_find_what_one_finds(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    assert run([encoders["bi"], encoders["cross"]], "--tasks", TEST)[0] == 0
    arguments = ["--models", f"[{encoders['bi']}, {encoders['cross']}]", "--tasks", str(TEST)]
    finished = run_ranks(RECIPE, [*arguments, "--output_dir", str(tmp_path / "two")])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("The tables are in") == 1
    printed = finished.stdout.rpartition("predictions in ")[2].rpartition(".")[0]
    assert Path(printed).samefile(tmp_path / "two" / "predictions")
    one, two = results_of(tmp_path / "out"), results_of(tmp_path / "two")
    assert (one["environment"]["processes"], two["environment"]["processes"]) == (1, 2)
    for ours, theirs in zip(one["models"], two["models"], strict=True):
        (mine,), (other,) = (model["tasks"][0]["scores"]["test"] for model in (ours, theirs))
        assert mine["spearman"] == pytest.approx(other["spearman"], abs=1e-6)
        np.testing.assert_allclose(mine["intervals"]["pearson"], other["intervals"]["pearson"], atol=1e-6)


# ---------------------------------------------------------------- on the sets themselves


@pytest.mark.slow
@pytest.mark.skipif(not GOLD_FOLDER.is_dir(), reason="the sets are not here")
def test_a_known_score_is_met(run: Run, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, as measured with sentence-transformers, sentences cut at 64 tokens."""
    status, _, err = run([MINILM], "--tasks", "stsb", "--max_length", "64", "--data.dir", GOLD_FOLDER)
    assert status == 0, err
    (task,) = results_of(tmp_path / "out")["models"][0]["tasks"]
    assert 100 * task["scores"]["test"][0]["main_score"] == pytest.approx(82.03, abs=0.02)


# ---------------------------------------------------------------- what it refuses


def evaluation_of(models: list[Any], *tasks: Any, **data: Any) -> EvaluationConfig:
    return EvaluationConfig(
        [str(model) for model in models], [str(task) for task in tasks], EvaluationDataConfig(**data), output_dir="out"
    )


def refused_sets(*tasks: Any, **data: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_sets(evaluation_of([], *tasks, **data))
    return str(caught.value)


def refused_models(*models: Any) -> str:
    with pytest.raises(InputError) as caught:
        resolve_models(evaluation_of(list(models)))
    return str(caught.value)


def test_a_refusal_leaves_nothing_behind(run: Run, encoders: dict[str, Path], tmp_path: Path) -> None:
    status, out, err = run([encoders["bi"]], "--tasks", "sts112")
    assert (status, out, err) == (2, "", "error: tasks: unknown set 'sts112'; did you mean 'sts12'?\n")
    assert not list(tmp_path.iterdir())


def test_unknown_sets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "unknown set 'binry'; did you mean 'binary'?" in refused_sets("stsb", "binry")
    assert "gold.tsv: the file does not exist" in refused_sets("gold.tsv")
    folder = tmp_path / "sets"
    folder.mkdir()
    assert "holds no stsb.tsv" in refused_sets("stsb", dir=str(folder))
    assert "holds no set with test rows" in refused_sets(dir=str(folder))
    header = "split\tscore\tsentence1\tsentence2"
    empty = text_file(tmp_path / "empty" / "stsb.tsv", f"{header}\ndev\t1\ta\tb\n").parent
    assert "stsb holds 0 rows with gold scores" in refused_sets("stsb", dir=str(empty))
    assert "holds no set with test rows" in refused_sets(dir=str(empty))
    assert refused_sets(dir=str(tmp_path / "none")).startswith("data.dir: ")
    assert "two sets are named 'test'" in refused_sets(TEST, copy(TEST, folder / "test.tsv"))


def test_sets_without_gold_scores_are_refused(binary: Path, tmp_path: Path) -> None:
    assert "no column 'score' among sentence1, sentence2" in refused_sets(SAMPLE / "pool.tsv")
    own = tmp_path / "own.tsv"
    own.write_text("score\tsentence1\tsentence2\n\ta\tb\n\tc\td\n", encoding="utf-8")
    assert f"tasks: {own} holds 0 rows with gold scores" in refused_sets(own)
    copy(binary / "stsb.tsv", tmp_path / "mrpc.tsv")
    assert "mrpc holds gold scores other than 0 and 1" in refused_sets("mrpc", dir=str(tmp_path))


def test_models_that_cannot_be_scored_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    bi = encoders["bi"]
    config = json.loads((encoders["cross"] / "config.json").read_text(encoding="utf-8"))
    del config["id2label"], config["label2id"]
    t5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    for name, content, sentence in (
        ("t5", t5, "T5ForConditionalGeneration is neither an encoder nor"),
        ("classifier", config | {"num_labels": 3}, "a classifier of 3 labels"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
        assert sentence in refused_models(tmp_path / name)
    assert "no model in that folder" in refused_models(tmp_path)
    assert "no model in that folder" in refused_models(Path("/"))
    for twice in (bi, f"{bi}/../{bi.name}"):
        assert "is named twice" in refused_models(bi, twice)
    for entry in (f"{bi}+", f"{bi}+{bi}"):
        assert "is no ensemble; write one+two" in refused_models(entry)
    long = [tmp_path / (letter * 150) for letter in "ab"]
    for folder in long:
        shutil.copytree(bi, folder)
    assert "would have a name of 301 bytes" in refused_models("+".join(map(str, long)))


@pytest.mark.parametrize("name", ["avg", "x\u202ey", "x" * 210])
def test_names_that_no_file_can_have_are_refused(name: str, tmp_path: Path) -> None:
    sentence = refused_sets(copy(TEST, tmp_path / f"{name}.tsv"))
    assert "cannot name a set with gold scores" in sentence and sentence.endswith("; rename the file")


def test_a_file_named_like_a_benchmark_is_refused(binary: Path, tmp_path: Path) -> None:
    same = copy(TEST, tmp_path / "STS-B.tsv")
    assert "two sets are named 'STS-B'" in refused_sets("stsb", same, dir=str(binary))


def copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


# ---------------------------------------------------------------- names


def test_models_whose_names_would_be_one_have_predictions_of_their_own(
    run: Run, encoders: dict[str, Path], tmp_path: Path
) -> None:
    """Parts of paths that are joined, characters that are replaced, and case make names alike."""
    folders = [Path(name) for name in ("runs/sts/bert", "runs/nli/bert", "runs/sts_bert", "a b", "A_b", "a+b", ".x")]
    for number, folder in enumerate(folders):
        encoder = BiEncoder.from_pretrained(str(encoders["bi"]), pooling="mean", max_length=40)
        set_seed(number)
        with torch.no_grad():
            for weight in encoder.model.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        encoder.save_pretrained(folder)
    (tmp_path / "few.tsv").write_text("\n".join(TEST.read_text(encoding="utf-8").splitlines()[:20]), encoding="utf-8")
    status, _, err = run([*folders, "a b+runs/sts/bert"], "--tasks", "few.tsv")
    assert status == 0, err
    models = results_of(tmp_path / "out")["models"]
    names = [model["name"] for model in models]
    assert names == ["sts_bert", "nli_bert", "sts_bert-2", "a_b", "A_b-2", "a_b-3", "x", "a_b+sts_bert"]
    assert [model["members"][0]["model"] for model in models] == [*map(str, folders), "a b"]
    found = [predictions(tmp_path / "out", name, "few")["prediction"] for name in names]
    for one in range(len(found)):
        for two in range(one):
            assert not np.allclose(found[one], found[two])
    theirs = BiEncoder.from_pretrained("runs/sts_bert")
    gold = load_gold("few.tsv", "test", {})
    columns = {"sentence1": gold.sentence1, "sentence2": gold.sentence2}
    np.testing.assert_allclose(found[2], score_pairs(theirs, columns), atol=1e-6)
