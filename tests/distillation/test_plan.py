"""What a configuration means: the paper's values, the user's over them, and what is refused before any work."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from conftest import save_tiny
from safetensors.torch import save_file
from transformers import BertConfig

from te_trainer.config.commands import parse
from te_trainer.config.schema import RunConfig
from te_trainer.distillation.plan import DistillationPlan, EncoderPlan, make_plan
from te_trainer.distillation.work import training_work
from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, CrossEncoder


def configure(plm: Path, *more: str) -> RunConfig:
    return parse(["--models", f"[{plm}]", "--data.pool", "pairs.tsv", "--distillation.selection", "last", *more])


def make(plm: Path, *more: str, processes: int = 1) -> tuple[DistillationPlan, dict[str, EncoderPlan]]:
    """The plan of a run of one PLM, and that of its encoders by kind."""
    plan = make_plan(configure(plm, *more), processes)
    (model,) = plan.models.values()
    return plan, dict(model.encoders.items())


@pytest.mark.parametrize("key", ["bi_encoder.optim", "cross_encoder.lr_scheduler_type", "bi_encoder.logging_strategy"])
def test_a_name_that_transformers_does_not_know_is_refused_early(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(key)}: 'linnear' is none of "):
        make(tmp_path, f"--{key}", "linnear")


TABLE_16 = """
task    size   direction      learning_rate  batch  epochs  tokens  cycles
sts     base   cross-encoder  2e-5           32     1       64      3
sts     base   bi-encoder     5e-5           128    10      32      3
binary  base   cross-encoder  2e-5           32     3       64      5
binary  base   bi-encoder     5e-5           128    15      32      5
sts     large  cross-encoder  2e-5           32     1       64      3
sts     large  bi-encoder     5e-5           64     10      32      3
binary  large  cross-encoder  2e-5           32     3       64      5
binary  large  bi-encoder     5e-5           64     15      32      5
"""


@pytest.mark.parametrize("row", TABLE_16.split("\n")[2:-1], ids=lambda row: "-".join(row.split()[:3]))
@pytest.mark.parametrize("by", ["key", "hidden size"])
def test_defaults_are_those_of_table_16(row: str, by: str, sized_plms: dict[str, Path]) -> None:
    task, size, kind, learning_rate, batch, epochs, tokens, cycles = row.split()
    plm = sized_plms[size] if by == "hidden size" else sized_plms["large" if size == "base" else "base"]
    more = [] if by == "hidden size" else ["--distillation.size", size]
    plan, encoders = make(plm, "--distillation.task", task, *more)
    encoder = encoders[kind]
    assert (plan.cycles, encoder.max_length) == (int(cycles), int(tokens))
    assert encoder.training["learning_rate"] == float(learning_rate)
    assert encoder.training["per_device_train_batch_size"] == int(batch)
    assert encoder.training["num_train_epochs"] == int(epochs)
    # The official code: warm-up over a tenth of the cross-encoder's steps, none for the bi-encoder.
    assert encoder.training["warmup_steps"] == (0.1 if kind == "cross-encoder" else 0)
    assert encoder.training["weight_decay"] == 0.01
    public = {"bi-encoder": BiEncoder, "cross-encoder": CrossEncoder}[kind]
    assert {key.name: key.default for key in fields(public)}["max_length"] == int(tokens)


@pytest.mark.parametrize(("processes", "size"), [(1, 128), (4, 32), (256, 1)])
def test_the_papers_batch_is_divided_among_processes(processes: int, size: int, sized_plms: dict[str, Path]) -> None:
    _, encoders = make(sized_plms["base"], processes=processes)
    assert encoders["bi-encoder"].training["per_device_train_batch_size"] == size


def test_what_the_user_gives_goes_before_the_paper(sized_plms: dict[str, Path]) -> None:
    given = ["--bi_encoder.learning_rate", "1e-4", "--bi_encoder.per_device_train_batch_size", "48"]
    given += ["--bi_encoder.max_grad_norm", "2", "--distillation.cycles", "1", "--cross_encoder.max_length", "100"]
    plan, encoders = make(sized_plms["base"], *given, "--cross_encoder.bf16", "false", processes=4)
    bi, cross = encoders["bi-encoder"].training, encoders["cross-encoder"].training
    assert (bi["learning_rate"], bi["per_device_train_batch_size"], bi["max_grad_norm"]) == (1e-4, 48, 2)
    assert (bi["num_train_epochs"], bi["precision"], cross["precision"]) == (10, "auto", "float32")
    assert (cross["learning_rate"], cross["per_device_train_batch_size"]) == (2e-5, 8)
    assert (plan.cycles, encoders["cross-encoder"].max_length) == (1, 100)


def test_a_plan_says_what_a_run_keeps_and_trains(sized_plms: dict[str, Path]) -> None:
    plan, encoders = make(sized_plms["base"], "--distillation.students", "bi-encoder")
    assert list(encoders) == list(plan.kinds) == ["bi-encoder"] and not plan.keeps_all_cycles
    plan, _ = make(sized_plms["base"], "--distillation.selection", "agreement")
    assert plan.kinds == ("bi-encoder", "cross-encoder") and plan.keeps_all_cycles
    assert plan.resolved["resolved"]["base"]["cross-encoder"]["both_orders"] is True


@pytest.mark.parametrize(
    ("selection", "dev", "chosen", "cycles", "held_out"),
    [
        ("auto", "null", "health", 2, 0.03),
        ("health", "null", "health", 2, 0.03),
        ("health", "pairs.tsv", "health", 2, 0.03),
        ("auto", "pairs.tsv", "dev", 3, 0.03),
        ("last", "null", "last", 3, 0.0),
    ],
)
def test_health_chooses_among_fewer_cycles(
    selection: str, dev: str, chosen: str, cycles: int, held_out: float, sized_plms: dict[str, Path]
) -> None:
    plan, _ = make(sized_plms["base"], "--distillation.selection", selection, "--data.dev", dev)
    assert (plan.selector, plan.cycles, plan.held_out) == (chosen, cycles, held_out)
    assert plan.may_keep_start == (selection == "auto")


@pytest.mark.parametrize(
    ("section", "precision", "prompt", "attention"),
    [
        ("method: simcse", "float32", "query: ", "eager"),
        ("{prompt: 'x: ', precision: bfloat16, attn_implementation: sdpa}", "bfloat16", "x: ", "sdpa"),
    ],
)
def test_step0_takes_precision_prompt_and_attention_of_the_run_where_its_file_has_none(
    section: str, precision: str, prompt: str, attention: str, sized_plms: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "step0.yaml"
    file.write_text(f"contrastive: {section if section[0] == '{' else '{' + section + '}'}\n", encoding="utf-8")
    keys = ["--distillation.step0", str(file), "--distillation.precision", "float32", "--bi_encoder.prompt", "query: "]
    plan, _ = make(sized_plms["base"], *keys, "--bi_encoder.attn_implementation", "eager")
    step0 = plan.models["base"].step0
    assert step0 is not None and (step0.training["precision"], step0.prompt_text) == (precision, prompt)
    assert step0.encoder["attn_implementation"] == attention


def test_the_bi_encoder_that_step0_makes_has_its_prompt(sized_plms: dict[str, Path], tmp_path: Path) -> None:
    """It is saved with the encoder, so what is counted and refused before the work counts it too."""
    file = tmp_path / "step0.yaml"
    file.write_text("contrastive: {prompt: 'x: '}\n", encoding="utf-8")
    for more, prompt in (((), "x: "), (("--bi_encoder.prompt", "y: "), "y: ")):
        plan, _ = make(sized_plms["base"], "--distillation.step0", str(file), *more)
        encoders = plan.models["base"].encoders
        assert (encoders["bi-encoder"].prompt_text, encoders["cross-encoder"].prompt_text) == (prompt, "")


@pytest.mark.parametrize(
    ("pairs", "more", "epochs"),
    [
        (37_081, (), 1),  # the paper's pool of STS
        (3_200, (), 1),
        (3_000, (), 2),
        (1_000, (), 4),
        (300, (), 5),
        (10, (), 5),
        (1_000, ("--cross_encoder.both_orders", "false"), 5),
        (1_000, ("--cross_encoder.per_device_train_batch_size", "8"), 1),
        (1_000, ("--cross_encoder.num_train_epochs", "2"), 2),
        (5_801, ("--distillation.task", "binary"), 3),  # MRPC's, the paper's smallest pool
    ],
)
def test_a_small_pool_is_learnt_for_more_epochs(
    sized_plms: dict[str, Path], pairs: int, more: tuple[str, ...], epochs: float
) -> None:
    for processes in (1, 4):
        plan, encoders = make(sized_plms["base"], *more, processes=processes)
        (model,) = plan.fit(pairs, processes).models.values()
        if processes == 1:
            assert model.encoders["cross-encoder"].training["num_train_epochs"] == epochs
        assert model.encoders["cross-encoder"].training.keys() == encoders["cross-encoder"].training.keys()
        assert model.encoders["bi-encoder"] == encoders["bi-encoder"]


def test_without_gold_students_of_a_plain_plm_and_a_large_pool_are_kept(
    sized_plms: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "step0.yaml").write_text("contrastive: {method: simcse}\n", encoding="utf-8")
    auto, step0 = ["--distillation.selection", "auto"], ["--distillation.step0", str(tmp_path / "step0.yaml")]

    def may_keep_start(pairs: int, *more: str, plm: Path = sized_plms["base"]) -> bool:
        return make(plm, *auto, *more)[0].fit(pairs, 1).may_keep_start

    assert not may_keep_start(4000, *step0)
    assert not may_keep_start(4000, *step0, "--cross_encoder.num_train_epochs", "1")
    assert may_keep_start(3999, *step0)
    assert may_keep_start(4000)  # who knows what the checkpoint has learnt from
    assert may_keep_start(4000, *step0, "--data.dev", "dev.tsv")
    assert may_keep_start(4000, *step0, "--mining.pairs", "9")  # mined pairs beside given ones were not tried
    assert may_keep_start(4000, *step0, "--distillation.students", "bi-encoder")
    BiEncoder.from_pretrained(save_tiny(tmp_path / "plain")).save_pretrained(tmp_path / "trained")
    assert not may_keep_start(4000, *step0, plm=tmp_path / "plain")
    assert may_keep_start(4000, *step0, plm=tmp_path / "trained")  # sentence-transformers' layout: it was trained


@pytest.mark.parametrize(
    ("more", "trusts"),
    [
        ([], True),
        (["--mining.sources", "[random, bm25]"], True),
        (["--mining.sources", "[bm25]"], False),
        (["--mining.sources", "[bm25, random, neighbours]"], False),
        (["--data.document", "page"], False),
        (["--data.pool", "[more.tsv]"], False),
    ],
    ids=str,
)
def test_without_gold_mined_pairs_are_trusted_as_far_as_they_were_tried(
    more: list[str], trusts: bool, sized_plms: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "step0.yaml").write_text("contrastive: {method: simcse}\n", encoding="utf-8")
    keys = ["--data.pool", "[]", "--data.sentences", "[texts.txt]", "--distillation.selection", "auto", *more]
    plan, _ = make(sized_plms["base"], "--distillation.step0", str(tmp_path / "step0.yaml"), *keys)
    assert plan.cycles == (2 if "--data.pool" in more else 1)
    assert plan.fit(4000, 1).may_keep_start != trusts and plan.fit(3999, 1).may_keep_start
    dev, _ = make(sized_plms["base"], *keys, "--data.dev", "dev.tsv")
    assert dev.cycles == 3


def test_the_length_of_trainings_is_said(sized_plms: dict[str, Path]) -> None:
    plan, _ = make(sized_plms["base"], "--bi_encoder.max_steps", "7", "--distillation.precision", "float32")
    assert plan.fit(300, 1).describe(300, 1) == [
        "base: each of 3 cross-encoders: about 95 steps of 32 pairs, 5 epochs, learning rate 5e-05, float32",
        "base: each of 3 bi-encoders: 7 steps of 128 pairs, learning rate 5e-05, float32",
    ]
    by_health, _ = make(sized_plms["base"], "--distillation.selection", "health")
    # a plan may be fitted twice
    assert (
        "about 285 steps of 32 pairs of the pool and random ones of its sentences, learning"
        in by_health.fit(300, 1).fit(300, 1).describe(300, 1)[0]
    )
    assert "random ones" not in by_health.fit(500, 1).describe(500, 1)[0]
    plan, _ = make(sized_plms["base"], "--bi_encoder.bf16", "true", "--distillation.precision", "float32")
    cross, bi = plan.fit(300, 1).describe(300, 1)
    assert cross.endswith("float32") and bi.endswith("bfloat16")


@pytest.mark.parametrize("init", ["refresh", "sequential"])
def test_a_cross_encoder_that_starts_from_its_teacher_has_the_rate_of_its_size(
    sized_plms: dict[str, Path], tiny: Path, init: str
) -> None:
    models = f"[{{bi_encoder: {sized_plms['base']}, cross_encoder: {tiny}, name: one}}]"
    plan, encoders = make(sized_plms["base"], "--models", models, "--distillation.init", init)
    cross, said = encoders["cross-encoder"], plan.describe_unused()
    if init == "refresh":
        assert (cross.start.name, cross.training["learning_rate"], said) == (str(tiny), 1e-4, [])
        return
    assert (cross.start.name, cross.training["learning_rate"]) == (str(sized_plms["base"]), 2e-5)
    fitted = plan.fit(100_000, 1).models["one"].encoders["cross-encoder"]
    assert fitted.training["learning_rate"] == 2e-5
    assert [line.endswith(f"models.cross_encoder, {tiny}, is not used") for line in said] == [True]
    assert make(tiny, "--distillation.init", init)[0].describe_unused() == []
    alone, _ = make(tiny, "--models", models, "--distillation.init", init, "--distillation.students", "bi-encoder")
    assert alone.describe_unused() == []


def test_steps_are_as_many_as_was_asked_for(sized_plms: dict[str, Path]) -> None:
    plan, encoders = make(sized_plms["base"], "--cross_encoder.max_steps", "7", "--cross_encoder.learning_rate", "2e-5")
    lengths = {kind: encoder.length_key for kind, encoder in encoders.items()}
    assert lengths == {"bi-encoder": "num_train_epochs", "cross-encoder": "max_steps"}
    assert plan.fit(10, 1) == plan
    works = [training_work(plan, next(iter(plan.models)), kind, 10) for kind in ("cross-encoder", "bi-encoder")]
    # four passes' cost for each pass over the ten pairs: 7 steps of 32, and ten epochs
    assert works == [4 * 7 * 32 / 10, 4 * 10]


@pytest.mark.parametrize(
    ("hidden", "layers", "pairs", "more", "rate"),
    [
        (768, 12, 37_081, (), 2e-5),
        # 1,089 steps, the shortest training of its main tables
        (768, 12, 5_801, ("--distillation.task", "binary"), 2e-5),
        (768, 12, 8_000, (), 2e-5 * 1089 / 500),
        (768, 12, 4_000, (), 5e-5),
        (768, 7, 4_000, (), 5e-5),
        (768, 6, 4_000, (), 2e-5 * 1089 / 250),
        (768, 6, 300, (), 1e-4),
        (768, 12, 300, (), 5e-5),
        (768, 12, 37_081, ("--cross_encoder.max_steps", "726"), 3e-5),
        (768, 6, 4_000, ("--cross_encoder.learning_rate", "3e-5"), 3e-5),
        (384, 12, 4_000, (), 8e-5),  # already larger, for its size
        (384, 6, 4_000, (), 1e-4),
        (1024, 24, 4_000, (), 2e-5),  # what large models bear was not measured
        (1024, 6, 4_000, (), 2e-5),
    ],
)
def test_few_steps_of_a_base_model_are_larger(
    hidden: int, layers: int, pairs: int, more: tuple[str, ...], rate: float, tmp_path: Path
) -> None:
    BertConfig(hidden_size=hidden, num_attention_heads=8, num_hidden_layers=layers).save_pretrained(tmp_path)
    save_file({"one": torch.zeros(1)}, tmp_path / "model.safetensors")
    for processes in (1, 4):
        plan = make(tmp_path, *more, processes=processes)[0].fit(pairs, processes)
        assert plan.fit(pairs, processes) == plan
        (model,) = plan.models.values()
        assert model.encoders["cross-encoder"].training["learning_rate"] == pytest.approx(rate)
        assert model.encoders["bi-encoder"].training["learning_rate"] == 5e-5


@pytest.mark.parametrize(("hidden", "rate"), [(128, 1e-4), (384, 8e-5), (512, 4.5e-5), (768, 2e-5), (4096, 2e-5)])
def test_a_small_model_learns_in_larger_steps(hidden: int, rate: float, tmp_path: Path) -> None:
    BertConfig(hidden_size=hidden, num_attention_heads=8).save_pretrained(tmp_path)
    save_file({"one": torch.zeros(1)}, tmp_path / "model.safetensors")
    _, encoders = make(tmp_path)
    assert encoders["cross-encoder"].training["learning_rate"] == pytest.approx(rate)
    assert encoders["bi-encoder"].training["learning_rate"] == 5e-5
    _, encoders = make(tmp_path, "--cross_encoder.learning_rate", "3e-4")
    assert encoders["cross-encoder"].training["learning_rate"] == 3e-4


def test_steps_that_no_pool_fills_are_refused_before_the_work(sized_plms: dict[str, Path]) -> None:
    """The trainer would find out when the cross-encoder has been trained, in a folder that takes no other keys."""
    keys = ["--bi_encoder.dataloader_drop_last", "true", "--bi_encoder.gradient_accumulation_steps", "2"]
    plan, _ = make(sized_plms["base"], *keys, "--distillation.held_out", "0.1")
    plan.check_batches(285, 1)
    with pytest.raises(
        InputError, match=r"^bi_encoder\.dataloader_drop_last: a step takes 256 pairs, and there are 255;"
    ):
        plan.check_batches(284 - 1, 1)
    make(sized_plms["base"])[0].check_batches(1, 1)
    # a cross-encoder of so small a pool learns other pairs, too
    keys = ["--cross_encoder.dataloader_drop_last", "true", "--distillation.selection", "health"]
    plan, _ = make(sized_plms["base"], *keys)
    plan.fit(12, 1).check_batches(12, 1)
