"""Models, pools and benchmark sets as the real clients read them from a Hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from calls import bi, cross
from clients import JOB, ask, online, python, refused, run_commands
from conftest import results_of, sample_pairs, tiny_arguments
from datasets import ClassLabel, Dataset, Features, Value
from server import HubServer

from te_trainer.models import BiEncoder, CrossEncoder

pytestmark = pytest.mark.slow

PAIRS = sample_pairs(140)
STSB = {"train": 6, "validation": 20, "test": 24}
STSB_SCORES = [5.0, 3.8, 0.0, 2.5, 1.25]
MRPC = {"train": 5, "validation": 4, "test": 6}
QNLI_ROWS = 1003


def write_rows(path: Path, pairs: list[tuple[str, str]], names: tuple[str, str] = ("sentence1", "sentence2")) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = Dataset.from_dict({name: [pair[side] for pair in pairs] for side, name in enumerate(names)})
    (rows.to_csv if path.suffix == ".csv" else rows.to_parquet)(path)


def write_scored(path: Path, split: str, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = range(count)
    columns = {f"sentence{side}": [f"{split} {side} {number}" for number in numbers] for side in (1, 2)}
    Dataset.from_dict({**columns, "score": [float(number) for number in numbers]}).to_parquet(path)


def write_glue(folder: Path, configuration: str, columns: tuple[str, str], splits: dict[str, int]) -> None:
    names = ("not_entailment", "entailment") if configuration == "qnli" else ("not_equivalent", "equivalent")
    features = Features(
        {
            columns[0]: Value("string"),
            columns[1]: Value("string"),
            "label": ClassLabel(names=list(names)),
            "idx": Value("int32"),
        }
    )
    for split, count in splits.items():
        path = folder / configuration / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = list(range(count))
        Dataset.from_dict(
            {
                columns[0]: [f"{split} first {number}" for number in numbers],
                columns[1]: [f"{split} second {number}" for number in numbers],
                "label": [int(number % 3 == 0) for number in numbers],
                "idx": numbers,
            },
            features=features,
        ).to_parquet(path)


def card(**configurations: dict[str, str]) -> str:
    """A README that maps configurations to files, as on the Hub."""
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in configurations.items()
    ]
    return f"---\n{yaml.safe_dump({'configs': listed})}---\n"


@pytest.fixture(scope="module")
def root(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories of the kinds that users have, and two benchmark sets in the layout they have on the Hub."""
    root = tmp_path_factory.mktemp("hub")
    models = root / "models" / "owner"
    models.mkdir(parents=True)
    plain = BiEncoder.from_pretrained(str(tiny))
    plain.model.save_pretrained(models / "plain")
    plain.tokenizer.save_pretrained(models / "plain")
    for name in ("mean", "outage"):
        BiEncoder(plain.model, plain.tokenizer, "mean").save_pretrained(models / name)
    torch.manual_seed(5)
    CrossEncoder.from_pretrained(str(tiny)).save_pretrained(models / "cross")
    plain.tokenizer.save_pretrained(models / "weightless")
    plain.model.config.save_pretrained(models / "weightless")

    data = root / "datasets"
    write_rows(data / "owner/parquet/data/train-00000-of-00001.parquet", PAIRS[:120])
    write_rows(data / "owner/parquet/data/test-00000-of-00001.parquet", PAIRS[118:])
    write_rows(data / "owner/csv/train.csv", PAIRS[:7])
    write_rows(data / "owner/gated/train.csv", PAIRS[:7])
    write_rows(data / "owner/csv/test.csv", [*PAIRS[7:10], (PAIRS[10][0], "")])
    write_rows(data / "owner/two/named/a.parquet", PAIRS[:3])
    write_rows(data / "owner/two/other/b.parquet", PAIRS[3:8], ("question1", "question2"))
    for number, rows in enumerate((PAIRS[:2], PAIRS[2:5])):
        lines = [json.dumps({"sentence1": one, "sentence2": two, "id": str(number)}) for one, two in rows]
        path = data / f"owner/lines/{number}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    (data / "owner/two/README.md").write_text(
        card(named={"train": "named/*.parquet"}, other={"train": "other/*.parquet"}), encoding="utf-8"
    )

    stsb = data / "mteb/stsbenchmark-sts"
    stsb.mkdir(parents=True)
    (stsb / "README.md").write_text("---\nlanguage:\n- en\n---", encoding="utf-8")
    start = 0
    for split, count in STSB.items():
        with gzip.open(stsb / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            for number, (first, second) in enumerate(PAIRS[start : start + count]):
                score = STSB_SCORES[number % len(STSB_SCORES)]
                row = {"split": split, "genre": "main-captions", "sid": str(number), "score": score}
                file.write(json.dumps({**row, "sentence1": first, "sentence2": second}) + "\n")
        start += count
    for name, splits in {"sts12-sts": {"train": 3, "test": 5}, "sickr-sts": {"test": 6}}.items():
        for split, count in splits.items():
            write_scored(data / "mteb" / name / f"{split}.parquet", split, count)
    for split, count in {"train": 3, "validation": 4}.items():
        write_scored(data / "owner/scored" / f"{split}.parquet", split, count)
    glue = data / "nyu-mll/glue"
    write_glue(glue, "mrpc", ("sentence1", "sentence2"), MRPC)
    write_glue(glue, "qnli", ("question", "sentence"), {"validation": QNLI_ROWS})
    mrpc = {split: f"mrpc/{split}-*" for split in MRPC}
    (glue / "README.md").write_text(card(mrpc=mrpc, qnli={"validation": "qnli/validation-*"}), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubServer]:
    with HubServer(root) as server:
        outage = server.commit("models", "owner/outage")
        server.broken = {f"/owner/outage/resolve/{outage}/modules.json"}
        server.gated = {"owner/gated"}
        yield server


@pytest.fixture(scope="module")
def read(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process read from the Hub with an empty cache."""
    calls = {
        "wrong token": ["token", "hf_wrong"],
        "pool with it": ["pool", "owner/csv"],
        "model with it": ["bi", "owner/plain"],
        "no token": ["token", ""],
        "plain": ["bi", "owner/plain"],
        "mean": ["bi", "owner/mean"],
        "cross": ["cross", "owner/cross"],
        "cross as bi": ["bi", "owner/cross"],
        "outage": ["bi", "owner/outage"],
        "weightless": ["bi", "owner/weightless"],
        "no model": ["cross", "owner/absent"],
        "parquet": ["pool", "owner/parquet"],
        "csv": ["pool", "owner/csv"],
        "lines": ["pool", "hf://datasets/owner/lines/*.jsonl"],
        "config": ["pool", "owner/two:named"],
        "config, mapped": ["pool", "owner/two:other", {"sentence1": "question1", "sentence2": "question2"}],
        "config, unmapped": ["pool", "owner/two:other"],
        "no config named": ["pool", "owner/two"],
        "no such config": ["pool", "owner/two:third"],
        "no data set": ["pool", "owner/absent"],
        "no such revision": ["pool", "owner/csv@v9"],
        "gated": ["gold", "owner/gated", "test"],
        "stsb pool": ["pool", "stsb"],
        "sts12 pool": ["pool", "sts12"],
        "sickr dev": ["gold", "sickr", "dev"],
        "sickr test": ["gold", "sickr", "test"],
        "validation as dev": ["gold", "owner/scored", "dev"],
        "stsb dev": ["gold", "stsb", "dev"],
        "stsb test": ["gold", "stsb", "test"],
        "mrpc dev": ["gold", "mrpc", "dev", {"sentence1": "for other files"}],
        "mrpc test": ["gold", "mrpc", "test"],
        "qnli dev": ["gold", "qnli", "dev"],
        "qnli test": ["gold", "qnli", "test"],
        "no scores": ["gold", "owner/parquet", "test"],
    }
    return ask(hub.url, tmp_path_factory.mktemp("read"), calls)


def listed(pairs: list[tuple[str, str]]) -> list[list[str]]:
    return [list(pair) for pair in pairs]


# ---------------------------------------------------------------- models


@pytest.mark.parametrize(("name", "pooling"), [("plain", "cls"), ("mean", "mean")])
def test_a_bi_encoder_comes_with_the_pooling_that_its_repository_names(
    read: dict[str, Any], root: Path, name: str, pooling: str
) -> None:
    assert read[name]["pooling"] == pooling
    assert np.array(read[name]["vectors"]) == pytest.approx(
        np.array(bi(str(root / "models/owner" / name))["vectors"]), abs=1e-6
    )


def test_a_cross_encoder_comes_with_its_trained_head(read: dict[str, Any], root: Path) -> None:
    assert np.array(read["cross"]["logits"]) == pytest.approx(
        np.array(cross(str(root / "models/owner/cross"))["logits"]), abs=1e-6
    )


def test_a_cross_encoder_is_refused_as_a_bi_encoder(read: dict[str, Any]) -> None:
    assert read["cross as bi"].startswith("InputError: model owner/cross: a cross-encoder")


def test_a_repository_without_weights_is_refused(read: dict[str, Any]) -> None:
    assert read["weightless"].startswith("InputError: model owner/weightless: ")
    assert "weights" in read["weightless"]


def test_an_unknown_model_is_named(read: dict[str, Any]) -> None:
    assert read["no model"].startswith("InputError: model owner/absent: no model here or on the Hub")
    assert "\n" not in read["no model"]


def test_a_failing_hub_does_not_change_the_pooling(read: dict[str, Any]) -> None:
    """Without an answer about `modules.json`, nobody knows that there is none."""
    assert str(read["outage"]).startswith("InputError: model owner/outage: "), read["outage"]


# ---------------------------------------------------------------- pools


def test_a_pool_is_read_from_all_splits_of_a_parquet_data_set(read: dict[str, Any]) -> None:
    assert sorted(read["parquet"]["pairs"]) == sorted(listed(PAIRS))
    assert (read["parquet"]["rows"], read["parquet"]["duplicates"]) == (142, 2)


def test_a_pool_is_read_from_all_splits_of_a_csv_data_set(read: dict[str, Any]) -> None:
    assert sorted(read["csv"]["pairs"]) == sorted(listed(PAIRS[:10]))
    assert (read["csv"]["rows"], read["csv"]["empty"]) == (11, 1)


def test_json_lines_are_read_at_their_address(read: dict[str, Any]) -> None:
    assert read["lines"]["pairs"] == listed(PAIRS[:5])


def test_a_configuration_is_chosen_by_name_and_its_columns_are_mapped(read: dict[str, Any]) -> None:
    assert read["config"]["pairs"] == listed(PAIRS[:3])
    assert read["config, mapped"]["pairs"] == listed(PAIRS[3:8])


def test_a_missing_column_is_named_with_those_that_are_there(read: dict[str, Any]) -> None:
    message = "no column 'sentence1' among question1, question2; map it with data.columns"
    assert read["config, unmapped"] == f"MissingColumnError: owner/two:other, split 'train': {message}"


@pytest.mark.parametrize("case", ["no config named", "no such config"])
def test_a_wrong_configuration_is_refused_with_those_there_are(read: dict[str, Any], case: str) -> None:
    assert read[case].startswith("InputError: owner/two")
    assert "named" in read[case].removeprefix("InputError: owner/two") and "other" in read[case], read[case]
    assert "\n" not in read[case]


def test_what_the_hub_refuses_of_a_data_set_is_said_with_the_mend(hub: HubServer, read: dict[str, Any]) -> None:
    """As of a model, by the same sentences."""
    address, token = f"{hub.url}/datasets/owner", "the Hub refuses the token (401); set HF_TOKEN to one that may read "
    sentences = {
        read["no data set"]: "no such repository; correct the name, and for a private one set HF_TOKEN or call ",
        read["no such revision"]: f"the repository has no branch, tag or commit 'v9'; look at {address}/csv)",
        read["gated"]: f"the repository is gated; ask for access at {address}/gated, and set HF_TOKEN or call ",
        read["pool with it"]: f"{token}{address}/csv)",
        read["model with it"]: f"{token}{hub.url}/owner/plain",
    }
    for said, sentence in sentences.items():
        assert said.startswith(("InputError: owner/", "InputError: model owner/")) and sentence in said, said
        assert "\n" not in said


def test_a_benchmark_as_pool_gives_all_its_splits(read: dict[str, Any]) -> None:
    assert sorted(read["stsb pool"]["pairs"]) == sorted(listed(PAIRS[: sum(STSB.values())]))


def test_a_pool_holds_no_split_that_the_papers_set_lacks(read: dict[str, Any]) -> None:
    assert read["sts12 pool"]["pairs"] == [[f"test 1 {number}", f"test 2 {number}"] for number in range(5)]


def test_a_configuration_is_not_guessed_while_the_hub_is_away(hub: HubServer, tmp_path: Path) -> None:
    """The cache holds one of two; asked for no configuration, the library gives what it loaded last."""
    plain, named = ["pool", "owner/two"], ["pool", "owner/two:named"]
    before = ask(hub.url, tmp_path, {"named": named, "csv": ["pool", "owner/csv"]})
    after = ask(
        hub.url,
        tmp_path,
        {"plain": plain, "named": named, "csv": ["pool", "owner/csv"]},
        HF_HUB_OFFLINE="1",
    )
    assert after["plain"].startswith("InputError: owner/two: the Hub does not answer, and ")
    assert after["plain"].endswith("name it as owner/two:named")
    assert (after["named"], after["csv"]) == (before["named"], before["csv"])
    assert len(before["named"]["pairs"]) == 3


# ---------------------------------------------------------------- gold scores


def test_validation_rows_are_dev_rows_where_there_is_no_dev_split(read: dict[str, Any]) -> None:
    assert read["validation as dev"]["pairs"][0] == ["validation 1 0", "validation 2 0"]
    assert read["validation as dev"]["scores"] == [0, 1, 2, 3]


def test_sickr_has_no_dev_rows_on_the_hub(read: dict[str, Any]) -> None:
    assert len(read["sickr test"]["scores"]) == 6
    assert read["sickr dev"] == (
        "InputError: mteb/sickr-sts: no split 'trial' among test; choose another set (or a folder with the benchmark's "
        "NAME.tsv as data.dir)"
    )


@pytest.mark.parametrize(("role", "start", "count"), [("dev", 6, 20), ("test", 26, 24)])
def test_stsb_is_read_from_its_split_on_the_hub(read: dict[str, Any], role: str, start: int, count: int) -> None:
    gold = read[f"stsb {role}"]
    assert gold["name"] == "stsb"
    assert gold["pairs"] == listed(PAIRS[start : start + count])
    assert gold["scores"] == [STSB_SCORES[number % len(STSB_SCORES)] for number in range(count)]


@pytest.mark.parametrize(("role", "split"), [("dev", "validation"), ("test", "test")])
def test_mrpc_is_a_configuration_whose_labels_are_scores(read: dict[str, Any], role: str, split: str) -> None:
    """The mapping of the user's own files does not touch a benchmark's columns."""
    gold = read[f"mrpc {role}"]
    assert gold["pairs"] == [[f"{split} first {number}", f"{split} second {number}"] for number in range(MRPC[split])]
    assert gold["scores"] == [float(number % 3 == 0) for number in range(MRPC[split])]


def test_qnli_is_cut_at_a_thousand_rows_and_its_labels_are_turned(read: dict[str, Any]) -> None:
    """On the Hub 0 is entailment; the first thousand rows of the validation split choose, the others test."""
    assert len(read["qnli dev"]["scores"]) == 1000
    assert read["qnli dev"]["pairs"][0] == ["validation first 0", "validation second 0"]
    assert read["qnli dev"]["scores"][:4] == [0.0, 1.0, 1.0, 0.0]
    assert read["qnli test"]["pairs"][0] == ["validation first 1000", "validation second 1000"]
    assert read["qnli test"]["scores"] == [float(number % 3 != 0) for number in range(1000, QNLI_ROWS)]


def test_a_data_set_without_scores_is_refused_as_a_gold_set(read: dict[str, Any]) -> None:
    message = "no column 'score' among sentence1, sentence2"
    assert read["no scores"].startswith(f"MissingColumnError: owner/parquet, split 'test': {message}")


# ---------------------------------------------------------------- the main job


def test_a_whole_run_stands_on_the_hub_alone(hub: HubServer, tmp_path: Path) -> None:
    output = tmp_path / "run"
    more = ["--data.dev", "stsb", "--data.test", "[stsb, mrpc]", "--distillation.cycles", "1"]
    more += ["--bi_encoder.pooling", "null", "--bi_encoder.num_train_epochs", "1"]
    arguments = tiny_arguments(Path("owner/mean"), output, *more, pool=["owner/parquet"])
    done = python(JOB, *arguments, **online(hub.url, tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "142 rows" in done.stderr + done.stdout
    scores = results_of(output)["final"]["tiny"]["bi-encoder"]
    assert set(scores["test"]) == {"stsb", "mrpc", "avg"} and "dev" in scores
    commit = hub.commit("models", "owner/mean")
    run = yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))
    assert run["models"]["tiny"] == {"bi_encoder": commit, "cross_encoder": commit}
    assert BiEncoder.from_pretrained(str(output / "tiny" / "bi-encoder")).pooling == "mean"


def test_what_the_hub_does_not_have_ends_the_command_with_one_line(
    hub: HubServer, root: Path, tiny: Path, tmp_path: Path
) -> None:
    """An unknown model, an unknown data set, and both of a Hub that is gone."""
    output = tmp_path / "run"
    cases = {
        "model owner/absent": tiny_arguments(Path("owner/absent"), output),
        "owner/nothing": tiny_arguments(tiny, output, pool=["owner/nothing"]),
    }
    gone = {
        "model owner/plain: no model here, and not to be had from the Hub (": tiny_arguments(
            Path("owner/plain"), output
        ),
        "owner/parquet": tiny_arguments(tiny, output, pool=["owner/parquet"]),
    }
    with HubServer(root) as server:
        away = server.url
    for url, commands in ((hub.url, cases), (away, gone)):
        calls = [("", arguments) for arguments in commands.values()]
        ended = run_commands("trans_encoder.py", calls, **online(url, tmp_path / "home"))
        for name, done in zip(commands, ended, strict=True):
            refused(done, name)
    assert not output.exists()
