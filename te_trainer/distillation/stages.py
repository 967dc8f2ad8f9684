"""The stages of distillation: label the pool, train an encoder, score it; each is done once.

Stages follow one another in one process. A stage keeps nothing that it made (arguments, trainer, encoder): a new
`TrainingArguments` resets the state that an older trainer relies on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS, Kind
from te_trainer.distillation.combine import combine, quantiles
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.growing import can_grow, grown_pairs
from te_trainer.distillation.health import Probe, describe_health, why_no_teacher
from te_trainer.distillation.neighbours import NEAREST, changed_neighbours, draw_sentences
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.selection import Selection
from te_trainer.distillation.trainings import ATTEMPTS, Trainings
from te_trainer.distillation.work import FORWARD, training_work
from te_trainer.distributed import ask_main_process, on_main_process, process_state
from te_trainer.errors import InputError, divergence_named
from te_trainer.files.records import write_json
from te_trainer.files.scratch import scratch_folder
from te_trainer.labelling import SAME_SCORE, embed_sentences, score_pairs
from te_trainer.models import BiEncoder
from te_trainer.models.encoder import weight_fingerprint
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer, describe
from te_trainer.runs.store import RunStore
from te_trainer.trainers.datasets import column_values


class DistillationStages:
    """The stages that `te_trainer.distillation.cycle.run_cycles` calls, on the pairs of a run's pool.

    `after_stage` is called when a stage's result is on the disk; it need not return.
    """

    def __init__(
        self,
        plan: DistillationPlan,
        store: RunStore,
        pairs: Dataset,
        scorer: Scorer,
        progress: RunProgress,
        after_stage: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan, self.config, self.store, self.pairs = plan, plan.config, store, pairs
        self.scorer, self.progress, self.after_stage = scorer, progress, after_stage
        self.models, self.cycles, self.kinds = plan.models, plan.cycles, plan.kinds
        self.has_ensemble = len(self.models) > 1 and any(scorer.gold)
        self.probe = Probe.draw(pairs, plan.held_out, self.config.seed)
        self.selection = Selection(plan, store)
        self.trainings = Trainings(plan, store, scorer, progress)

    # ------------------------------------------------------------ what `run_cycles` calls

    def evaluate_start(self, name: str) -> None:
        """Score the bi-encoder that a PLM starts from."""
        start = EncoderKey.start(name)
        if not ask_main_process(lambda: self.store.is_scored(start, self.has_ensemble)):
            self._score(start, f"{name}: start")

    def label(self, cycle: int, name: str, teacher: Kind) -> np.ndarray:
        """Score the pool with the bi-encoder of the cycle before, or with this cycle's cross-encoder."""
        key = EncoderKey.teacher(cycle, name, teacher)
        if ask_main_process(lambda: self.store.has_labels(key)):
            self.progress.skip(FORWARD)
            labels = self.store.labels(key)
            if cycle <= self.cycles and self._is_still_taught(cycle, teacher):
                self._check_teacher(key)
            return labels
        began = time.monotonic()
        when = f"cycle {cycle}/{self.cycles}" if cycle <= self.cycles else "agreement"
        title = f"{when} {name}: label with {teacher}"
        self.progress.begin(title, FORWARD)
        encoder = load_run_encoder(self.plan, self.store, key)
        folder = self.store.labels_path(key)
        unfinished = folder.with_name(f".scratch-{folder.name}")
        with divergence_named(title), scratch_folder(unfinished) as scratch:
            labels = score_pairs(
                encoder, self.pairs, scratch=scratch, progress=self.progress.advance, **self.plan.labelling
            )
        if key.cycle == 0 and np.ptp(labels) < SAME_SCORE:
            raise InputError(
                f"models: the start of {name} gives all {len(labels):,} pairs the same score ({labels[0]:.3f}), so "
                f"that there is nothing to learn; choose pairs that differ in their first {encoder.max_length} tokens, "
                "a higher bi_encoder.max_length, or another bi_encoder.pooling or checkpoint, and another output_dir"
            )
        record: dict[str, Any] = {
            # reads all weights, and only the first rank writes it
            "teacher": weight_fingerprint(encoder) if process_state().is_main_process else "",
            "pooling": getattr(encoder, "pooling", None),
            "prompt": getattr(encoder, "prompt", None),
            "max_length": encoder.max_length,
            "seconds": round(time.monotonic() - began, 3),
        }
        self.store.save_labels(key, labels, record)
        self.progress.end()
        self.after_stage()
        return labels

    def train(self, cycle: int, name: str, student: Kind, labels: np.ndarray) -> bool:
        """Train an encoder from its original checkpoint or from its teacher's weights, and score it.

        Where health decides, a student that has not learnt is trained once more, for longer: a cross-encoder of a small
        pool with random pairs of its sentences beside it, as it is in the first training of a very small one.

        Returns:
            Whether it may teach: it has learnt, or gold decides. A dev set may find that a student of a teacher that
            has learnt little is better than the start, as in docs/selection.md.
        """
        key = EncoderKey(cycle, name, student)
        if student == "bi-encoder" and self.config.distillation.bi_encoder_labels == "averaged":
            labels = combine([labels, self.selection.first_labels()], "mean", [1.0, 1.0])
        attempts = range(1, 1 + (len(ATTEMPTS) if self.plan.selector == "health" else 1))
        return any(self._train_once(key, attempt, labels) for attempt in attempts)

    def _train_once(self, key: EncoderKey, attempt: int, labels: np.ndarray) -> bool:
        training = self.trainings.student(key, attempt)
        work = training_work(self.plan, key.name, key.kind, len(self.pairs)) * ATTEMPTS[attempt - 1]
        if attempt > 1:
            self.progress.total += work  # which nobody foresaw
        last, has_record = ask_main_process(lambda: (self._last_attempt(key), training.record.exists()))
        if last > attempt:
            self.progress.skip(work)
            return False
        if last == attempt and has_record:
            self.progress.skip(work)
            return self._may_teach(key)
        title = f"cycle {key.cycle}/{self.cycles} {key.name}: train {key.kind}" + ", again" * (attempt > 1)
        pairs, labels, added = self._to_learn(key, labels, attempt)
        training = self.trainings.student(key, attempt, 1 - added / len(pairs))
        training.run(title, work, pairs)
        self._score(key, f"cycle {key.cycle} {key.name}: {key.kind}", labels, attempt, added)
        self.after_stage()
        return self._may_teach(key)

    def _last_attempt(self, key: EncoderKey) -> int:
        """Which of a student's trainings was scored last; 0 where none was."""
        is_scored = self.store.is_scored(key, self.has_ensemble)
        return int(self.store.scores(key)["attempt"]) if is_scored else 0

    def _to_learn(self, key: EncoderKey, labels: np.ndarray, attempt: int) -> tuple[Dataset, np.ndarray, int]:
        """The pairs that a student learns, the pool's labels as it learns them, and how many pairs are added."""
        pool, grown = len(self.pairs), None
        grows = attempt > 1 or self.plan.models[key.name].encoders[key.kind].grows
        if grows and key.kind == "cross-encoder" and can_grow(self.plan, pool):
            grown = grown_pairs(self.plan, self.store, self.pairs, key.cycle)
            found = f"{len(grown['label']):,} random pairs of the pool's sentences are labelled"
            none = "the pool's sentences make no other pair that the start tells apart"
            self.progress.say(f"cycle {key.cycle}: {found if grown['label'] else none}")
            labels = np.concatenate([labels, np.array(grown["label"], dtype=np.float32)])
        if key.kind == "cross-encoder" and self.config.distillation.cross_encoder_labels == "quantiles":
            labels = quantiles(labels)
        pairs = self.pairs.add_column("label", labels[:pool])
        if self.probe.held_out:
            pairs = pairs.select(self.probe.rows_to_learn(pool))
        if grown is None:
            return pairs, labels, 0
        columns: dict[str, Any] = {name: [*pairs[name], *grown[name]] for name in SENTENCE_COLUMNS}
        columns["label"] = np.concatenate([column_values(pairs, "label"), labels[pool:]])
        return Dataset.from_dict(columns), labels[:pool], len(labels) - pool

    def _may_teach(self, key: EncoderKey) -> bool:
        failure = self.selection.failure(key)
        return failure is None or not failure["stopped"]

    def end_cycle(self, cycle: int) -> None:
        """Remove encoders of earlier cycles that are neither best so far nor a teacher of the next cycle."""
        if not self.plan.keeps_all_cycles:
            for name, kind in product(self.models, self.kinds):
                for earlier in set(range(1, cycle)) - {self.selection.best_cycle(name, kind, cycle)}:
                    self.store.remove_encoder(EncoderKey(earlier, name, kind))

    # ------------------------------------------------------------ what the end of a run calls

    def keep_best_encoders(self) -> None:
        """Copy the best cycle's encoders to `NAME/bi-encoder` and `NAME/cross-encoder`."""

        def keep() -> None:
            for name, kind in product(self.models, self.kinds):
                if (best := self.selection.best_cycle(name, kind)) is not None:
                    key = EncoderKey(best, name, kind)
                    start = None if self.store.trains(key) else load_run_encoder(self.plan, self.store, key)
                    self.store.keep_encoder(key, start)

        # agreement reads the whole pool
        on_main_process(keep)

    def compare_neighbours(self) -> None:
        """Write down which sentences have other neighbours than the start finds, unless it is written.

        They are those of the bi-encoder that is kept, or of the last one that was trained where that is the start.
        """
        if ask_main_process(self.store.layout.neighbours.exists):
            return
        sentences = draw_sentences(self.pairs, self.config.seed)
        found = {}
        for name in self.models:
            trained = self._bi_encoder_to_compare(name)
            if trained is not None and len(sentences) > NEAREST:
                before, after = (self._embed(key, sentences) for key in (trained._replace(cycle=0), trained))
                found[name] = {"cycle": trained.cycle} | changed_neighbours(sentences, before, after)
        on_main_process(lambda: write_json(self.store.layout.neighbours, found, ensure_ascii=False))

    def remove_cycle_encoders(self) -> None:
        """Remove the cycles' encoders, unless the run is to keep them; the best ones have been copied."""
        if not self.config.distillation.keep_cycles:
            for key in product(range(1, self.cycles + 1), self.models, self.kinds):
                self.store.remove_encoder(EncoderKey(*key))

    # ------------------------------------------------------------ what the stages do

    def _bi_encoder_to_compare(self, name: str) -> EncoderKey | None:
        """The best cycle's bi-encoder, or where the start is kept the last; None where it is not there."""
        best = self.selection.best_cycle(name, "bi-encoder")
        keys = (EncoderKey(cycle, name, "bi-encoder") for cycle in ([best] if best else range(self.cycles, 0, -1)))
        return ask_main_process(lambda: next((key for key in keys if self.store.encoder_path(key).exists()), None))

    def _embed(self, key: EncoderKey, sentences: list[str]) -> np.ndarray:
        encoder = load_run_encoder(self.plan, self.store, key)
        assert isinstance(encoder, BiEncoder)
        with scratch_folder(self.scorer.scratch) as scratch:
            columns = Dataset.from_dict({"sentence1": sentences})
            return np.array(embed_sentences(encoder, columns, scratch, precision=self.store.precision))

    def _check_teacher(self, key: EncoderKey) -> None:
        """Refuse labels that are not those of their teacher, while it is there."""
        path = self.store.encoder_path(key)
        if not process_state().is_main_process or (self.store.trains(key) and not path.exists()):
            return
        if weight_fingerprint(load_run_encoder(self.plan, self.store, key)) != self.store.label_record(key)["teacher"]:
            folder, teacher = self.store.labels_path(key), path if self.store.trains(key) else "the start"
            raise InputError(
                f"{folder}: its labels are not those of {teacher}; delete the folder {folder}, and the run's command "
                "labels again"
            )

    def _score(
        self, key: EncoderKey, title: str, labels: np.ndarray | None = None, attempt: int = 1, added: int = 0
    ) -> None:
        """Score an encoder against gold, and look at its health by the labels that it learnt (None for the start).

        `added` says how many pairs it has learnt beside the pool's.
        """
        began = time.monotonic()
        encoder = load_run_encoder(self.plan, self.store, key)
        with divergence_named(title):
            record, predictions = self.scorer.score(encoder)
            with scratch_folder(self.scorer.scratch) as scratch:
                probed = score_pairs(encoder, self.probe.pairs, scratch=scratch, **self.plan.labelling)
        start = None if labels is None else self.store.labels(EncoderKey.start(key.name))
        health = self.probe.health(probed, labels, start)
        # with the time in which the encoder was loaded
        seconds = round(time.monotonic() - began - record["seconds"], 3)
        record |= {"health": health, "health_seconds": seconds, "attempt": attempt, "added_pairs": added}
        if labels is not None:
            record["training_seconds"] = self.store.training_record(key)["seconds"]
            record["earlier_seconds"] = self._earlier_seconds(key, attempt)
        self.store.save_scores(key, record, predictions)
        self.progress.say(f"{title}: {'; '.join(filter(None, [describe(record['scores']), describe_health(health)]))}")
        if labels is None and (reason := why_no_teacher(health)):
            self.progress.say(f"warning: {key.name}: {reason}")
        if labels is not None and (failure := self.selection.failure(key)):
            self.progress.say(
                f"warning: {title} has not learnt its labels: {failure['reason']}{self._outcome(failure, attempt)}"
            )

    def _earlier_seconds(self, key: EncoderKey, attempt: int) -> dict[str, float]:
        """What a student's training before this attempt took; its own record is overwritten by now."""
        if attempt == 1 or not ask_main_process(lambda: self.store.is_scored(key)):
            return {}
        before = self.store.scores(key)
        if before["attempt"] == attempt:
            return dict(before["earlier_seconds"])
        return {name: before[name] for name in ("training_seconds", "seconds", "health_seconds")}

    def _outcome(self, failure: dict[str, Any], attempt: int) -> str:
        """What follows from a student's failure, as the end of a line."""
        if not failure["stopped"]:
            return ". It teaches all the same" if failure["taught"] else ""
        if attempt == len(ATTEMPTS):
            return ". It teaches none, and the cycles end here"
        return f". It is trained once more, {ATTEMPTS[attempt]} times as long"

    def _is_still_taught(self, cycle: int, teacher: Kind) -> bool:
        """Whether a PLM's student is still to learn from the labels of a cycle's teachers."""
        student = dict(self.plan.half_cycles)[teacher]
        keys = [EncoderKey(cycle, name, student) for name in self.models]
        return not ask_main_process(lambda: all(self.store.is_scored(key) for key in keys))
