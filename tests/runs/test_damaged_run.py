"""What was cut, emptied or removed of a run is named in one sentence, and what that says of the same command holds."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, Run, results_of, tiny_arguments
from datasets import Dataset
from test_bad_input import sentence_of

from te_trainer import cli
from te_trainer.files.atomic import remove
from te_trainer.files.records import DamagedError
from te_trainer.models import resolve_checkpoint
from te_trainer.report.page import write_page
from te_trainer.runs.finished import FinishedRun
from te_trainer.runs.saved import check_encoder_files
from te_trainer.trainers.contrastive import drop_saved_head

LABELS = "cycle-1/tiny/bi-encoder-labels"
CROSS_LABELS = "cycle-1/tiny/cross-encoder-labels"
SECOND_LABELS = "cycle-2/tiny/bi-encoder-labels"


@pytest.fixture(scope="module")
def arguments(tiny: Path, few_gold: list[str]) -> list[str]:
    """Of a short run of two cycles, but for its output folder, which comes last."""
    given = tiny_arguments(tiny, Path("out"), "--data.max_pairs", "32", *few_gold, "--data.test", "[]")
    return [*given, "--bi_encoder.num_train_epochs", "1", "--output_dir"]


def test_what_macos_puts_beside_a_file_is_no_part_of_an_encoder(tiny: Path, tmp_path: Path) -> None:
    encoder = shutil.copytree(tiny, tmp_path / "cross-encoder")
    before = resolve_checkpoint(str(encoder)).fingerprint
    for name in ("config.json", "model.safetensors"):
        (encoder / f"._{name}").write_bytes(b"\x00\x05\x16\x07")
    check_encoder_files(encoder)
    drop_saved_head(encoder)
    assert resolve_checkpoint(str(encoder)).fingerprint == before


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("finished") / "run"
    assert cli.run_job("distil", [*arguments, str(root)]) == 0
    return root


@pytest.fixture
def run(arguments: list[str], run_job: Run) -> Run:
    """The main job in this process; the first argument is its output folder."""
    return partial(run_job, "distil", *arguments)


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "run")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def bend(path: Path) -> None:
    path.write_text("{}\n")


def said_to_delete(sentence: str) -> list[Path]:
    """The files and folders that a sentence says to delete."""
    found = re.search(r"delete (.*?), and (the run's|the same) command", sentence)
    assert found is not None, sentence
    if found[1] == "it":
        return [Path(sentence.partition(" is damaged")[0])]
    return [Path(part.removeprefix("the folder ").removeprefix("the file ")) for part in found[1].split(" and ")]


def scores(root: Path) -> dict[str, Any]:
    results = results_of(root)
    for entry in results["final"]["tiny"].values():
        del entry["path"]
    return {key: results[key] for key in ("start", "cycles", "final")}


def follow(sentence: str, run: Run, root: Path, finished: Path) -> None:
    """Do what a sentence says, as long as the command says such sentences; the run then ends as it did at first."""
    for _ in range(3):
        for path in said_to_delete(sentence):
            assert path.is_relative_to(root) and (path.exists() or path.is_symlink()), sentence
            remove(path)
        outcome = run(root)
        if outcome.status == 0:
            break
        sentence = sentence_of_last(outcome)
    assert outcome.status == 0, outcome.err
    assert scores(root) == scores(finished)
    for kind in ("bi-encoder", "cross-encoder"):
        weights = f"tiny/{kind}/model.safetensors"
        assert (root / weights).read_bytes() == (finished / weights).read_bytes()


def refusal(damage: Callable[[Path], None], path: Path, start: Callable[[], Outcome]) -> str:
    """What is said of a damaged file, which is whole again afterwards."""
    content = path.read_bytes()
    damage(path)
    sentence = sentence_of_last(start())
    path.write_bytes(content)
    return sentence


def sentence_of_last(outcome: Outcome) -> str:
    """The sentence at the end of a run that stopped on its way."""
    assert outcome.status == 2, outcome.err
    *before, last = outcome.err.splitlines()
    assert last.startswith("error: ") and "Traceback" not in outcome.err
    assert not [line for line in before if line.startswith("error: ")]
    return last.removeprefix("error: ")


DAMAGES = [
    (empty, f"{SECOND_LABELS}/data-00000-of-00001.arrow"),
    (cut, f"{CROSS_LABELS}/state.json"),
    (remove, f"{LABELS}/fingerprint.json"),
    (cut, "start/tiny/bi-encoder.json"),
    (bend, "cycle-2/tiny/bi-encoder.json"),
    (cut, "cycle-1/tiny/cross-encoder.training.json"),
]


@pytest.mark.parametrize(("damage", "file"), DAMAGES, ids=[f"{how.__name__} {file}" for how, file in DAMAGES])
def test_a_damaged_file_is_named_and_made_again_when_it_is_deleted(
    run: Run, root: Path, finished: Path, damage: Callable[[Path], None], file: str
) -> None:
    """In a run that is not finished; the encoders of its cycles were removed, but for those that were kept."""
    (root / "results.json").unlink()
    damage(root / file)
    sentence = sentence_of_last(run(root))
    assert str((root / file).parent if "labels" in file else root / file) in sentence
    follow(sentence, run, root, finished)


def test_a_damaged_file_of_the_pool_is_named_and_made_again(run: Run, root: Path, finished: Path) -> None:
    (root / "results.json").unlink()
    for damage, file in ((cut, "pairs.arrow"), (bend, "pool.json"), (remove, "pairs.arrow")):
        path = root / "pool" / file
        sentence = refusal(damage, path, lambda: run(root))
        assert str(path) in sentence and said_to_delete(sentence) == [root / "pool"]
    damage(path)
    follow(sentence, run, root, finished)


@pytest.fixture(scope="module")
def several(arguments: list[str], tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run of two PLMs with a step 0, and its options."""
    more = ["--models", f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {tiny}, name: two}}]"]
    step0 = tmp_path_factory.mktemp("step0") / "step0.yaml"
    step0.write_text("contrastive: {per_device_train_batch_size: 16, max_steps: 1, pooling: mean, mlp_head: false}\n")
    more += ["--distillation.step0", str(step0), "--distillation.cycles", "1"]
    root = tmp_path_factory.mktemp("several") / "run"
    assert cli.run_job("distil", [*arguments, str(root), *more]) == 0
    return root, more


def test_a_damaged_file_of_step0_or_of_several_plms_is_named(
    run: Run, several: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """All but one are damaged at once: a run that continues comes to them one after the other."""
    root = shutil.copytree(several[0], tmp_path / "run")
    (root / "results.json").unlink()

    def start() -> Outcome:
        return run(root, *several[1])

    # with its neighbour, for which the folder is deleted, it would not be looked at
    alone = root / "sentences" / "sentences.json"
    assert refusal(cut, alone, start).startswith(f"{alone} is damaged; delete ")
    damaged = [
        root / "sentences/sentences.arrow",
        root / "start/two/bi-encoder.training.json",
        root / "start/one/bi-encoder.predictions.npz",
        root / "cycle-1/two/cross-encoder.predictions.npz",
    ]
    for path in damaged:
        cut(path)
    while (outcome := start()).status != 0:
        sentence = sentence_of_last(outcome)
        damaged.remove(Path(sentence.partition(" is damaged; delete ")[0]))
        for path in said_to_delete(sentence):
            remove(path)
    assert not damaged
    before, after = (results_of(each) for each in (several[0], root))
    assert after["cycles"] == before["cycles"] and after["start"] == before["start"]
    assert after["final"]["ensemble"] == before["final"]["ensemble"]


def test_damaged_results_are_named(run: Run, root: Path, finished: Path) -> None:
    bend(root / "results.json")
    sentence = sentence_of(run(root))
    assert sentence == f"{root / 'results.json'} is damaged; delete it, and the run's command writes it again"
    follow(sentence, run, root, finished)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_run_file_that_was_cut_is_named(run: Run, root: Path, part: float) -> None:
    (root / "results.json").unlink()
    content = (root / "run.yaml").read_bytes()
    (root / "run.yaml").write_bytes(content[: int(part * len(content))])
    sentence = sentence_of(run(root))
    assert sentence.startswith(f"output_dir: {root} holds a run.yaml that is damaged")
    assert sentence.endswith(f"if {root} is a run's, delete it, and the same command begins from the start")


@pytest.mark.parametrize(
    ("kinds", "how"),
    [(["bi-encoder", "cross-encoder"], "removed"), (["cross-encoder"], "cut")],
)
def test_a_finished_run_whose_encoders_are_gone_says_so(
    run: Run, root: Path, finished: Path, kinds: list[str], how: str
) -> None:
    for kind in kinds:
        if how == "cut":
            cut(root / "tiny" / kind / "model.safetensors")
        else:
            shutil.rmtree(root / "tiny" / kind)
    sentence = sentence_of(run(root))
    assert all(str(root / "tiny" / kind) in sentence for kind in kinds)
    assert str(root / "results.json") in sentence and "nothing to do" not in sentence
    follow(sentence, run, root, finished)


def test_a_page_says_which_labels_are_damaged_and_is_written_without_them(root: Path) -> None:
    (root / "report.html").unlink()
    cut(root / LABELS / "data-00000-of-00001.arrow")
    with pytest.raises(DamagedError) as caught:
        write_page(root)
    assert str(root / LABELS) in str(caught.value) and "writes the page without these labels" in str(caught.value)
    shutil.rmtree(root / LABELS)
    write_page(root)
    assert (root / "report.html").exists()


@pytest.mark.parametrize("file", ["results.json", "pool/pool.json"])
def test_what_is_published_is_read_with_care(root: Path, file: str) -> None:
    empty(root / file)
    with pytest.raises(DamagedError, match=re.escape(str(root / file))):
        FinishedRun.load(root)


def test_labels_of_another_pool_or_precision_are_refused(run: Run, root: Path, finished: Path) -> None:
    (root / "results.json").unlink()
    path = root / CROSS_LABELS / "fingerprint.json"
    written = path.read_text()
    said = set()
    for key in ("pool", "precision", "kind"):
        path.write_text(json.dumps(json.loads(written) | {key: "another"}))
        sentence = sentence_of_last(run(root))
        before = f"{root / CROSS_LABELS}: its labels are of another {key} (another) than this run's ("
        assert sentence.startswith(before)
        said.add(tuple(said_to_delete(sentence)))
    assert len(said) == 1
    follow(sentence, run, root, finished)


def test_labels_of_another_number_of_pairs_are_refused(run: Run, root: Path) -> None:
    (root / "results.json").unlink()
    about = (root / LABELS / "fingerprint.json").read_text()
    shutil.rmtree(root / LABELS)
    Dataset.from_dict({"score": [0.5] * 31}).save_to_disk(str(root / LABELS))
    (root / LABELS / "fingerprint.json").write_text(about)
    assert str(root / LABELS) in sentence_of_last(run(root))


def test_labels_of_another_teacher_are_refused(run: Run, root: Path, finished: Path) -> None:
    """While there is still something to learn from them, and their teacher is there."""
    (root / "results.json").unlink()
    path = root / LABELS / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"teacher": "another"}))
    for name in ("cycle-1", "cycle-2", "tiny"):
        for left in (root / name).rglob("cross-encoder*"):
            if name == "tiny" or "labels" not in left.name:
                remove(left)
    sentence = sentence_of_last(run(root))
    assert sentence.startswith(f"{root / LABELS}: its labels are not those of ")
    follow(sentence, run, root, finished)


@pytest.fixture(scope="module")
def interrupted(finished: Path, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted in its first training, behind its first checkpoint."""
    from te_trainer.trainers.callbacks import MarkWholeCheckpoints

    root = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        mark = MarkWholeCheckpoints.on_save

        def interrupt(self: Any, *given: Any, **more: Any) -> None:
            mark(self, *given, **more)
            raise KeyboardInterrupt

        patch.setattr(MarkWholeCheckpoints, "on_save", interrupt)
        patch.setattr("te_trainer.runs.checkpoint_clock.FULL_CHECKPOINT_SECONDS", 0)
        assert cli.run_job("distil", [*arguments, str(root), "--cross_encoder.eval_steps", "1"]) == 130
    return root


def test_a_damaged_checkpoint_is_named(run: Run, interrupted: Path, tmp_path: Path) -> None:
    root = shutil.copytree(interrupted, tmp_path / "run")
    (checkpoint,) = (root / "cycle-1" / "tiny" / ".training-cross-encoder").glob("checkpoint-*")
    for damage, file in (
        (empty, "trainer_state.json"),
        (remove, "trainer_state.json"),
        (cut, "optimizer.pt"),
        (cut, "model.safetensors"),
        (remove, "rng_state.pth"),
    ):
        sentence = refusal(damage, checkpoint / file, lambda: run(root, "--cross_encoder.eval_steps", "1"))
        what = "is not there any more" if damage is remove else "is damaged"
        assert sentence.startswith(f"{checkpoint / file} {what}; delete ")
        assert said_to_delete(sentence) == [checkpoint]
    remove(checkpoint)
    outcome = run(root, "--cross_encoder.eval_steps", "1")
    assert outcome.status == 0, outcome.err


def write_state(checkpoint: Path, **changes: Any) -> None:
    file = checkpoint / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_the_best_checkpoint_is_found_when_the_folder_has_moved(run: Run, interrupted: Path, tmp_path: Path) -> None:
    """A Trainer that does not find it keeps the last weights without a word."""
    root = shutil.copytree(interrupted, tmp_path / "run")
    (checkpoint,) = (root / "cycle-1" / "tiny" / ".training-cross-encoder").glob("checkpoint-*")
    # none is better
    write_state(checkpoint, best_metric=2.0, best_model_checkpoint=str(tmp_path / "before" / checkpoint.name))
    outcome = run(root, "--cross_encoder.eval_steps", "1")
    assert outcome.status == 0, outcome.err
    record = json.loads((root / "cycle-1" / "tiny" / "cross-encoder.json").read_text(encoding="utf-8"))
    training = json.loads((root / "cycle-1" / "tiny" / "cross-encoder.training.json").read_text(encoding="utf-8"))
    first, last = training["dev_curve"][0][1], training["dev_curve"][-1][1]
    assert record["scores"]["dev"] == pytest.approx(first, abs=1e-6) != pytest.approx(last, abs=1e-6)


def test_a_best_checkpoint_that_is_gone_is_named(run: Run, interrupted: Path, tmp_path: Path) -> None:
    root = shutil.copytree(interrupted, tmp_path / "run")
    checkpoints = root / "cycle-1" / "tiny" / ".training-cross-encoder"
    (checkpoint,) = checkpoints.glob("checkpoint-*")
    best = checkpoints / "checkpoint-0"
    write_state(checkpoint, best_model_checkpoint=str(best))
    sentence = sentence_of_last(run(root, "--cross_encoder.eval_steps", "1"))
    assert sentence.startswith(f"{best} is not there any more; delete the folder {checkpoints}, and ")


def test_a_damaged_encoder_of_a_cycle_is_named_and_trained_again(run: Run, root: Path, finished: Path) -> None:
    """Before it has labelled."""
    (root / "results.json").unlink()
    shutil.copytree(root / "tiny" / "cross-encoder", root / "cycle-2" / "tiny" / "cross-encoder")
    for path in ("cycle-2/tiny/cross-encoder-labels", "cycle-2/tiny/bi-encoder.json", "tiny"):
        remove(root / path)
    cut(root / "cycle-2" / "tiny" / "cross-encoder" / "model.safetensors")
    sentence = sentence_of_last(run(root))
    assert str(root / "cycle-2" / "tiny" / "cross-encoder") in sentence
    follow(sentence, run, root, finished)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("damage", [empty, remove])
def test_files_beside_the_weights_are_looked_at(root: Path, file: str, damage: Callable[[Path], None]) -> None:
    """Without some of them an encoder still loads, and reads otherwise."""
    encoder = root / "tiny" / "bi-encoder"
    check_encoder_files(encoder)
    damage(encoder / file)
    with pytest.raises(DamagedError) as caught:
        check_encoder_files(encoder)
    assert str(caught.value).startswith(f"{encoder / file} ")


def test_a_changed_model_is_refused_when_the_pool_is_read_again(run: Run, root: Path, tiny: Path) -> None:
    """Texts and models are those of `run.yaml`, whatever was deleted."""
    (root / "results.json").unlink()
    shutil.rmtree(root / "pool")
    path = root / "run.yaml"
    for before, words in (("fingerprint: ", "the texts have changed"), ("bi_encoder: ", "the files of")):
        kept = path.read_text()
        head, _, last = kept.rpartition(before)
        path.write_text(head + before + "other" + last)
        assert words in sentence_of(run(root))
        path.write_text(kept)
    assert run(root).status == 0
