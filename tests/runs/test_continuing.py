"""What changes no result may change when a run is continued; all else is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import run_recipe, tiny_arguments
from forked import Forked, run_forked
from safetensors.numpy import load_file

from te_trainer.config import ContrastiveConfig, RunConfig, parse, parse_contrastive, parse_evaluation
from te_trainer.contrastive.run import ContrastiveSettings
from te_trainer.data import PoolManifest, load_gold
from te_trainer.distil.preparation import gold_fingerprints, refuse_changed_gold, write_run_file
from te_trainer.errors import InputError
from te_trainer.files.atomic import write_text
from te_trainer.runs.continuing import comparable, refuse_other_configuration, update_run_file

JOB = "trans_encoder.py"
SIMCSE = "--data.sentences", "pairs.txt", "--contrastive.per_device_train_batch_size"


def begin(root: Path, config: RunConfig | ContrastiveConfig, processes: int = 1) -> None:
    if isinstance(config, RunConfig):
        write_run_file(config, root, PoolManifest(num_rows=3, fingerprint="f"), processes, {})
        return
    resolved = ContrastiveSettings(config.contrastive).training(processes)
    content = {"config": comparable(config), "versions": {"torch": "2"}, "processes": processes, "resolved": resolved}
    write_text(root / "run.yaml", yaml.safe_dump(content))


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
    "cross_encoder.dataloader_prefetch_factor": "4",
    "cross_encoder.dataloader_persistent_workers": "true",
    "cross_encoder.logging_steps": "7",
    "bi_encoder.logging_first_step": "true",
    "bi_encoder.log_level": "debug",
    "bi_encoder.per_device_eval_batch_size": "8",
    "cross_encoder.save_total_limit": "1",
    "ddp_timeout": "7200",
}
REFUSED = {
    "seed": "7",
    "distillation.cycles": "3",
    "distillation.precision": "bfloat16",
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


def test_step0_follows_the_same_rules(tiny: Path, tmp_path: Path) -> None:
    def config(*values: str) -> RunConfig:
        path = tmp_path / "step0.yaml"
        path.write_text("contrastive:\n  per_device_train_batch_size: 8\n" + "".join(f"  {line}\n" for line in values))
        return main_job(tiny, tmp_path / "run", "--distillation.step0", str(path))

    begun = config()
    write_run_file(begun, tmp_path / "run", PoolManifest(), 1, {"step0": {"per_device_train_batch_size": 8}})
    refuse_other_configuration(tmp_path / "run", config("dataloader_num_workers: 1"), 1)
    for line in ("gradient_accumulation_steps: 2", "learning_rate: 1.0e-4"):
        with pytest.raises(InputError, match=r"step0\.contrastive\."):
            refuse_other_configuration(tmp_path / "run", config(line), 1)


def test_the_tables_of_an_evaluation_may_be_compared_later(tiny: Path, tmp_path: Path) -> None:
    given = ["--models", f"[{tiny}]", "--output_dir", str(tmp_path)]
    content = {"config": comparable(parse_evaluation(given)), "versions": {}}
    write_text(tmp_path / "run.yaml", yaml.safe_dump(content))
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


def test_the_run_file_says_what_the_run_goes_on_with(tiny: Path, tmp_path: Path) -> None:
    begin(tmp_path, main_job(tiny, tmp_path), 2)
    begun = (tmp_path / "run.yaml").read_bytes()
    update_run_file(tmp_path, main_job(tiny, tmp_path), {}, 1)
    assert (tmp_path / "run.yaml").read_bytes() == begun
    config = main_job(tiny, tmp_path, "--distillation.batch_tokens", "512")
    update_run_file(tmp_path, config, {"resolved": {"tiny": {"bi-encoder": {"seed": 1}}}}, 1)
    after = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    assert after["config"]["distillation"]["batch_tokens"] == 512
    assert after["processes"] == 1 and after["resolved"]["tiny"] == {"bi-encoder": {"seed": 1}}
    assert after["models"] == yaml.safe_load(begun)["models"]


@pytest.fixture(scope="module")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PLM that draws nothing while it trains, so that micro-batches of another size learn the same."""
    folder = tmp_path_factory.mktemp("models") / "no-dropout"
    folder.mkdir()
    for path in tiny.iterdir():
        content = path.read_bytes()
        if path.name == "config.json":
            config = json.loads(content) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            content = json.dumps(config).encode()
        (folder / path.name).write_bytes(content)
    return folder


@pytest.mark.slow
def test_a_killed_run_ends_the_same_with_another_split_and_processes_of_their_own(
    no_dropout: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of a training of each kind; then smaller batches, and at last a process for each stage."""
    short = ["--distillation.cycles", "1"]
    whole = run_forked(JOB, tiny_arguments(no_dropout, tmp_path / "whole", *short))
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    changes = [
        ["--cross_encoder.per_device_train_batch_size", "8", "--cross_encoder.gradient_accumulation_steps", "4"],
        ["--bi_encoder.per_device_train_batch_size", "4", "--bi_encoder.gradient_accumulation_steps", "4"],
        ["--distillation.batch_tokens", "256", "--distillation.isolate_stages", "true"],
        ["--bi_encoder.log_level", "warning", "--bi_encoder.dataloader_num_workers", "1"],
    ]
    given = list(short)
    for kind, more in zip(
        ("cross-encoder", "bi-encoder"), (changes[0], [*changes[1], *changes[2], *changes[3]]), strict=True
    ):
        process = Forked(JOB, tiny_arguments(no_dropout, killed, *given))
        checkpoint = killed / "cycle-1" / "tiny" / f".training-{kind}" / "checkpoint-4" / "checkpoint-is-whole"
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -9, process.said()
        given += more
    last = run_recipe(*tiny_arguments(no_dropout, killed, *given))
    assert last.returncode == 0, last.stderr
    assert "resumed" in last.stderr
    begun = yaml.safe_load((killed / "run.yaml").read_text(encoding="utf-8"))
    assert begun["config"]["distillation"]["isolate_stages"]
    assert begun["resolved"]["tiny"]["bi-encoder"]["per_device_train_batch_size"] == 4
    for kind in ("cross-encoder", "bi-encoder"):
        found, expected = (
            load_file(folder / "tiny" / kind / "model.safetensors") for folder in (killed, tmp_path / "whole")
        )
        for name, weight in expected.items():
            np.testing.assert_allclose(found[name], weight, rtol=0, atol=1e-4, err_msg=name)
    assert scores(killed) == pytest.approx(scores(tmp_path / "whole"), abs=1e-3)


def scores(output: Path) -> dict[str, Any]:
    final = json.loads((output / "results.json").read_text(encoding="utf-8"))["final"]["tiny"]
    return {kind: entry["dev"] for kind, entry in final.items()}


def test_gold_scores_may_not_change_while_a_run_lasts(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    config = main_job(tiny, tmp_path / "run", "--data.dev", str(file))
    found = gold_fingerprints(load_gold(str(file), "dev", {}), [])
    write_run_file(config, tmp_path / "run", PoolManifest(), 1, found)
    refuse_changed_gold(found, tmp_path / "run")
    file.write_text("score\tsentence1\tsentence2\n1\ta\tb\n3\tc\td\n")
    with pytest.raises(InputError, match=r"data\.dev: the rows of mine have changed since the run in .* began"):
        refuse_changed_gold(gold_fingerprints(load_gold(str(file), "dev", {}), []), tmp_path / "run")
