"""What changes no result may change when a run is continued; all else is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import brief_gold, results_of, tiny_arguments
from forked import Forked, run_forked
from safetensors.numpy import load_file

from te_trainer.config.commands import parse, parse_contrastive, parse_evaluation
from te_trainer.config.schema import ContrastiveConfig, EvaluationConfig, RunConfig
from te_trainer.contrastive import plan as contrastive_plan
from te_trainer.data import GoldSets, load_gold
from te_trainer.distillation import plan as distillation_plan
from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.runs.checks import gold_fingerprints
from te_trainer.runs.folder import run_in_output_dir
from te_trainer.runs.manifest import Fingerprint, RunManifest

JOB = "trans_encoder.py"
SIMCSE = "--data.sentences", "pairs.txt", "--contrastive.per_device_train_batch_size"


def begin(root: Path, config: RunConfig | ContrastiveConfig | EvaluationConfig, processes: int = 1) -> None:
    """As a run begins that stands on nothing."""
    manifest(root, config, processes).begin_or_continue([])


def manifest(root: Path, config: Any, processes: int = 1) -> RunManifest[Any]:
    if isinstance(config, EvaluationConfig):
        return RunManifest[Any](root, config, processes)
    plans = contrastive_plan if isinstance(config, ContrastiveConfig) else distillation_plan
    return RunManifest[Any](root, config, processes, plans.make_plan)


def refuse_other_configuration(root: Path, config: Any, processes: int) -> None:
    manifest(root, config, processes).refuse_other_configuration()


def main_job(tiny: Path, root: Path, *more: str) -> RunConfig:
    return parse(tiny_arguments(tiny, root, *more))


ALLOWED = {
    "report_to": "[tensorboard]",
    "hub.repo_id": "me/tickets",
    "distillation.isolate_stages": "true",
    "distillation.batch_tokens": "512",
    "distillation.keep_cycles": "true",
    "bi_encoder.dataloader_num_workers": "2",
    "bi_encoder.dataloader_pin_memory": "false",
    "bi_encoder.gradient_checkpointing": "true",
    "cross_encoder.dataloader_num_workers": "1",
    "cross_encoder.dataloader_prefetch_factor": "4",
    "cross_encoder.dataloader_persistent_workers": "true",
    "cross_encoder.logging_steps": "7",
    "bi_encoder.logging_first_step": "true",
    "bi_encoder.log_level": "debug",
    "bi_encoder.per_device_eval_batch_size": "8",
    "ddp_timeout": "7200",
}
REFUSED = {
    "seed": "7",
    "distillation.cycles": "3",
    "distillation.precision": "bfloat16",
    "bi_encoder.attn_implementation": "eager",
    "bi_encoder.learning_rate": "1e-3",
    "bi_encoder.max_length": "16",
    "bi_encoder.dataloader_drop_last": "true",
    "cross_encoder.eval_steps": "8",
    "cross_encoder.optim": "sgd",
    "lora.rank": "4",
    "data.dir": "elsewhere",
}


def test_what_changes_no_result_may_change(tiny: Path, tmp_path: Path) -> None:
    begin(tmp_path, main_job(tiny, tmp_path))
    everything = [part for key, value in ALLOWED.items() for part in (f"--{key}", value)]
    refuse_other_configuration(tmp_path, main_job(tiny, tmp_path / "elsewhere", *everything), 1)


def test_a_run_of_an_older_version_goes_on_without_a_key_that_is_gone(tiny: Path, tmp_path: Path) -> None:
    config = main_job(tiny, tmp_path)
    begin(tmp_path, config)
    file = tmp_path / "run.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["config"]["cross_encoder"]["save_total_limit"] = 1
    write_text(file, yaml.safe_dump(content, sort_keys=False))
    refuse_other_configuration(tmp_path, config, 1)
    begin(tmp_path, config)
    assert "save_total_limit" not in yaml.safe_load(file.read_text(encoding="utf-8"))["config"]["cross_encoder"]


@pytest.mark.parametrize("key", REFUSED)
def test_all_else_is_refused_with_what_may_change(tiny: Path, tmp_path: Path, key: str) -> None:
    begin(tmp_path, main_job(tiny, tmp_path))
    more = [f"--{key}", REFUSED[key], "--report_to", "[tensorboard]", "--distillation.batch_tokens", "512"]
    with pytest.raises(InputError) as caught:
        refuse_other_configuration(tmp_path, main_job(tiny, tmp_path, *more), 1)
    sentence = str(caught.value)
    assert f"was begun with another configuration: {key} (was " in sentence and sentence.count("(was ") == 1
    for name in ("hub", "report_to", "distillation.isolate_stages", "per_device_eval_batch_size", "logging_*"):
        assert name in sentence.partition("; name another folder")[2]


@pytest.mark.parametrize(
    ("began", "size", "accumulation", "processes", "allowed"),
    [
        (1, 8, 2, 1, True),
        (1, 4, 4, 1, True),
        (1, 8, 1, 2, True),
        (2, 32, 1, 1, True),
        (1, 8, 1, 1, False),
        (1, 32, 1, 1, False),
        (1, 8, 2, 2, False),
        (2, 16, 1, 1, False),
    ],
)
def test_the_same_batch_may_be_split_otherwise(
    tiny: Path, tmp_path: Path, began: int, size: int, accumulation: int, processes: int, allowed: bool
) -> None:
    """A run that began with batches of 16 on each device."""
    begin(tmp_path, main_job(tiny, tmp_path), began)
    split = ["--bi_encoder.per_device_train_batch_size", str(size)]
    split += ["--bi_encoder.gradient_accumulation_steps", str(accumulation)]
    config = main_job(tiny, tmp_path, *split)
    if allowed:
        refuse_other_configuration(tmp_path, config, processes)
        return
    with pytest.raises(InputError, match="bi_encoder"):
        refuse_other_configuration(tmp_path, config, processes)


@pytest.mark.parametrize(("processes", "finished"), [(2, False), (2, True), (1, False)])
def test_another_number_of_processes_may_not_change_a_batch(
    tiny: Path, tmp_path: Path, processes: int, finished: bool
) -> None:
    """With 16 pairs given for each device; the cross-encoder's batch is the paper's, on any number of devices."""
    begin(tmp_path, main_job(tiny, tmp_path))
    if finished:
        (tmp_path / "results.json").touch()
    if finished or processes == 1:
        refuse_other_configuration(tmp_path, main_job(tiny, tmp_path), processes)
        return
    with pytest.raises(InputError) as caught:
        refuse_other_configuration(tmp_path, main_job(tiny, tmp_path), processes)
    for words in ("number of processes (1, now 2)", "batches of 32 in bi_encoder instead of 16", "size to 8, or"):
        assert words in str(caught.value)


def test_a_run_that_continued_on_fewer_processes_continues_again(tiny: Path, tmp_path: Path) -> None:
    """The paper's batch of 32 pairs, on any number of devices; the one that counts is the last one's."""
    config = main_job(tiny, tmp_path)
    del config.bi_encoder.training["per_device_train_batch_size"]
    begin(tmp_path, config, processes=2)
    manifest(tmp_path, config, processes=1).refuse_other_configuration()
    manifest(tmp_path, config, processes=1).add()
    for processes in (1, 2):
        refuse_other_configuration(tmp_path, config, processes)


def test_another_number_of_processes_may_not_change_the_batch_of_step0(tiny: Path, tmp_path: Path) -> None:
    given = ["--model", str(tiny), "--output_dir", str(tmp_path), *SIMCSE, "16"]
    begin(tmp_path, parse_contrastive(given), processes=3)
    with pytest.raises(InputError, match=r"\(3, now 1\).* of 16 in contrastive instead of 48; .* to 48, or"):
        refuse_other_configuration(tmp_path, parse_contrastive(given), 1)


def test_a_batch_of_the_paper_is_the_same_batch_when_it_is_given(tiny: Path, tmp_path: Path) -> None:
    begin(tmp_path, main_job(tiny, tmp_path))
    half = ["--cross_encoder.gradient_accumulation_steps", "2", "--cross_encoder.per_device_train_batch_size"]
    refuse_other_configuration(tmp_path, main_job(tiny, tmp_path, *half, "16"), 1)
    with pytest.raises(InputError, match="cross_encoder"):
        refuse_other_configuration(tmp_path, main_job(tiny, tmp_path, *half, "32"), 1)


def test_a_split_that_was_taken_back_is_forgotten(tiny: Path, tmp_path: Path) -> None:
    half = ["--cross_encoder.gradient_accumulation_steps", "2", "--cross_encoder.per_device_train_batch_size", "16"]
    for split in ([], half, [], [], half):
        continued = manifest(tmp_path, main_job(tiny, tmp_path, *split))
        continued.refuse_other_configuration()
        continued.begin_or_continue([])


@pytest.mark.parametrize(
    ("size", "accumulation", "processes", "allowed"), [(8, 1, 2, True), (16, 1, 1, True), (8, 2, 1, False)]
)
def test_in_batch_negatives_come_from_as_many_sentences(
    tiny: Path, tmp_path: Path, size: int, accumulation: int, processes: int, allowed: bool
) -> None:
    """Accumulated batches do not meet, those of several devices do."""
    given = ["--model", str(tiny), "--output_dir", str(tmp_path), *SIMCSE]
    begin(tmp_path, parse_contrastive([*given, "16"]))
    accumulate = ["--contrastive.gradient_accumulation_steps", str(accumulation)] * (accumulation > 1)
    config = parse_contrastive([*given, str(size), *accumulate, "--report_to", "[tensorboard]"])
    if allowed:
        refuse_other_configuration(tmp_path, config, processes)
        return
    with pytest.raises(InputError, match=r"contrastive\.gradient_accumulation_steps \(was None, is 2\)"):
        refuse_other_configuration(tmp_path, config, processes)


def test_the_mend_for_step0_names_a_key_that_there_is(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "step0.yaml").write_text("contrastive: {per_device_train_batch_size: 8}\n", encoding="utf-8")
    given = ["--distillation.step0", str(tmp_path / "step0.yaml")]
    for section in ("bi_encoder", "cross_encoder"):
        given += [f"--{section}.per_device_train_batch_size", "8"]
    begin(tmp_path / "run", main_job(tiny, tmp_path / "run", *given))
    words = r"of 16 in (.*) instead of 8; start as many as before, set (.*) to 4(.*), or name"
    fewer = [*given[:2], *(part if part != "8" else "4" for part in given[2:])]
    with pytest.raises(InputError, match=words) as caught:
        refuse_other_configuration(tmp_path / "run", main_job(tiny, tmp_path / "run", *fewer), 2)
    found = re.search(words, str(caught.value))
    assert found and found.groups() == (
        "step 0",
        "contrastive.per_device_train_batch_size",
        " in the file of distillation.step0",
    )


def test_step0_follows_the_same_rules(tiny: Path, tmp_path: Path) -> None:
    def config(*values: str) -> RunConfig:
        path = tmp_path / "step0.yaml"
        path.write_text("contrastive:\n  per_device_train_batch_size: 8\n" + "".join(f"  {line}\n" for line in values))
        return main_job(tiny, tmp_path / "run", "--distillation.step0", str(path))

    begin(tmp_path / "run", config())
    refuse_other_configuration(tmp_path / "run", config("dataloader_num_workers: 1"), 1)
    for line in ("gradient_accumulation_steps: 2", "learning_rate: 1.0e-4"):
        with pytest.raises(InputError, match=r"step0\.contrastive\."):
            refuse_other_configuration(tmp_path / "run", config(line), 1)


def test_the_tables_of_an_evaluation_may_be_compared_later(tiny: Path, tmp_path: Path) -> None:
    given = ["--models", f"[{tiny}]", "--output_dir", str(tmp_path)]
    begin(tmp_path, parse_evaluation(given))
    refuse_other_configuration(tmp_path, parse_evaluation([*given, "--compare", "paper"]), 1)
    with pytest.raises(InputError, match=r"seed .*change nothing but output_dir, ddp_timeout and compare"):
        refuse_other_configuration(tmp_path, parse_evaluation([*given, "--seed", "3"]), 1)


def test_cycles_that_were_removed_cannot_be_kept(tiny: Path, tmp_path: Path) -> None:
    begin(tmp_path, main_job(tiny, tmp_path))
    keep = main_job(tiny, tmp_path, "--distillation.keep_cycles", "true")
    for cycle in (1, 2):
        write_text(tmp_path / f"cycle-{cycle}" / "tiny" / "cross-encoder" / "config.json", "{}")
        write_text(tmp_path / f"cycle-{cycle}" / "tiny" / "cross-encoder.json", "{}")
    refuse_other_configuration(tmp_path, keep, 1)
    (tmp_path / "cycle-1" / "tiny" / "cross-encoder" / "config.json").unlink()
    (tmp_path / "cycle-1" / "tiny" / "cross-encoder").rmdir()
    with pytest.raises(InputError, match=r"distillation\.keep_cycles: .*cycle-1/tiny/cross-encoder was removed"):
        refuse_other_configuration(tmp_path, keep, 1)
    refuse_other_configuration(tmp_path, main_job(tiny, tmp_path), 1)


def test_the_run_file_says_what_the_run_continues_with(tiny: Path, tmp_path: Path) -> None:
    manifest(tmp_path, main_job(tiny, tmp_path), 2).begin_or_continue([], cycles=2)
    begun = (tmp_path / "run.yaml").read_bytes()
    manifest(tmp_path, main_job(tiny, tmp_path)).begin_or_continue([])
    assert (tmp_path / "run.yaml").read_bytes() == begun
    split = ["--bi_encoder.per_device_train_batch_size", "32", "--distillation.batch_tokens", "512"]
    manifest(tmp_path, main_job(tiny, tmp_path, *split)).begin_or_continue([])
    after = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert after["config"]["distillation"]["batch_tokens"] == 512 and after["processes"] == 1
    assert after["resolved"]["tiny"]["bi-encoder"]["per_device_train_batch_size"] == 32
    assert after["cycles"] == 2


@pytest.mark.parametrize(
    ("entry", "before", "refused"),
    [
        (("resolved", "tiny", "cross-encoder", "learning_rate"), 1e-3, True),
        (("resolved", "tiny", "bi-encoder", "warmup_steps"), 0.1, True),
        (("cycles",), 5, True),
        (("resolved", "tiny", "bi-encoder", "logging_steps"), 3, False),
        (("versions", "torch"), "1.0", False),
    ],
)
def test_another_version_may_not_train_in_another_way(
    sized_plms: dict[str, Path], tmp_path: Path, entry: tuple[str, ...], before: object, refused: bool
) -> None:
    """A version whose defaults are others; of a pool so small that the plan is fitted to it."""
    given = ["--data.pool", "pairs.tsv", "--output_dir", str(tmp_path), "--bi_encoder.logging_steps", "5"]
    config = parse(["--models", f"[{{bi_encoder: {sized_plms['base']}, name: tiny}}]", *given])
    begun = manifest(tmp_path, config)
    begun.plan = begun.plan.fit(8_000, 1)
    begun.begin_or_continue([], pool={"pairs": 8_000})
    assert begun.begun and not begun.other_versions()
    manifest(tmp_path, config).begin_or_continue([])
    file = tmp_path / "run.yaml"
    content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["versions"]["te_trainer"] = "0.0.1"
    values = content
    for key in entry[:-1]:
        values = values[key]
    values[entry[-1]] = before
    write_text(file, yaml.safe_dump(content, sort_keys=False))
    other = manifest(tmp_path, config)
    (line,) = other.other_versions()
    assert line.startswith("The run was begun with te_trainer 0.0.1 (now ")
    if refused:
        key = ".".join(entry)
        words = rf"begun with another te_trainer \(0\.0\.1\), with which {key} was {before}, and it is .* now; "
        with pytest.raises(InputError, match=words):
            other.begin_or_continue([])
    else:
        other.begin_or_continue([])
        other.add()
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["versions"] == content["versions"]


def test_what_a_killed_process_left_is_removed(tiny: Path, tmp_path: Path) -> None:
    """While it tokenised, mined, or scored; whole tokens stay."""
    config = main_job(tiny, tmp_path)
    begin(tmp_path, config)
    halves = ["pool/tmpa1b2c3d4", "sentences/tmpa1b2c3d4", ".scratch-mining/candidates.npz", ".scratch-gold/scores.0"]
    whole = ["pool/pairs.arrow", "pool/cache-0123.arrow", "sentences/sentences.arrow"]

    def files() -> set[str]:
        return {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}

    for name in (*halves, *whole):
        write_text(tmp_path / name, "tokens")
    run_in_output_dir(config, lambda _: None, distillation_plan.make_plan)
    assert files() == {*whole, "run.yaml", ".lock"}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".scratch")]


def test_what_a_run_stands_on_may_not_change(tiny: Path, tmp_path: Path) -> None:
    def weights(value: str | None, name: str = "tiny") -> list[Fingerprint]:
        return [Fingerprint(("models", name, "bi_encoder"), value, f"models: the weights of {name} have")]

    manifest(tmp_path, main_job(tiny, tmp_path)).begin_or_continue(weights("one"))
    continued = manifest(tmp_path, main_job(tiny, tmp_path))
    continued.begin_or_continue(weights("one"))
    with pytest.raises(InputError, match=r"^models: the weights of tiny have changed since the run in .* began; name"):
        continued.begin_or_continue(weights("two"))
    with pytest.raises(InputError, match=r"run\.yaml that is damaged"):
        continued.refuse_changes(weights("one", "other"))


@pytest.mark.slow
def test_a_killed_run_ends_the_same_with_another_split(no_dropout: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of a training of each kind; then smaller batches."""
    short = ["--distillation.cycles", "1", *brief_gold(tmp_path)]
    whole = run_forked(JOB, tiny_arguments(no_dropout, tmp_path / "whole", *short))
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    changes = [
        ["--cross_encoder.per_device_train_batch_size", "8", "--cross_encoder.gradient_accumulation_steps", "4"],
        ["--bi_encoder.per_device_train_batch_size", "4", "--bi_encoder.gradient_accumulation_steps", "4"],
        ["--distillation.batch_tokens", "256", "--bi_encoder.dataloader_num_workers", "1"],
    ]
    given = list(short)
    for kind, more in zip(("cross-encoder", "bi-encoder"), (changes[0], changes[1] + changes[2]), strict=True):
        process = Forked(JOB, tiny_arguments(no_dropout, killed, *given), clock=0)
        checkpoints = killed / "cycle-1" / "tiny" / f".training-{kind}"
        process.kill_at(checkpoints, "checkpoint-*/checkpoint-is-whole")
        given += more
    last = run_forked(JOB, tiny_arguments(no_dropout, killed, *given))
    assert last.returncode == 0, last.stderr
    assert "resumed" in last.stderr
    begun = yaml.safe_load((killed / "run.yaml").read_text(encoding="utf-8"))
    assert begun["config"]["distillation"]["batch_tokens"] == 256
    assert begun["resolved"]["tiny"]["bi-encoder"]["per_device_train_batch_size"] == 4
    for kind in ("cross-encoder", "bi-encoder"):
        found, expected = (
            load_file(folder / "tiny" / kind / "model.safetensors") for folder in (killed, tmp_path / "whole")
        )
        for name, weight in expected.items():
            np.testing.assert_allclose(found[name], weight, rtol=0, atol=1e-4, err_msg=name)
    assert scores(killed) == pytest.approx(scores(tmp_path / "whole"), abs=1e-3)


def scores(output: Path) -> dict[str, Any]:
    final = results_of(output)["final"]["tiny"]
    return {kind: entry["dev"] for kind, entry in final.items()}


def test_gold_scores_may_not_change_while_a_run_lasts(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    config = main_job(tiny, tmp_path / "run", "--data.dev", str(file))
    manifest(tmp_path / "run", config).begin_or_continue(gold_fingerprints(GoldSets(load_gold(str(file), "dev", {}))))
    continued = manifest(tmp_path / "run", config)
    continued.refuse_changes(gold_fingerprints(GoldSets(load_gold(str(file), "dev", {}))))
    file.write_text("score\tsentence1\tsentence2\n1\ta\tb\n3\tc\td\n")
    with pytest.raises(InputError, match=r"data\.dev: the rows of mine have changed since the run in .* began"):
        continued.refuse_changes(gold_fingerprints(GoldSets(load_gold(str(file), "dev", {}))))
