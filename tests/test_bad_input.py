"""What cannot be used is answered with one sentence and exit status 2, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SAMPLE, Outcome, Run, results_of, save_tiny, text_file, tiny_arguments
from forked import MAY_NOT_MOUNT, Forked, drawn_curves, run_forked

from te_trainer.cli import run_job
from te_trainer.files.atomic import PARTIAL
from te_trainer.runs.folder import LOCK

SHORT = ["--distillation.cycles", "1", "--bi_encoder.num_train_epochs", "1", "--data.max_pairs", "32"]
PAIRS = "sentence1\tsentence2\nmy router blinks red\tred light on the router\nno sound\tthe speaker is silent\n"


@pytest.fixture(scope="session")
def short(few_gold: list[str]) -> list[str]:
    """Arguments that make a run as short as can be."""
    return [*SHORT, *few_gold]


@pytest.fixture
def run(tiny: Path, short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_job: Run) -> Run:
    """The main job in this process, from its command line on, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def start(*more: str | Path, output: Path = tmp_path / "runs" / "new") -> Outcome:
        return run_job("distil", *tiny_arguments(tiny, output, *short, *map(str, more)))

    return start


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Run what must be refused; gives the sentence."""

    def start(*more: str | Path, output: Path = tmp_path / "runs" / "new") -> str:
        before = contents(tmp_path)
        outcome = run(*more, output=output)
        assert contents(tmp_path) == before
        return sentence_of(outcome)

    return start


def sentence_of(outcome: Outcome | subprocess.CompletedProcess[str]) -> str:
    """The sentence of a refusal, which is all that was said."""
    status, out, err = outcome if isinstance(outcome, Outcome) else (outcome.returncode, outcome.stdout, outcome.stderr)
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1, err
    return err.removeprefix("error: ").rstrip("\n")


def contents(folder: Path) -> dict[str, Any]:
    """Every file with its bytes and its time of change, every folder, every link; the lock may stay."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or path.is_dir():
            found[str(path.relative_to(folder))] = path.lstat().st_mode
        elif path.name != LOCK or not (path.parent / "run.yaml").exists():
            found[str(path.relative_to(folder))] = (path.stat().st_mtime_ns, path.read_bytes())
    return found


# ---------------------------------------------------------------- through the whole command


@pytest.mark.parametrize(
    ("key", "content", "words"),
    [
        ("data.pool", None, "pairs.tsv: the file does not exist"),
        ("data.pool", "sentence1\tsentence2\na\tb\nlonely\n", "pairs.tsv, line 3: "),
        (
            "data.pool",
            "sentence1\tsentence2\na\tb\na\tb\n",
            "data.pool: it holds one pair, and training",
        ),
        ("data.dev", "score\tsentence1\tsentence2\n3\ta\tb\n3\tc\td\n", "data.dev: all gold scores in "),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(
    refused: Callable[..., str], tmp_path: Path, key: str, content: str | None, words: str
) -> None:
    if content is not None:
        text_file(tmp_path / "pairs.tsv", content)
    assert words in refused(f"--{key}", tmp_path / "pairs.tsv")


def test_a_key_and_a_model_that_are_unknown_are_refused(refused: Callable[..., str]) -> None:
    assert refused("--data.pol", "x") == "unknown key 'data.pol'; did you mean 'data.pool'?"
    assert refused("--models", "[./models/none]").startswith("model ./models/none: no model")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bi_encoder.deepspeed", "missing.json", "existing deepspeed config"),
        ("bi_encoder.optim", "galore_adamw", "galore_torch"),
        ("cross_encoder.use_liger_kernel", "true", "pip install liger-kernel"),
        ("cross_encoder.fsdp", "full_shard", "fsdp needs several processes"),
        ("bi_encoder.accelerator_config", "missing.json", "missing.json"),
        ("bi_encoder.deepspeed", "{zero_optimization: {stage: 2}}", "deepspeed needs a launcher"),
        ("bi_encoder.dataloader_persistent_workers", "true", "num_workers > 0"),
        ("bi_encoder.dataloader_multiprocessing_context", "spawn", "num_workers > 0"),
        ("cross_encoder.optim_args", "foo", "expected 2, got 1"),
        ("bi_encoder.fp16", "true", "float16 is for trainings on a GPU"),
        ("bi_encoder.torch_compile_mode", "fast", "torch_compile_mode 'fast' is none of default, "),
        (
            "cross_encoder.activation_checkpointing_kwargs",
            "{reentrant: true}",
            "'reentrant' is none of use_reentrant, ",
        ),
    ],
)
def test_what_transformers_would_refuse_later_is_refused_before_the_work(
    refused: Callable[..., str], key: str, value: str, words: str
) -> None:
    sentence = refused(f"--{key}", value)
    assert sentence.startswith(f"{key.split('.')[0]}: transformers refuses its arguments: ") and words in sentence


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("warmup_stable_decay", {}, "num_decay_steps"),
        ("polynomial", {"lr_end": 1e-4}, "lr_end (0.0001) must be smaller than initial lr (5e-05)"),
        ("inverse_sqrt", {"timescale": 0}, "division by zero"),
        ("cosine", {"num_cycles": "abc"}, "could not convert string to float: 'abc'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_the_work(
    refused: Callable[..., str], kind: str, options: dict[str, Any], words: str
) -> None:
    more = ["--bi_encoder.lr_scheduler_kwargs", json.dumps(options)] if options else []
    sentence = refused("--bi_encoder.lr_scheduler_type", kind, *more)
    start = "bi_encoder.lr_scheduler_kwargs: transformers refuses its arguments: "
    assert sentence.startswith(start) and words in sentence


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_steps", "0", "from 1 on, or -1 for as many as the epochs have, got 0"),
        ("adam_beta1", "1.5", "less than 1"),
        ("weight_decay", "-0.1", "greater than or equal to 0"),
        ("warmup_steps", ".nan", "finite number"),
        ("logging_steps", ".inf", "finite number"),
        ("eval_accumulation_steps", "0", "greater than 0"),
        ("dataloader_num_workers", "-1", "greater than or equal to 0"),
        ("log_level", "foo", "is none of detail, debug"),
        ("torch_compile_backend", "foo", "is none of no, eager"),
        ("lr_scheduler_type", "reduce_lr_on_plateau", "is none of constant, "),
        ("lr_scheduler_type", "greedy", "is none of constant, "),
        ("enable_jit_checkpoint", "true", "cannot be set: a run that is stopped resumes"),
        ("ignore_data_skip", "true", "cannot be set: a training that resumes goes on"),
        ("eval_on_start", "true", "cannot be set: a run scores its start by itself"),
        ("group_by_length", "true", "cannot be set: its name is train_sampling_strategy"),
        ("evaluation_strategy", "steps", "cannot be set: evaluation comes every eval_steps"),
    ],
)
def test_a_value_that_no_training_can_have_is_refused(
    refused: Callable[..., str], key: str, value: str, words: str
) -> None:
    sentence = refused(f"--bi_encoder.{key}", value)
    assert sentence.startswith(f"bi_encoder.{key}") and words in sentence


@pytest.mark.parametrize(
    ("key", "name", "reason"),
    [
        ("bi_encoder", "flash_attention_2", "BertModel (it needs a GPU)"),
        ("cross_encoder", "flex_attention", "BertForSequenceClassification (it needs a GPU)"),
        ("cross_encoder", "spda", "BertForSequenceClassification (known are eager, flash_attention_2, "),
    ],
)
def test_an_attention_that_cannot_be_used_is_refused_before_the_work(
    refused: Callable[..., str], key: str, name: str, reason: str
) -> None:
    sentence = refused(f"--{key}.attn_implementation", name)
    assert sentence.startswith(f"{key}.attn_implementation: '{name}' cannot be used for {reason}")


@pytest.mark.parametrize("folder", ["made before", "linked"])
def test_a_folder_that_was_there_stays_as_it_was(refused: Callable[..., str], tmp_path: Path, folder: str) -> None:
    output = tmp_path / "disk"
    output.mkdir()
    output.chmod(0o770)
    if folder == "linked":
        output = tmp_path / "link"
        output.symlink_to(tmp_path / "disk")
    refused("--data.pool", text_file(tmp_path / "pairs.txt", "a||b\nlonely\n"), output=output)


# ---------------------------------------------------------------- disks


def on_small_disks(folder: str) -> None:
    """Run the main job on disks that are too small, each a file system of its own in memory; tell what came of it.

    Runs in a process that may mount (see `small_disks`).
    """
    place = Path(folder)
    model = save_tiny(place / "tiny")

    def disk(name: str, size: int) -> Path:
        path = place / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
        return path

    def run(scenario: str, where: Path, *more: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = run_job("distil", tiny_arguments(model, where / "runs" / "new", *SHORT, *more))
            except Exception:
                traceback.print_exc()
                status = 1
        outcome = Outcome(status, out.getvalue(), err.getvalue())
        left = sorted(str(path.relative_to(where)) for path in where.rglob("*"))
        print(json.dumps({"scenario": scenario, **outcome._asdict(), "left": left}), flush=True)
        return outcome

    def run_while_filling(scenario: str, where: Path, leave: int) -> None:
        """As soon as the run has begun, something else takes the disk, but for a few bytes."""

        def fill() -> None:
            deadline = time.monotonic() + 60
            while not (where / "runs" / "new" / "run.yaml").exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            # the run writes as well, and may have taken the rest meanwhile
            with contextlib.suppress(OSError), (where / "other").open("wb") as file:
                file.write(bytes(shutil.disk_usage(where).free - leave))

        filler = threading.Thread(target=fill)
        filler.start()
        run(scenario, where)
        filler.join()
        (where / "other").unlink()

    megabyte = 1024 * 1024
    refusal = run("too small", disk("too-small", megabyte))
    needed = float(refusal.err.partition("needs about ")[2].split(" ")[0].replace(",", "")) * 1e6

    long = "words " * 170
    rows = (f"{number} {long}||{number} {long}\n" for number in range(8000))
    (place / "large.txt").write_text("".join(rows), encoding="utf-8")
    run("pool", disk("pool", int(needed) + megabyte), "--data.pool", str(place / "large.txt"))

    where = disk("weights", 32 * megabyte)
    run_while_filling("weights", where, leave=150_000)
    (where / "other").write_bytes(bytes(shutil.disk_usage(where).free))
    run("other configuration", where, "--seed", "7")

    where = disk("optimizer", 32 * megabyte)
    run_while_filling("optimizer", where, leave=700_000)

    where = disk("tight", int(needed) + 200_000)
    run_while_filling("tight", where, leave=900_000)
    run("tight again", where)

    # Last, because a process that writes to a mapped file on a full disk may be killed.
    run_while_filling("scores", disk("scores", 32 * megabyte), leave=40_000)


@pytest.fixture(scope="module")
def small_disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of runs on small disks, by scenario; the mounts go with the process that made them."""
    folder = tmp_path_factory.mktemp("disks")
    script = (
        "import sys, forked; forked.own_mounts(); import test_bad_input; test_bad_input.on_small_disks(sys.argv[1])"
    )
    (folder / "script.py").write_text(script, encoding="utf-8")
    finished = run_forked(folder / "script.py", [str(folder)], charts=True)
    if finished.returncode == MAY_NOT_MOUNT:
        pytest.skip("wants the right to mount")
    outcomes = [json.loads(line) for line in finished.stdout.splitlines()]
    assert outcomes, finished.stderr
    return {outcome.pop("scenario"): outcome for outcome in outcomes}


def ending(outcome: dict[str, Any]) -> str:
    """The sentence at the end of a run that stopped for want of room."""
    assert outcome["status"] == 2, outcome["err"][-1500:]
    lines = outcome["err"].splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert "Traceback" not in outcome["err"]
    return lines[-1].removeprefix("error: ")


@pytest.mark.slow
def test_a_run_whose_disk_is_too_small_leaves_nothing(small_disks: dict[str, Any]) -> None:
    for scenario, words in (("too small", "output_dir: "), ("pool", "no disk space left")):
        outcome = small_disks[scenario]
        assert words in ending(outcome) and outcome["err"].count("\n") == 1
        assert outcome["left"] == []
    assert "runs/new" in ending(small_disks["pool"])


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run(small_disks: dict[str, Any]) -> None:
    assert "scores" in small_disks, "the system killed the process (SIGBUS)"
    for scenario in ("optimizer", "weights", "scores"):
        assert "no disk space left" in ending(small_disks[scenario])
    # what else is wrong is named on a full disk too
    assert "another configuration: seed (was 2021, is 7)" in ending(small_disks["other configuration"])


@pytest.mark.slow
def test_the_same_command_continues_when_there_is_room_again(small_disks: dict[str, Any]) -> None:
    """A disk on which a run may begin is large enough for it to go on: what it has written counts."""
    assert small_disks["tight"]["status"] != 0
    outcome = small_disks["tight again"]
    assert outcome["status"] == 0, outcome["err"][-1500:]
    assert "runs/new/results.json" in outcome["left"]
    assert not [path for path in outcome["left"] if ".partial-" in path or ".training-" in path]


# ---------------------------------------------------------------- folders of runs


@pytest.fixture(scope="module")
@drawn_curves()
def finished_run(tiny: Path, short: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that is done."""
    output = tmp_path_factory.mktemp("finished") / "run"
    assert run_job("distil", tiny_arguments(tiny, output, *short)) == 0
    return output


def test_a_finished_run_says_so_shows_its_table_and_asks_no_model(
    run: Run, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(finished_run)
    monkeypatch.delattr("te_trainer.distillation.plan.resolve_checkpoint")
    outcome = run(output=finished_run)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"The run in {finished_run} is finished; there is nothing to do.\n" in outcome.out
    scores = results_of(finished_run)["final"]["tiny"]["bi-encoder"]
    assert f"{100 * scores['dev']:.2f}" in outcome.out, "its table is shown again"
    assert contents(finished_run) == before


@drawn_curves()
def test_a_finished_run_writes_the_reports_that_are_missing(run: Run, finished_run: Path) -> None:
    before = {name: (finished_run / name).read_bytes() for name in ("report.md", "curves.png", "report.html")}
    for name in before:
        (finished_run / name).unlink()
        assert run(output=finished_run).status == 0
        assert {name: (finished_run / name).read_bytes() for name in before} == before


def test_a_run_whose_curves_cannot_be_drawn_is_finished(
    run: Run, short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError):
            run(output=tmp_path / "run")
    assert results_of(tmp_path / "run")["final"]
    assert run(output=tmp_path / "run").status == 0
    assert (tmp_path / "run" / "curves.png").exists() and (tmp_path / "run" / "report.html").exists()


def test_a_finished_run_is_refused_what_has_changed_and_needs_nothing_that_is_gone(
    run: Run, tiny: Path, short: list[str], tmp_path: Path
) -> None:
    output, model = tmp_path / "out", shutil.copytree(tiny, tmp_path / "model")
    pool, dev = tmp_path / "pool.tsv", tmp_path / "mine.tsv"
    shutil.copy(SAMPLE / "pool.tsv", pool)
    shutil.copy(short[short.index("--data.dev") + 1], dev)
    given = ["--models", f"[{{bi_encoder: {model}, name: tiny}}]", "--data.pool", pool, "--data.dev", dev]
    assert run(*given, output=output).status == 0
    assert "nothing to do" in run(*given, output=output).out
    weights = model / "model.safetensors"
    changed = {
        pool: (b"one more\trow\n", f"{pool}: the file has"),
        dev: (b"1\tone more\trow\n", "data.dev: the rows of mine have"),
        weights: (b"x", "models: the files of tiny's bi_encoder have"),
    }
    for path, (more, subject) in changed.items():
        before = path.read_bytes()
        path.write_bytes(before + more)
        sentence = sentence_of(run(*given, output=output))
        assert sentence == f"{subject} changed since the run in {output} began; name another output_dir"
        path.write_bytes(before)
    shutil.rmtree(model)
    pool.unlink()
    dev.unlink()
    assert "nothing to do" in run(*given, output=output).out


def test_a_changed_configuration_is_refused_with_all_keys_that_differ(run: Run, finished_run: Path) -> None:
    changes = {
        "seed": ("2021", "7"),
        "distillation.cycles": ("1", "3"),
        "bi_encoder.eval_steps": ("4.0", "8.0"),
        "cross_encoder.learning_rate": ("2e-05", "3e-05"),
        "data.columns.sentence1": ("None", "question1"),
    }
    given = [part for key, (_, new) in changes.items() if "columns" not in key for part in (f"--{key}", new)]
    before = contents(finished_run)
    columns = ["--data.columns", "{sentence1: question1}"]
    sentence = sentence_of(run(*given, *columns, output=finished_run))
    assert contents(finished_run) == before
    assert sentence.startswith(f"output_dir: {finished_run} was begun with another configuration: ")
    for key, (was, now) in changes.items():
        assert f"{key} (was {was}, is {now}" in sentence
    assert sentence.count("(was ") == len(changes), "a key is named that was not changed"


def test_the_same_configuration_in_other_words_is_not_refused(
    run: Run, tiny: Path, tmp_path: Path, finished_run: Path
) -> None:
    (tmp_path / "link").symlink_to(finished_run)
    same = ["--data.pool", str(SAMPLE / "pool.tsv"), "--models", f"[{{bi_encoder: {tiny}/, name: tiny}}]"]
    entry = {"bi_encoder": str(tiny), "cross_encoder": str(tiny), "name": "tiny", "pooling": None}
    path = text_file(tmp_path / "run.yaml", yaml.safe_dump({"models": [entry], "seed": 2021}))
    assert run(*same[:2], "--config", path, output=tmp_path / "link").status == 0
    assert run(*same, output=finished_run).status == 2


def test_a_run_killed_before_its_pool_was_in_place_continues(run: Run, tmp_path: Path, finished_run: Path) -> None:
    output = tmp_path / "runs" / "new"
    shutil.copytree(finished_run / "pool", output / f"{PARTIAL}pool")
    shutil.copy(finished_run / "run.yaml", output)
    (output / LOCK).touch()
    outcome = run(output=output)
    assert outcome.status == 0, outcome.err
    assert (output / "results.json").exists() and not (output / f"{PARTIAL}pool").exists()


# ---------------------------------------------------------------- real processes


LONG = ["--cross_encoder.num_train_epochs", "1000"]


@pytest.fixture
def long_run(tiny: Path, tmp_path: Path) -> Iterator[Forked]:
    """A process that works in a folder until the test ends."""
    process = Forked("trans_encoder.py", tiny_arguments(tiny, tmp_path / "runs" / "new", *LONG))
    yield process
    process.kill()
    process.wait()


def wait_for(path: Path, process: Forked) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the process ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_process_in_the_same_folder_is_refused_while_the_first_works(
    run: Run, tiny: Path, tmp_path: Path, long_run: Forked
) -> None:
    output = tmp_path / "runs" / "new"
    expected = f"output_dir: another process works in {output}; wait for it, or name another folder"
    wait_for(output / LOCK, long_run)
    assert sentence_of(run()) == expected
    wait_for(output / "run.yaml", long_run)
    assert sentence_of(run_forked("trans_encoder.py", tiny_arguments(tiny, output, *LONG))) == expected
    assert long_run.poll() is None, "the first process was disturbed"
    assert (output / "run.yaml").exists() and (output / LOCK).exists()
    long_run.kill()
    long_run.wait()
    # The configuration is looked at only by who holds the lock.
    assert "another configuration: " in sentence_of(run())
