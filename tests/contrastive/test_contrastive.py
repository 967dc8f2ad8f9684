"""The recipe of contrastive training: what it makes, what it refuses, and that a kill changes nothing."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, SAMPLE, Run, process_environment, results_of, sample_pairs, save_tiny
from forked import Forked, paths_in, run_forked, run_ranks
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_decoders import save_decoder
from transformers import AutoModel, BertConfig, GPTJConfig, OPTConfig, PretrainedConfig

from te_trainer.config.commands import parse_contrastive, parse_step0
from te_trainer.config.schema import ContrastiveTrainingConfig
from te_trainer.contrastive.plan import contrastive_arguments, has_dropout
from te_trainer.data import load_gold
from te_trainer.errors import InputError
from te_trainer.files.atomic import remove
from te_trainer.labelling import score_pairs
from te_trainer.metrics import spearman
from te_trainer.models import BiEncoder
from te_trainer.report.run_tables import contrastive_table

RECIPE = ROOT / "recipes" / "contrastive.py"
FOLDER = ROOT / "recipes" / "contrastive"
ON_POOL = FOLDER / "simcse_on_pool.yaml"  # for `distillation.step0` alone
RECIPES = sorted(set(FOLDER.glob("*.yaml")) - {ON_POOL})


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 sentences, one a line."""
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    texts = list(dict.fromkeys(text for pair in sample_pairs(200) for text in pair))[:96]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def arguments(tiny: Path, sentences: Path) -> list[str]:
    """A run of 24 steps with a tiny model."""
    return [
        *("--model", str(tiny), "--data.sentences", str(sentences)),
        *("--data.dev", str(SAMPLE / "dev.tsv"), "--data.test", str(SAMPLE / "test.tsv")),
        *("--contrastive.per_device_train_batch_size", "16", "--contrastive.num_train_epochs", "4"),
        *("--contrastive.eval_steps", "5", "--contrastive.precision", "float32", "--contrastive.learning_rate", "1e-3"),
    ]


@pytest.fixture
def run(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_job: Run) -> Run:
    """The job in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return partial(run_job, "contrastive", *arguments, "--output_dir", "out")


# ---------------------------------------------------------------- what it makes


def test_a_plain_plm_becomes_a_bi_encoder(run: Run, tiny: Path, tmp_path: Path) -> None:
    status, out, err = run()
    assert status == 0, err
    assert "sentences: 96 distinct ones" in err
    assert "kept" in out
    results = results_of(tmp_path / "out")
    assert set(results) == {"start", "final", "training", "truncation", "seconds", "environment"}
    counted = results["truncation"]["bi-encoder"]
    assert counted.pop("unknown") < 0.1
    assert counted == {"max_length": 32, "texts": 96, "cut": 0, "sampled": False, "share": 0.0}
    assert " are cut" not in out + err

    dev = load_gold(str(SAMPLE / "dev.tsv"), "dev", {})
    pairs = {"sentence1": dev.sentence1, "sentence2": dev.sentence2}
    for part, path in (("start", tiny), ("final", tmp_path / "out" / "bi-encoder")):
        scores = results[part]["bi-encoder"]
        encoder = BiEncoder.from_pretrained(str(path), pooling="cls")
        assert scores["dev"] == pytest.approx(spearman(score_pairs(encoder, pairs), dev.scores), abs=1e-9)
        assert set(scores["test"]) == {"test", "avg"}
    assert results["final"]["bi-encoder"]["path"] == str(tmp_path / "out" / "bi-encoder")
    training = json.loads((tmp_path / "out" / "bi-encoder.training.json").read_text(encoding="utf-8"))
    curve = dict(training["dev_curve"])
    assert list(curve) == [5, 6, 10, 12, 15, 18, 20, 24]
    assert training["best_step"] == max(curve, key=lambda step: curve[step])
    assert results["final"]["bi-encoder"]["dev"] == pytest.approx(max(curve.values()), abs=5e-3)

    loaded = SentenceTransformer(str(tmp_path / "out" / "bi-encoder"), device="cpu")
    one, two = (loaded.encode(pairs[name][:5], convert_to_tensor=True) for name in pairs)
    ours = score_pairs(encoder, {name: texts[:5] for name, texts in pairs.items()})
    np.testing.assert_allclose(ours, torch.cosine_similarity(one, two).numpy(), atol=1e-5)
    # the pooler of its start, which scores nothing, is kept
    _, report = AutoModel.from_pretrained(tmp_path / "out" / "bi-encoder", output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]

    begun = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text(encoding="utf-8"))
    assert begun["resolved"]["temperature"] == 0.05
    assert begun["sentences"]["number"] == 96
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.name != ".lock"]

    status, out, _ = run()
    assert status == 0
    assert "is finished; there is nothing to do" in out


def test_a_finished_run_is_refused_what_has_changed_and_needs_nothing_that_is_gone(
    run: Run, tiny: Path, sentences: Path, tmp_path: Path
) -> None:
    model, texts, dev = shutil.copytree(tiny, tmp_path / "model"), tmp_path / "texts.txt", tmp_path / "mine.tsv"
    shutil.copy(sentences, texts)
    shutil.copy(SAMPLE / "dev.tsv", dev)
    given = ["--model", model, "--data.sentences", texts, "--data.dev", dev, "--contrastive.max_steps", "2"]
    assert run(*given)[0] == 0
    changed = {
        texts: (b"one more\n", f"{texts}: the file has"),
        dev: (b"1\tone more\trow\n", "data.dev: the rows of mine have"),
        **{
            model / name: (more, f"model: the files of {model} have")
            for name, more in (("model.safetensors", b"x"), ("config.json", b"\n"), ("tokenizer.json", b"\n"))
        },
        model / "modules.json": (b"[]", f"model: the files of {model} have"),
    }
    for path, (more, subject) in changed.items():
        before = path.read_bytes() if path.exists() else None
        path.write_bytes((before or b"") + more)
        status, _, err = run(*given)
        assert (status, err) == (2, f"error: {subject} changed since the run in out began; name another output_dir\n")
        path.unlink()
        if before is not None:
            path.write_bytes(before)
    (model / "eval_results.json").write_text("{}", encoding="utf-8")  # which nobody reads
    assert "nothing to do" in run(*given)[1]
    shutil.rmtree(model)
    texts.unlink()
    dev.unlink()
    assert "nothing to do" in run(*given)[1]


def test_mirror_bert_on_pairs_without_gold(run: Run, tmp_path: Path) -> None:
    status, out, err = run(
        *("--data.sentences", SAMPLE / "pool.tsv", "--data.max_sentences", "64", "--data.dev", "null"),
        *("--data.test", "[]", "--contrastive.method", "mirror_bert", "--contrastive.pooling", "mean"),
        *("--contrastive.max_steps", "2"),
    )
    assert status == 0, err
    results = results_of(tmp_path / "out")
    assert set(results["final"]["bi-encoder"]) == {"path"}
    assert "spearman" not in out
    steps = results["training"]["steps"]
    assert f"There are no gold scores (data.dev, data.test), so nothing was scored. Training: {steps} steps," in out
    begun = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text(encoding="utf-8"))
    assert begun["sentences"]["number"] == 64
    expected = {"span": 5, "temperature": 0.04, "mlp_head": False, "both_views": True, "max_length": 50}
    assert {key: begun["resolved"][key] for key in expected} == expected
    pooling = json.loads((tmp_path / "out" / "bi-encoder" / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    assert pooling["pooling_mode_mean_tokens"]


def test_it_computes_with_the_attention_that_is_named(
    run: Run, tmp_path: Path, watched: Callable[[str], list[Any]]
) -> None:
    calls = watched("watched_contrastive")
    short = ["--contrastive.max_steps", "2", "--contrastive.eval_steps", "1"]
    status, _, said = run("--contrastive.attn_implementation", "watched_contrastive", *short)
    assert status == 0, said
    assert set(calls) == {(False, False), (True, True)}


def test_sentences_that_are_cut_with_their_prompt_are_counted_before_work_starts(run: Run, tmp_path: Path) -> None:
    length = ["--contrastive.max_length", "8", "--contrastive.max_steps", "1", "--contrastive.bf16", "true"]
    status, out, err = run(*length, "--contrastive.prompt", "my router ")
    assert status == 0, err
    saved = str(tmp_path / "out" / "bi-encoder")
    assert SentenceTransformer(saved, device="cpu").prompts["default"] == "my router "
    assert BiEncoder.from_pretrained(saved).prompt == "my router "
    found = results_of(tmp_path / "out")["truncation"]["bi-encoder"]
    assert results_of(tmp_path / "out")["environment"]["precision"] == "bfloat16"  # what was computed in
    assert (found["max_length"], found["texts"]) == (8, 96)
    assert 0 < found["cut"] < 96
    line = (
        f"contrastive training: {found['cut']} of 96 distinct sentences ({100 * found['share']:.1f} %) have more than "
        "8 tokens and are cut; a larger contrastive.max_length reads more, as far as the model can"
    )
    assert line in err and line in out
    assert err.index(line) < err.index("begins")


@pytest.mark.slow
def test_two_ranks_train_one_encoder(arguments: list[str], tmp_path: Path) -> None:
    """Both have 8 of the 16 sentences of a batch; the engine has the head's weights, too."""
    more = ["--contrastive.per_device_train_batch_size", "8", "--output_dir", str(tmp_path / "out")]
    more += ["--contrastive.max_steps", "4", "--contrastive.eval_steps", "2"]
    result = run_ranks(RECIPE, [*arguments, *more])
    assert result.returncode == 0, result.stderr
    training = json.loads((tmp_path / "out" / "bi-encoder.training.json").read_text(encoding="utf-8"))
    assert (training["engine"], training["steps"]) == ("DistributedDataParallel", 4)
    saved = load_file(tmp_path / "out" / "bi-encoder" / "model.safetensors")
    assert not [name for name in saved if "head" in name]


LATE = """
import os, sys, time
from te_trainer.cli import run_job
from te_trainer.commands import contrastive

scored = contrastive.score_once

def late(*arguments):
    time.sleep(float(os.environ["RANK"]))
    return scored(*arguments)

contrastive.score_once = late
sys.exit(run_job("contrastive"))
"""


@pytest.mark.slow
def test_a_rank_that_is_late_meets_the_others_without_gold_too(tiny: Path, sentences: Path, tmp_path: Path) -> None:
    """What the first rank has written by then must not let the other miss a meeting."""
    (tmp_path / "late.py").write_text(LATE, encoding="utf-8")
    given = ["--model", str(tiny), "--data.sentences", str(sentences), "--output_dir", str(tmp_path / "out")]
    result = run_ranks(tmp_path / "late.py", [*given, "--contrastive.max_steps", "1", "--ddp_timeout", "60"])
    assert result.returncode == 0, result.stderr
    assert results_of(tmp_path / "out")["training"]["steps"] == 1


# ---------------------------------------------------------------- through kills


@pytest.mark.slow
def test_kills_change_nothing(arguments: list[str], tmp_path: Path) -> None:
    """SIGKILL before and within the training; the same command ends with the same bytes."""
    more = ["--contrastive.eval_steps", "2", "--contrastive.span", "5", "--contrastive.num_train_epochs", "2"]
    whole = run_forked("contrastive.py", [*arguments, *more, "--output_dir", str(tmp_path / "whole")])
    assert whole.returncode == 0, whole.stderr
    command = [*arguments, *more, "--output_dir", str(tmp_path / "killed")]
    moments = random.Random(0)
    checkpoints = set()
    for kill in range(3):
        process = Forked("contrastive.py", command, clock=0)
        checkpoint_dir = tmp_path / "killed" / ".training-bi-encoder"
        before = paths_in(checkpoint_dir, "checkpoint-*")
        while process.poll() is None and not paths_in(checkpoint_dir, "checkpoint-*") - before and kill:
            time.sleep(0.001)
        while process.poll() is None and not (tmp_path / "killed" / "sentences").exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        assert process.wait() == -9, f"the run ended before kill {kill}"
        checkpoints |= {path.name for path in paths_in(checkpoint_dir, "checkpoint-*")}
    assert checkpoints, "no kill fell into the training"
    last = run_forked("contrastive.py", command)
    assert last.returncode == 0, last.stderr
    both = []
    for name in ("whole", "killed"):
        results = results_of(tmp_path / name)
        del results["final"]["bi-encoder"]["path"]
        weights = (tmp_path / name / "bi-encoder" / "model.safetensors").read_bytes()
        both.append((results["start"], results["final"], weights))
    assert both[0] == both[1]
    assert not [path for path in (tmp_path / "killed").rglob(".*") if path.name != ".lock"]


# ---------------------------------------------------------------- what it refuses


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run what must be refused; gives the sentence, and nothing is left behind."""

    def start(*more: str | Path) -> str:
        status, out, err = run(*more)
        assert (status, out) == (2, ""), err
        assert err.startswith("error: ") and err.count("\n") == 1, err
        assert not (tmp_path / "out").exists()
        return err.removeprefix("error: ").rstrip("\n")

    return start


def test_a_model_without_weights_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    (model / "model.safetensors").unlink()
    assert "it has no weights for PyTorch" in refused("--model", model)


def test_no_sentences_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    assert refused("--data.sentences", "empty.txt") == "data.sentences: no sentence in empty.txt"
    assert refused("--data.sentences", "none.txt") == "none.txt: the file does not exist"


def test_fewer_sentences_than_a_batch_are_refused(refused: Callable[..., str]) -> None:
    sentence = refused("--contrastive.per_device_train_batch_size", "97")
    assert "96 distinct sentences do not fill one batch of 97" in sentence
    left_out = ["--contrastive.dataloader_drop_last", "true", "--contrastive.gradient_accumulation_steps", "3"]
    sentence = refused("--contrastive.per_device_train_batch_size", "48", *left_out)
    assert sentence.startswith("contrastive.dataloader_drop_last: a step takes 144 sentences, and there are 96; set it")
    sentence = refused("--contrastive.per_device_train_batch_size", "1")
    assert "a sentence alone in its batch has none to differ from" in sentence


def test_a_split_that_no_row_has_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("sentence,split\none,train\ntwo,train\n", encoding="utf-8")
    more = ["--data.sentences", "split.csv", "--data.column", "sentence", "--data.split", "trian"]
    assert refused(*more) == "split.csv: no row has the split 'trian' (data.split); name another one"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--contrastive.pooling", "mean"], "contrastive.mlp_head: the head stands on [CLS], but"),
        (["--contrastive.temperature", "0"], "contrastive.temperature: input should be greater than 0, got 0"),
        (["--contrastive.span", "-1"], "contrastive.span: input should be greater than or equal to 0, got -1"),
        (["--contrastive.learning_rate", "-1"], "contrastive.learning_rate: input should be greater than 0"),
        (["--contrastive.optim", "adamm"], "contrastive.optim: 'adamm' is none of"),
        (
            ["--contrastive.method", "simsce"],
            "contrastive.method: input should be 'simcse' or 'mirror_bert'",
        ),
        (["--contrastive.tempreature", "1"], "unknown key 'contrastive.tempreature'; did you mean 'contrastive.temp"),
        (["--contrastive.attn_implementation", "spda"], "contrastive.attn_implementation: 'spda' cannot be used for B"),
        (["--contrastive.seed", "1"], "contrastive.seed cannot be set: the run's seed sets it"),
        (
            ["--contrastive.load_best_model_at_end", "true"],
            "contrastive.load_best_model_at_end cannot be set: the dev set chooses the checkpoint",
        ),
        (
            ["--contrastive.train_sampling_strategy", "random"],
            "contrastive.train_sampling_strategy cannot be set: batches are drawn at random",
        ),
        (
            ["--contrastive.hub_token", "x"],
            "contrastive.hub_token cannot be set: the run does not publish; `te-trainer push ",
        ),
        (["--models", "bert"], "unknown key 'models'; did you mean 'model'?"),
        (["--data.max_sentences", "0"], "data.max_sentences: input should be greater than 0, got 0"),
        (
            ["--data.columns", "{score: x, text: y}"],
            "data.columns.text: input should be one of sentence1,",
        ),
        (["--model", ""], "model is empty; give a value"),
        (["--data.sentences", "[]"], "data.sentences is empty: name at least one source"),
        (["--seed", "-1"], "seed: input should be greater than or equal to 0"),
        (["--report_to", "[tensorbord]"], "report_to: input should be 'tensorboard'"),
        (["--ddp_timeout", "0"], "ddp_timeout: input should be greater than or equal to 1, got 0"),
        (["--config", "none.yaml"], "--config: none.yaml cannot be read"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(more: list[str], words: str, refused: Callable[..., str]) -> None:
    assert words in refused(*more)


def test_a_span_wants_a_mask_token(refused: Callable[..., str], tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    path = model / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["mask_token"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "its tokenizer has no mask token; set contrastive.span to 0" in refused(
        "--model", model, "--contrastive.span", "5"
    )


def test_a_model_without_dropout_wants_a_span(run: Run, refused: Callable[..., str], tmp_path: Path) -> None:
    """Both views of a sentence would be the same, and nothing would be learnt of it."""
    model = save_tiny(tmp_path / "model")
    path = model / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}))
    assert "it has no dropout, so that both views of a sentence would be the same" in refused("--model", model)
    status, _, err = run("--model", model, "--contrastive.span", "5", "--contrastive.max_steps", "1")
    assert status == 0, err


@pytest.mark.parametrize(
    ("config", "dropout", "without"),
    [
        (OPTConfig(num_hidden_layers=1, word_embed_proj_dim=8), {"dropout": 0.1}, {"dropout": 0.0}),
        (GPTJConfig(n_layer=1), {"attn_pdrop": 0.1}, {"attention_dropout": 0.1}),  # the latter is no key of its
        (BertConfig(num_hidden_layers=1), {"hidden_dropout_prob": 0.1}, {}),
    ],
)
def test_dropout_is_what_a_models_layers_have(
    config: PretrainedConfig, dropout: dict[str, float], without: dict[str, float]
) -> None:
    keys = ("dropout", "attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "layerdrop")
    for key in (*keys, "hidden_dropout_prob", "attention_probs_dropout_prob"):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    for values, expected in ((without, False), (dropout, True)):
        changed = copy.deepcopy(config)
        for key, value in values.items():
            setattr(changed, key, value)
        assert has_dropout(changed) == expected


def test_an_encoder_that_is_worse_on_dev_than_its_start_is_called_so() -> None:
    results: dict[str, Any] = {"start": {"bi-encoder": {"dev": 0.5}}, "final": {"bi-encoder": {"dev": 0.4}}}
    results["truncation"] = {}
    table = contrastive_table(results, "spearman")
    assert table is not None and "did not improve it" in table.notes[0]
    results["final"]["bi-encoder"]["dev"] = 0.6
    table = contrastive_table(results, "spearman")
    assert table is not None and not table.notes


def test_the_pooling_of_a_saved_model_is_kept(
    run: Run, refused: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    BiEncoder.from_pretrained(str(tiny), pooling="mean").save_pretrained(tmp_path / "saved")
    model = str(tmp_path / "saved")
    assert f"but contrastive.pooling (by default what model {model} says) is mean" in refused("--model", model)
    status, _, err = run("--model", model, "--contrastive.mlp_head", "false", "--contrastive.max_steps", "1")
    assert status == 0, err
    assert BiEncoder.from_pretrained(str(tmp_path / "out" / "bi-encoder")).pooling == "mean"
    record = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text(encoding="utf-8"))
    assert record["resolved"]["pooling"] == "mean"


def test_a_decoder_with_neither_dropout_nor_mask_token_is_told_what_helps(
    run: Run, refused: Callable[..., str], tmp_path: Path
) -> None:
    model = save_decoder(tmp_path / "decoder", "qwen2")
    more = ["--contrastive.pooling", "last", "--contrastive.mlp_head", "false", "--contrastive.max_steps", "2"]
    assert "no dropout and its tokenizer no mask token" in refused("--model", model, *more)
    path = model / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | {"attention_dropout": 0.1}
    path.write_text(json.dumps(content), encoding="utf-8")
    status, _, err = run("--model", model, *more)
    assert status == 0, err


def test_a_decoder_learns_by_its_last_token(run: Run, refused: Callable[..., str], tmp_path: Path) -> None:
    model = save_decoder(tmp_path / "decoder", "gpt2")
    assert "a decoder's first token sees no other; set contrastive.pooling to last" in refused("--model", model)
    more = ["--contrastive.pooling", "last", "--contrastive.mlp_head", "false", "--contrastive.max_steps", "2"]
    status, _, err = run("--model", model, *more)
    assert status == 0, err
    assert BiEncoder.from_pretrained(str(tmp_path / "out" / "bi-encoder")).pooling == "last"


def test_a_changed_run_is_refused(run: Run, sentences: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(sentences.read_bytes())
    more = ["--data.sentences", str(mine), "--contrastive.max_steps", "1", "--data.dev", "null", "--data.test", "[]"]
    assert run(*more)[0] == 0
    (tmp_path / "out" / "results.json").unlink()
    status, _, err = run(*more, "--contrastive.temperature", "0.1")
    assert status == 2 and "contrastive.temperature (was 0.05, is 0.1)" in err
    mine.write_text(mine.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    status, _, err = run(*more)
    assert status == 2 and "mine.txt: the file has changed since the run in out began" in err


QUICK = ["--contrastive.max_steps", "2", "--data.dev", "null", "--data.test", "[]"]


@pytest.fixture(scope="module")
def quick(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    output = tmp_path_factory.mktemp("quick") / "out"
    done = run_forked("contrastive.py", [*arguments, *QUICK, "--output_dir", str(output)])
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize(
    ("file", "delete"),
    [
        ("sentences/sentences.arrow", "sentences"),
        ("scores/final.json", "scores/final.json"),
        ("bi-encoder.training.json", "bi-encoder.training.json"),
        ("bi-encoder/model.safetensors", "bi-encoder"),
        ("results.json", "results.json"),
    ],
)
def test_a_damaged_file_is_named_and_made_again(quick: Path, run: Run, tmp_path: Path, file: str, delete: str) -> None:
    shutil.copytree(quick, tmp_path / "out")
    weights = (tmp_path / "out" / "bi-encoder" / "model.safetensors").read_bytes()
    if file != "results.json":
        (tmp_path / "out" / "results.json").unlink()
    if file == "bi-encoder/model.safetensors":
        (tmp_path / "out" / "scores" / "final.json").unlink()
    path = tmp_path / "out" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    status, _, err = run(*QUICK)
    sentence = err.splitlines()[-1]
    assert status == 2 and "Traceback" not in err and " damaged" in sentence, err
    assert str(Path("out", delete)) in sentence and " command " in sentence
    remove(tmp_path / "out" / delete)
    assert run(*QUICK)[0] == 0
    assert (tmp_path / "out" / "bi-encoder" / "model.safetensors").read_bytes() == weights


def test_a_finished_run_whose_encoder_is_gone_says_so(quick: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(quick, tmp_path / "out")
    remove(tmp_path / "out" / "bi-encoder")
    status, out, err = run(*QUICK)
    assert (status, out) == (2, "")
    assert err == (
        "error: out/bi-encoder is not there any more; delete out/results.json, and the same command trains it again\n"
    )
    remove(tmp_path / "out" / "results.json")
    assert run(*QUICK)[0] == 0 and (tmp_path / "out" / "bi-encoder" / "config.json").exists()


# ---------------------------------------------------------------- configuration


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_whole(path: Path) -> None:
    config = parse_contrastive(["--config", str(path)])
    values = contrastive_arguments(config.contrastive, 1)
    assert values["num_train_epochs"] == 1
    table = {  # README of princeton-nlp/SimCSE; mirror_scripts of cambridgeltl/mirror-bert
        "simcse_bert_base": (64, 3e-5),
        "simcse_bert_large": (64, 1e-5),
        "simcse_roberta_base": (512, 1e-5),
        "simcse_roberta_large": (512, 3e-5),
        "mirror_bert_base": (200, 2e-5),
        "mirror_roberta_base": (200, 2e-5),
        "minilm_cpu": (64, 3e-5),
        "distilbert_cpu": (64, 5e-5),
    }
    assert (values["per_device_train_batch_size"], values["learning_rate"]) == table[path.stem]


def test_the_authors_batch_is_divided_among_ranks() -> None:
    assert contrastive_arguments(ContrastiveTrainingConfig(), 4)["per_device_train_batch_size"] == 16
    own = ContrastiveTrainingConfig({"per_device_train_batch_size": 8})
    assert contrastive_arguments(own, 4)["per_device_train_batch_size"] == 8


def test_step0_keeps_what_the_run_does_not_decide(tmp_path: Path) -> None:
    path = tmp_path / "step0.yaml"
    path.write_text("model: m\noutput_dir: o\nseed: 3\ndata: {dev: stsb, test: [sts12]}\ncontrastive: {span: 3}\n")
    config = parse_step0(str(path))
    assert (config.model, config.output_dir, config.seed, config.data.dev, config.data.test) == ("", "", 0, None, [])
    assert (config.contrastive, config.data.sentences) == (ContrastiveTrainingConfig(span=3), [])
    path.write_text("data: {split: train}\n")
    with pytest.raises(InputError, match=r"^distillation\.step0: data\.split in .*step0\.yaml belongs to data"):
        parse_step0(str(path))
    path.write_text("contrastive: {spam: 3}\n")
    with pytest.raises(InputError, match=r"^distillation\.step0: unknown key 'contrastive\.spam'; .*contrastive\.span"):
        parse_step0(str(path))


def test_step0_on_the_pool_has_the_settings_of_the_recipe() -> None:
    on_pool, recipe = (parse_step0(str(path)) for path in (ON_POOL, FOLDER / "simcse_bert_base.yaml"))
    assert on_pool.contrastive == recipe.contrastive
    assert (on_pool.data.sentences, recipe.data.sentences) == ([], ["wiki1m_for_simcse.txt"])


def test_help_answers_without_torch() -> None:
    finished = subprocess.run(
        [sys.executable, str(RECIPE), "--help-all"],
        env=process_environment(PYTHONPROFILEIMPORTTIME="1", COLUMNS="100000"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in finished.stderr.splitlines() if "import time:" in line}
    assert "te_trainer.config.commands" in imported
    assert not {name for name in imported if name.split(".")[0] in {"torch", "transformers", "datasets"}}
    said: dict[str, Any] = {
        "contrastive.temperature": "default: 0.05)",
        "contrastive.learning_rate": "default: 3e-05, SimCSE's, for BERT-base)",
        "contrastive.eval_steps": "default: 125",
        "data.sentences": "a sentence a line",
        "model": "The plain PLM",
    }
    for key, words in said.items():
        line = next(line for line in finished.stdout.splitlines() if line.startswith(f"  --{key}"))
        text = finished.stdout[finished.stdout.index(line) :]
        assert words in text[: text.index("\n  --", 1)], key
