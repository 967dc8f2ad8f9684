"""The stages of a cycle in an output folder.

Stages follow one another in one process. What a stage makes (arguments, trainer, encoder) it lets go of before the
next one begins: a new `TrainingArguments` resets the state that an older trainer stands on.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.schema import Kind, RunConfig
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distil.combine import combine
from te_trainer.distil.cycle import HALVES
from te_trainer.distil.selection import measures, most_agreed_cycle
from te_trainer.distil.settings import (
    cycles_of,
    keeps_all_cycles,
    kinds_of,
    max_length_of,
    stage_seed,
    start_of,
    training_values,
)
from te_trainer.distil.step0 import started, step0_stage, step0_work
from te_trainer.distributed import process_state, was_restarted
from te_trainer.errors import DivergedError, InputError
from te_trainer.files.atomic import atomic_folder, write_text
from te_trainer.files.records import read_json
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, Encoder, resolve_checkpoint
from te_trainer.models.bi_encoder import resolve_pooling
from te_trainer.models.encoder import weight_fingerprint
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.folder import scratch_folder
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.saved import (
    check_encoder_files,
    keep_encoder,
    read_label_record,
    read_labels,
    to_label_again,
    to_train_again,
)
from te_trainer.runs.scoring import Scorer, describe, load_predictions, save_predictions
from te_trainer.runs.training import Training

FORWARD, TRAINING = 1, 3  # cost of a pass over the pool; training goes forward, and backward at twice that


class StageRunner:
    """Runs the stages of `te_trainer.distil.cycle.Stages`, each once, in an output folder.

    Args:
        config: of the run.
        root: the output folder.
        pool, pairs: the pool, and its pairs on disk.
        scorer: scores encoders against gold.
        progress: the display.
        after_stage: called when a stage's result is on the disk; need not return.
    """

    def __init__(
        self,
        config: RunConfig,
        root: Path,
        pool: PoolManifest,
        pairs: Dataset,
        scorer: Scorer,
        progress: RunProgress,
        after_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.root = root
        self.pool = pool
        self.pairs = pairs
        self.scorer = scorer
        self.progress = progress
        self.after_stage = after_stage
        self.state = process_state()
        self.models = {str(model.name): started(config, root, model) for model in config.models}
        self.cycles = cycles_of(config)
        self.kinds = kinds_of(config)
        self.agreements: dict[str, list[dict[str, Any]]] = {}
        self.precision = resolve_precision(config.distillation.precision)
        self.step0_work = step0_work(config, root, len(pairs))
        progress.total = self._total_work()

    # ------------------------------------------------------------ what a cycle asks for

    def evaluate_start(self, name: str) -> None:
        """Score the bi-encoder that a PLM starts from, and make it first where the run has a step 0."""
        if self.config.step0 is not None:
            self._step0(name)
        record = self.record_path(0, name, "bi-encoder")
        if not self._is_scored(record):
            self._score(self._load(name, "bi-encoder", self.models[name].bi_encoder), f"{name}: start", record)

    def label(self, cycle: int, name: str, teacher: Kind) -> np.ndarray:
        """Score the pool with the bi-encoder of the cycle before, or with this cycle's cross-encoder."""
        folder = self.labels_path(cycle, name, teacher)
        if folder.exists():
            self.progress.skip(FORWARD)
            labels = self.labels(cycle, name, teacher)
            self._refuse_other_teacher(cycle, name, teacher)
            return labels
        began = time.monotonic()
        when = f"cycle {cycle}/{self.cycles}" if cycle <= self.cycles else "agreement"
        self.progress.begin(f"{when} {name}: label with {teacher}", FORWARD)
        encoder = self._load(name, teacher, self._teacher(cycle, name, teacher))
        place = folder.with_name(f".scratch-{folder.name}")
        try:
            with scratch_folder(place) as scratch:
                scores = score_pairs(
                    encoder,
                    self.pairs,
                    precision=self.precision,
                    batch_tokens=self.config.distillation.batch_tokens,
                    scratch=scratch,
                    progress=self.progress.advance,
                )
        except DivergedError as error:
            raise DivergedError(f"cycle {cycle}, {name}: {error}") from None
        about = {
            "kind": teacher,
            "pooling": getattr(encoder, "pooling", None),
            "prompt": getattr(encoder, "prompt", None),
            "max_length": encoder.max_length,
            "precision": self.precision,
            "pool": self.pool.fingerprint,
            "seconds": round(time.monotonic() - began, 3),
        }

        def write() -> None:
            # a pass over all weights, and nothing for the other ranks
            record = {"teacher": weight_fingerprint(encoder), **about}
            with atomic_folder(folder) as place:
                Dataset.from_dict({"score": scores}).save_to_disk(str(place))
                write_text(place / "fingerprint.json", json.dumps(record, indent=2) + "\n")

        self._on_main(write)
        self.progress.end()
        self.after_stage()
        return scores

    def combine(self, labels: Iterable[np.ndarray]) -> np.ndarray:
        """One set of labels of all PLMs', as `distillation.combine` says; the paper takes the mean (section 2.4)."""
        return combine(labels, self.config.distillation.combine, [model.weight or 1.0 for model in self.config.models])

    def train(self, cycle: int, name: str, student: Kind, labels: np.ndarray) -> None:
        """Train an encoder from its original checkpoint or from its teacher's weights, and score it."""
        training = self._training(cycle, name, student)
        record = self.record_path(cycle, name, student)
        work = self._training_work(name, student)
        if self._is_scored(record) and training.record.exists():
            self.progress.skip(work)
            return
        if training.is_done:
            self._remove(training.workshop)
            self.progress.skip(work)
        else:
            self.progress.begin(f"cycle {cycle}/{self.cycles} {name}: train {student}", work, training.share_done())
            load = partial(self._load, name, student, self._initial(cycle, name, student))
            try:
                training.run(student, load, self.pairs.add_column("label", labels))
            except DivergedError as error:
                raise DivergedError(f"cycle {cycle}, {name}, training the {student}: {error}") from None
            self._on_main(self._forget_tokens)
            self.progress.end()
        encoder = self._load(name, student, str(training.folder))
        self._score(encoder, f"cycle {cycle} {name}: {student}", record)
        self.after_stage()

    def end_cycle(self, cycle: int) -> None:
        """Remove encoders of earlier cycles that are neither best so far nor a teacher of the next cycle."""
        if not keeps_all_cycles(self.config):
            for name in self.models:
                for kind in self.kinds:
                    for earlier in set(range(1, cycle)) - {self.best_cycle(name, kind, cycle)}:
                        self._remove(self.encoder_path(earlier, name, kind))

    # ------------------------------------------------------------ what the end of a run asks for

    def finish(self) -> None:
        """Put the best cycle's encoders at `NAME/bi-encoder` and `NAME/cross-encoder`."""
        # One rank asks the disk: another might look when this one has written. And agreement reads the whole pool.
        self._on_main(self._keep_best)

    def remove_cycles(self) -> None:
        """Remove the cycles' encoders once the best ones are in their place."""
        if not self.config.distillation.keep_cycles:
            for name in self.models:
                for kind in self.kinds:
                    for cycle in range(1, self.cycles + 1):
                        self._remove(self.encoder_path(cycle, name, kind))

    def ensemble(self, kind: Kind, start: bool = False) -> dict[str, Any]:
        """Scores of all PLMs' predictions as one, combined as labels are (the paper's ensemble rows).

        Args:
            start: of the bi-encoders that the PLMs start from, instead of the ones that are kept.
        """
        predictions = []
        for name in self.models:
            cycle = 0 if start else self.best_cycle(name, kind, self.cycles)
            predictions.append(load_predictions(_predictions(self.record_path(cycle, name, kind))))
        return self.scorer.scores([self.combine(columns) for columns in zip(*predictions, strict=True)])

    def best_cycle(self, name: str, kind: Kind, cycles: int) -> int:
        """The cycle whose encoder is kept: the best by dev or by agreement, the earliest of equals, or the last one."""
        if self.config.distillation.selection == "last":
            return cycles
        if self.config.distillation.selection == "agreement":
            return most_agreed_cycle(self.agreement(name), kind)
        return max(range(1, cycles + 1), key=lambda cycle: (self.record(cycle, name, kind)["scores"]["dev"], -cycle))

    def agreement(self, name: str) -> list[dict[str, Any]]:
        """How well a PLM's encoders agree on the pool, cycle by cycle; wants the labels of the last bi-encoder."""
        if name not in self.agreements:

            def labels(cycle: int, kind: Kind) -> np.ndarray:
                return self.labels(cycle + (kind == "bi-encoder"), name, kind)

            first = self.combine(self.labels(1, each, "bi-encoder") for each in self.models)
            self.agreements[name] = measures(labels, first, self.cycles, self.kinds)
        return self.agreements[name]

    def labels(self, cycle: int, name: str, teacher: Kind) -> np.ndarray:
        """Labels that were given in a cycle: float32, shape (n,); refused if they are damaged, or another pool's."""
        expected = {"pool": self.pool.fingerprint, "precision": self.precision, "kind": teacher}
        folder = self.labels_path(cycle, name, teacher)
        return read_labels(folder, expected, self.pool.num_rows, **self._label_again(cycle, name, teacher))

    def record(self, cycle: int, name: str, kind: Kind) -> dict[str, Any]:
        """Scores, seconds and tokens of an encoder; cycle 0 is the start."""
        then = "the run's command scores the encoder again"
        return read_json(self.record_path(cycle, name, kind), "scores", "seconds", then=then)

    def training_record(self, cycle: int, name: str, kind: Kind) -> dict[str, Any]:
        """Steps, seconds, tokens and dev curve of a training."""
        then = "the run's command trains the encoder again"
        return read_json(self._training(cycle, name, kind).record, "steps", "seconds", then=then)

    def label_record(self, cycle: int, name: str, teacher: Kind) -> dict[str, Any]:
        """The teacher's fingerprint, and the seconds of a labelling."""
        return read_label_record(self.labels_path(cycle, name, teacher), **self._label_again(cycle, name, teacher))

    # ------------------------------------------------------------ where things are

    def record_path(self, cycle: int, name: str, kind: Kind) -> Path:
        """Scores of an encoder; there only when its stage is done."""
        return self._folder(cycle, name) / f"{kind}.json"

    def encoder_path(self, cycle: int, name: str, kind: Kind) -> Path:
        """An encoder trained in a cycle; cycle 0 is step 0."""
        return self._folder(cycle, name) / kind

    def labels_path(self, cycle: int, name: str, teacher: Kind) -> Path:
        """Labels given in a cycle; those of the last bi-encoder, which teaches none, have a place of their own."""
        folder = self._folder(cycle, name) if cycle <= self.cycles else self.root / "agreement" / name
        return folder / f"{teacher}-labels"

    def _folder(self, cycle: int, name: str) -> Path:
        return self.root / (f"cycle-{cycle}" if cycle else "start") / name

    def _teacher(self, cycle: int, name: str, kind: Kind) -> str:
        if kind == "cross-encoder":
            return str(self.encoder_path(cycle, name, kind))
        return self.models[name].bi_encoder if cycle == 1 else str(self.encoder_path(cycle - 1, name, kind))

    def _initial(self, cycle: int, name: str, student: Kind) -> str:
        if self.config.distillation.init == "sequential":
            teachers = {student: teacher for teacher, student in HALVES[self.config.distillation.students]}
            return self._teacher(cycle, name, teachers[student])
        return start_of(self.models[name], student)

    # ------------------------------------------------------------ how they are done

    def _load(self, name: str, kind: Kind, path: str) -> Encoder:
        if not self._is_own(path):
            return self._encoder(name, kind, path)
        again = to_train_again(Path(path))
        check_encoder_files(Path(path), **again)
        try:
            return self._encoder(name, kind, path)
        except InputError as error:
            raise InputError(f"{error}; delete {again['delete']}, and {again['then']}") from None

    def _is_own(self, path: str) -> bool:
        """Whether an encoder is one that this run has made."""
        return Path(path).is_relative_to(self.root)

    def _encoder(self, name: str, kind: Kind, path: str) -> Encoder:
        if kind == "cross-encoder":
            return CrossEncoder.from_pretrained(path, max_length=max_length_of(self.config, kind))
        model, section = self.models[name], self.config.bi_encoder
        return BiEncoder.from_pretrained(
            path,
            pooling=resolve_pooling(model.bi_encoder, model.pooling or section.pooling),
            max_length=max_length_of(self.config, kind),
            prompt=section.prompt,
            layout=resolve_checkpoint(model.bi_encoder).layout,
            from_cross_encoder=self.config.distillation.init == "sequential",
        )

    def _training(self, cycle: int, name: str, student: Kind) -> Training:
        values = training_values(self.config, self.models[name], student, self.state.num_processes)
        return Training(
            folder=self.encoder_path(cycle, name, student),
            values={"report_to": self.config.report_to or "none", "ddp_timeout": self.config.ddp_timeout, **values},
            dev=self.scorer.dev if self.config.distillation.selection == "dev" else None,
            metric=self.scorer.metric,
            seed=stage_seed(self.config.seed, cycle, student, list(self.models).index(name)),
            progress=self.progress,
            run_name=f"{self.root.resolve().name}-cycle-{cycle}-{name}-{student}",
            group=self.root.resolve().name,
            log_folder=self.root / "logs" / f"cycle-{cycle}" / name / student,
            lora=self.config.lora,
        )

    def _step0(self, name: str) -> None:
        if self._training(0, name, "bi-encoder").is_done:
            self.progress.skip(self.step0_work)
            return
        _, sentences = SentenceManifest.load(self.root / "sentences", delete=self.root / "pool")
        stage = step0_stage(self.config, self.root, self.models[name], self.scorer, self.progress)
        stage.run(sentences, self.step0_work)
        self.models[name] = started(self.config, self.root, self.models[name])
        self.after_stage()

    def _score(self, encoder: Encoder, title: str, record: Path) -> None:
        began = time.monotonic()
        predictions = self.scorer.predict(encoder)
        scores = self.scorer.scores(predictions)
        entry = {"scores": scores, "seconds": round(time.monotonic() - began, 3)}
        if len(self.models) > 1:
            self._on_main(lambda: save_predictions(_predictions(record), predictions))
        self._on_main(lambda: write_text(record, json.dumps(entry, indent=2) + "\n"))
        if scores:
            self.progress.say(f"{title}: {describe(scores)}")

    def _is_scored(self, record: Path) -> bool:
        """Whether an encoder's scores are there, and what an ensemble needs of it."""
        return record.exists() and (len(self.models) == 1 or _predictions(record).exists())

    def _label_again(self, cycle: int, name: str, teacher: Kind) -> dict[str, str]:
        encoder = self._teacher(cycle, name, teacher)
        return to_label_again(self.labels_path(cycle, name, teacher), Path(encoder) if self._is_own(encoder) else None)

    def _refuse_other_teacher(self, cycle: int, name: str, teacher: Kind) -> None:
        """Refuse labels that are not their teacher's, on one rank, while it is there and they are to be learnt from."""
        student = dict(HALVES[self.config.distillation.students])[teacher]
        used = cycle <= self.cycles and all(self.record_path(cycle, each, student).exists() for each in self.models)
        path = self._teacher(cycle, name, teacher)
        gone = self._is_own(path) and not Path(path).exists()
        if self.state.is_main_process and not (used or gone or was_restarted()):
            given_by = self.label_record(cycle, name, teacher)["teacher"]
            if weight_fingerprint(self._load(name, teacher, path)) != given_by:
                folder = self.labels_path(cycle, name, teacher)
                sentence = f"{folder}: its labels are not those of {path}; delete the folder {folder}"
                raise InputError(f"{sentence}, and the run's command labels again")

    def _training_work(self, name: str, kind: Kind) -> float:
        values = training_values(self.config, self.models[name], kind)
        orders = 2 if kind == "cross-encoder" and values.get("both_orders", True) else 1
        return TRAINING * orders * float(values["num_train_epochs"])

    def _total_work(self) -> float:
        trainings = sum(self._training_work(name, kind) for name in self.models for kind in self.kinds)
        labellings = self.cycles * len(self.kinds) + (self.config.distillation.selection == "agreement")
        return self.cycles * trainings + (FORWARD * labellings + self.step0_work) * len(self.models)

    def _keep_best(self) -> None:
        for name in self.models:
            for kind in self.kinds:
                best = self.best_cycle(name, kind, self.cycles)
                keep_encoder(self.encoder_path(best, name, kind), self.root / name / kind)

    def _forget_tokens(self) -> None:
        """Token ids that `Dataset.map` kept beside the pool; every training makes its own."""
        for path in (self.root / "pool").glob("cache-*.arrow"):
            path.unlink(missing_ok=True)

    def _remove(self, folder: Path) -> None:
        self._on_main(lambda: shutil.rmtree(folder, ignore_errors=True))

    def _on_main(self, function: Callable[[], Any]) -> None:
        """Run on the first rank; the others wait."""
        if self.state.is_main_process:
            function()
        self.state.wait_for_everyone()


def _predictions(record: Path) -> Path:
    """What an encoder predicts for the sets with gold scores, beside its scores; written before them."""
    return record.with_suffix(".predictions.npz")
