"""One training: from an encoder and labelled pairs to a saved encoder, through kills."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback

from te_trainer.config.schema import LoraConfig
from te_trainer.config.types import KINDS, Kind
from te_trainer.data import GoldSet
from te_trainer.distributed import ask_main_process, on_main_process, process_state
from te_trainer.errors import divergence_named
from te_trainer.files.atomic import PARTIAL, put_in_place, remove, sync, write_text
from te_trainer.files.records import damage_as_input_error, read_json, write_json
from te_trainer.metrics import Metric
from te_trainer.models import CrossEncoder, Encoder
from te_trainer.models.lora import merge_saved, parameter_counts, peft_config
from te_trainer.models.weights import ADAPTER_FILES
from te_trainer.runs.checkpoint_clock import SaveByClock
from te_trainer.runs.layout import ADAPTER, training_record
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.resuming import check_checkpoint, checkpoint_engine, computation_of, engine_of
from te_trainer.runs.training_arguments import TRAINERS, make_arguments, release_engine
from te_trainer.trainers import (
    CrossEncoderTrainingArguments,
)
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint, remove_behind, remove_unfinished
from te_trainer.trainers.cross_encoder import ACTIVATIONS


@dataclass
class Training:
    """One training of a run, which is done once.

    `load` is called once the training arguments are there: under ZeRO-3 they make `from_pretrained` put a part of the
    weights on each rank, so that no rank ever holds all of them. With LoRA it is called once more at the end.
    """

    folder: Path  # of the encoder; `NAME.training.json` beside it says how it came to be
    kind: Kind
    load: Callable[[], Encoder]  # loads the encoder as it starts
    values: dict[str, Any]  # keyword arguments of the training arguments
    dev: GoldSet | None  # by which the best checkpoint is kept; None keeps the last one
    metric: Metric
    seed: int  # of a new head, of the order of the pairs and of dropout
    progress: RunProgress
    run_dir: Path  # output folder of the run; the loggers have their names from it
    section: str  # of the configuration that holds the arguments
    log_name: str = ""  # for the loggers, with slashes; empty where the run has no other training
    attempt: int = 1  # which of a student's trainings this is
    lora: LoraConfig = field(default_factory=LoraConfig)  # with a rank, adapters are trained, and merged at the end

    @property
    def checkpoint_dir(self) -> Path:
        """Where checkpoints lie until the training is done."""
        return self.folder.with_name(f".training-{self.folder.name}")

    @property
    def record(self) -> Path:
        return training_record(self.folder)

    def read_record(self) -> dict[str, Any]:
        """Steps, seconds and dev curve of the training that is done; raises DamagedError."""
        return read_json(self.record, "steps", "seconds", "attempt", then="the same command trains the encoder again")

    @property
    def is_done(self) -> bool:
        """Whether the encoder of this attempt and its record are there, so that nothing is left to train."""

        def look() -> bool:
            return self.folder.exists() and self.record.exists() and self.read_record()["attempt"] == self.attempt

        return ask_main_process(look)

    def run(self, title: str, work: float, pairs: Dataset) -> None:
        """Train unless it is done, from the last whole checkpoint if there is one, and save.

        Args:
            work: Passes over the pool that the whole training is worth, for the display.
            pairs: Columns `sentence1`, `sentence2`, `label`; positive pairs have no label.

        Raises:
            DamagedError: A checkpoint was whole, and is not any more.
            DivergedError: A loss is NaN or infinite.
            InputError: transformers refuses an argument.
        """
        if self.is_done:
            # the process may have been killed before it removed them
            on_main_process(lambda: shutil.rmtree(self.checkpoint_dir, ignore_errors=True))
            self.progress.skip(work)
            return
        on_main_process(lambda: remove_unfinished(self.checkpoint_dir))
        self.progress.begin(title, work, self._part_done())
        on_main_process(self._clean)
        with divergence_named(title):
            record = self._train(pairs)
        release_engine()
        process_state().wait_for_everyone()
        on_main_process(lambda: self._finish(record))
        self.progress.end()

    @property
    def _partial(self) -> Path:
        return self.folder.with_name(PARTIAL + self.folder.name)

    def _last_checkpoint(self) -> str | None:
        """What a training that was killed resumes from."""
        return ask_main_process(lambda: last_whole_checkpoint(self.checkpoint_dir))

    def _part_done(self) -> float:
        """How much of the training the last checkpoint holds, 0 to 1."""
        if (checkpoint := self._last_checkpoint()) is None:
            return 0.0
        state = check_checkpoint(Path(checkpoint))
        return float(state.global_step / max(1, state.max_steps))

    def _clean(self) -> None:
        """Remove what a killed process left, and follow a run that has been moved."""
        remove(self._partial)
        if (checkpoint := last_whole_checkpoint(self.checkpoint_dir)) is not None:
            file = Path(checkpoint, "trainer_state.json")
            state = json.loads(file.read_text(encoding="utf-8"))
            # a Trainer that does not find the best checkpoint keeps the last weights without a word
            if best := state.get("best_model_checkpoint"):
                state["best_model_checkpoint"] = str(self.checkpoint_dir / Path(best).name)
                write_json(file, state, sort_keys=True)

    def _start(self) -> Encoder:
        # The head of a new cross-encoder is drawn before a Trainer seeds anything.
        set_seed(self.seed)
        return self.load()

    def _train(self, pairs: Dataset) -> dict[str, Any]:
        """Train and save on all ranks, since each may hold a part of the model; returns what `record` will hold."""
        run_name = self.run_dir.resolve().name
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.run_dir / "logs" / self.log_name)
        os.environ["WANDB_RUN_GROUP"] = run_name
        watch = _Watch(self.progress, self.metric.__name__, self.checkpoint_dir / "seconds")
        arguments = self._arguments("-".join(filter(None, [run_name, *self.log_name.split("/")])))
        encoder = self._start()
        trainer = TRAINERS[self.kind][0](
            encoder,
            arguments,
            pairs,
            self.dev and _dataset(self.dev),
            metric=self.metric,
            callbacks=[watch],
            peft_config=peft_config(encoder.model, self.kind, self.lora) if self.lora.rank else None,
            # a teacher gave them: those of a cross-encoder that learnt with mean squared error are logits
            check_labels=False,
        )
        trainer.remove_callback(PrinterCallback)
        if not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled):
            # those load the best one from a full checkpoint alone
            trainer.add_callback(SaveByClock())
        stage = self.progress.stage
        trainable, parameters = parameter_counts(encoder.model)
        batches = f"batches of {trainer.get_total_train_batch_size(trainer.args)} pairs"
        if self.section == "contrastive":
            # a sentence differs from those of its batch alone, however many batches make a step
            together = trainer.args.gradient_accumulation_steps
            batches = f"batches of {trainer.args.train_batch_size * trainer.args.world_size} sentences"
            batches += f", {together} of them a step" * (together > 1)
        self.progress.say(
            f"{stage}: {trainable / 1e6:,.2f} M of {parameters / 1e6:,.2f} M parameters "
            f"({100 * trainable / parameters:.2f} %) are trained; {batches}"
        )
        on_gpu = trainer.args.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        self._leave_checkpoint_of_another(engine_of(trainer), computation_of(trainer), watch)
        trainer.train(resume_from_checkpoint=self._last_checkpoint())
        trainer.save_model(str(self._partial / ADAPTER if self.lora.rank else self._partial))
        record = self._record(trainer, watch) | {"trainable": trainable, "parameters": parameters}
        if on_gpu:
            record["peak_memory"] = torch.cuda.max_memory_allocated()
            self.progress.say(f"{stage}: peak memory {record['peak_memory'] / 1e9:.2f} GB")
        _finish_loggers(arguments.report_to)
        trainer.accelerator.free_memory()
        return record

    def _leave_checkpoint_of_another(self, engine: str, computation: str, watch: _Watch) -> None:
        """Begin anew where another engine or other hardware wrote the checkpoint.

        Of another engine's a Trainer reads a part or nothing; on other hardware the rest of an epoch would be other
        pairs.
        """
        file = self.checkpoint_dir / "computation"

        def compare() -> tuple[str, list[tuple[str, str]]]:
            written = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            if (checkpoint := last_whole_checkpoint(self.checkpoint_dir)) is None:
                return written, []
            # power may have failed before the disk had the file
            both = ((checkpoint_engine(Path(checkpoint)), engine), (written or computation, computation))
            return written, [(before, now) for before, now in both if before != now]

        # of ranks on different hardware, the first one's counts
        written, changed = ask_main_process(compare)
        if changed:
            before, now = changed[0]
            self.progress.begin_anew(f"its checkpoint was written with {before}, and it is trained with {now} now")
            watch.begin_anew()
            on_main_process(lambda: remove_behind(self.checkpoint_dir, 0))
        if written != computation and process_state().is_main_process:
            write_text(file, computation)

    def _arguments(self, run_name: str) -> TrainingArguments:
        values = {
            "output_dir": str(self.checkpoint_dir),
            "seed": self.seed,
            "run_name": run_name,
            "disable_tqdm": True,
            # a Trainer turns the libraries' messages up again, on every rank but the first by default
            "log_level": "error",
            "log_level_replica": "error",
            # Where the clock does not decide and there is no dev set, the trainer would save every 500 steps; a killed
            # training loses at most an epoch.
            "save_strategy": "epoch" if self.dev is None else None,
        }
        return make_arguments(self.kind, self.section, values | self.values)

    def _record(self, trainer: Any, watch: _Watch) -> dict[str, Any]:
        metric, state = f"eval_{self.metric.__name__}", trainer.state
        record = {
            "attempt": self.attempt,
            "steps": state.global_step,
            "best_step": state.global_step if self.dev is None else state.best_global_step,
            "engine": type(trainer.model_wrapped).__name__,
            "seconds": round(watch.seconds(), 3),
            # the mean over the steps since the log before; None where the training ended before the first
            "loss": next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None),
            "dev_curve": [[entry["step"], entry[metric]] for entry in state.log_history if metric in entry],
        }
        if trainer.args.include_num_input_tokens_seen != "no":
            record["num_input_tokens_seen"] = state.num_input_tokens_seen
        return record

    def _finish(self, record: dict[str, Any]) -> None:
        """Put the encoder and its record in their place."""
        (self._partial / "training_args.bin").unlink(missing_ok=True)
        if self.lora.rank:
            self._merge(self._start())
        # an encoder never lies beside the record of another attempt
        remove(self.folder)
        write_json(self.record, record)
        sync(self.record)
        put_in_place(self._partial, self.folder)
        shutil.rmtree(self.checkpoint_dir, ignore_errors=True)

    def _merge(self, start: Encoder) -> None:
        """Make plain weights of the adapter in the partial result and of what its training started from."""
        adapter = self._partial / ADAPTER
        merge_saved(start, adapter)
        if isinstance(start, CrossEncoder):
            start.activate_with(ACTIVATIONS[self.values.get("loss", CrossEncoderTrainingArguments.loss)])
        start.save_pretrained(self._partial)
        for path in adapter.iterdir():
            if not (self.lora.keep_adapter and path.name in ADAPTER_FILES):
                remove(path)
        if not self.lora.keep_adapter:
            adapter.rmdir()


def training_seed(seed: int, cycle: int, kind: Kind, model: int) -> int:
    """The seed of one training: its head, order and dropout are drawn independently of all other trainings.

    A sum would equal that of another run: 2021 and a later cycle, 2023 and an earlier one.
    """
    state = np.random.SeedSequence((seed, cycle, KINDS.index(kind), model)).generate_state(1)
    return int(state[0]) >> 1


class _Watch(TrainerCallback):
    """Shows a training's progress, and counts its seconds over all processes that worked on it, in a file."""

    def __init__(self, progress: RunProgress, metric: str, file: Path) -> None:
        self.progress = progress
        self.metric = f"eval_{metric}"
        self.file = file
        self.began = time.monotonic()
        if process_state().is_main_process and file.exists():
            with damage_as_input_error(
                file, then="the run's command continues, and counts this training's seconds anew"
            ):
                self.began -= float(file.read_text())

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def begin_anew(self) -> None:
        self.began = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.progress.advance(state.global_step / max(1, state.max_steps))

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.progress.score(f"last dev {100 * kwargs['metrics'][self.metric]:.2f}")

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.file, str(self.seconds()))


def _dataset(gold: GoldSet) -> Dataset:
    return Dataset.from_dict({**gold.columns, "label": gold.scores})


def _finish_loggers(report_to: list[str] | str | None) -> None:
    """End the loggers' run, so that the next training begins one of its own."""
    for logger in {"wandb", "trackio"}.intersection(report_to or []):
        importlib.import_module(logger).finish()
