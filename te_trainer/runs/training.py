"""One training: from an encoder and labelled pairs to a saved encoder, through kills."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_callback import PrinterCallback

from te_trainer.config.schema import Kind, LoraConfig
from te_trainer.data import GoldSet
from te_trainer.distributed import process_state
from te_trainer.errors import InputError
from te_trainer.files.atomic import PARTIAL, remove, write_text
from te_trainer.files.records import damage_as_input_error
from te_trainer.metrics import Metric
from te_trainer.models import CrossEncoder, Encoder
from te_trainer.models.lora import ADAPTER_FILES, merge_saved, parameter_counts, peft_config
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.saved import check_checkpoint
from te_trainer.trainers import (
    BiEncoderTrainer,
    BiEncoderTrainingArguments,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from te_trainer.trainers.callbacks import WHOLE, last_whole_checkpoint
from te_trainer.trainers.cross_encoder import ACTIVATIONS

ADAPTER = "adapter"  # folder of an adapter beside the weights that it was merged into


@dataclass
class Training:
    """One training stage.

    Args:
        folder: where the encoder goes; beside it `NAME.training.json` says how it came to be.
        values: keyword arguments of the training arguments.
        dev: if given, the best checkpoint by it is kept; else the last one.
        run_name, group, log_folder: for the loggers.
        section: of the configuration, where it is not the encoder's kind.
        lora: with a rank, adapters are trained and merged into plain weights at the end.
    """

    folder: Path
    values: dict[str, Any]
    dev: GoldSet | None
    metric: Metric
    seed: int
    progress: RunProgress
    run_name: str
    group: str
    log_folder: Path
    section: str | None = None
    lora: LoraConfig = field(default_factory=LoraConfig)

    @property
    def workshop(self) -> Path:
        """Where checkpoints live until the training is done."""
        return self.folder.with_name(f".training-{self.folder.name}")

    @property
    def record(self) -> Path:
        """Steps, seconds and dev curve of a training that is done."""
        return self.folder.with_name(f"{self.folder.name}.training.json")

    @property
    def is_done(self) -> bool:
        """Whether the encoder and its record are there, so that nothing is left to train."""
        return self.folder.exists() and self.record.exists()

    def share_done(self) -> float:
        """How much of the training a last checkpoint holds, 0 to 1."""
        checkpoint = last_whole_checkpoint(self.workshop)
        if checkpoint is None:
            return 0.0
        check_checkpoint(Path(checkpoint))
        state = TrainerState.load_from_json(str(Path(checkpoint, "trainer_state.json")))
        return state.global_step / max(1, state.max_steps)

    def run(self, kind: Kind, load: Callable[[], Encoder], pairs: Dataset) -> None:
        """Train, from the last whole checkpoint if there is one, and save.

        Args:
            kind: of the encoder.
            load: gives the encoder as it starts. Called once the training arguments are there: under ZeRO-3 they make
                `from_pretrained` put a share of the weights on each rank, so that no rank ever holds all of them.
                With LoRA it is called once more at the end.
            pairs: columns `sentence1`, `sentence2`, `label`; positive pairs have no label.

        Raises:
            DivergedError: a loss is NaN or infinite.
            InputError: transformers refuses an argument.
        """
        state = process_state()
        if state.is_main_process:
            remove(self._partial)
            for path in self.workshop.glob("checkpoint-*"):
                if not (path / WHOLE).exists():
                    remove(path)
            self._follow_move()
        state.wait_for_everyone()

        def start() -> Encoder:
            # The head of a new cross-encoder is drawn before a Trainer seeds anything.
            set_seed(self.seed)
            return load()

        record = self._train(kind, start, pairs)
        forget_engine()
        state.wait_for_everyone()
        if state.is_main_process:
            (self._partial / "training_args.bin").unlink(missing_ok=True)
            if self.lora.rank:
                self._merge(start())
            write_text(self.record, json.dumps(record, indent=2) + "\n")
            # an encoder without its record was not done
            remove(self.folder)
            self._partial.replace(self.folder)
            shutil.rmtree(self.workshop, ignore_errors=True)
        state.wait_for_everyone()

    def _follow_move(self) -> None:
        """Let the last checkpoint name the best one where it lies now, also after the run's folder has moved."""
        if (checkpoint := last_whole_checkpoint(self.workshop)) is None:
            return
        file = Path(checkpoint, "trainer_state.json")
        state = json.loads(file.read_text(encoding="utf-8"))
        if best := state.get("best_model_checkpoint"):
            here = str(self.workshop / Path(best).name)
            if here != best:
                write_text(file, json.dumps(state | {"best_model_checkpoint": here}, indent=2, sort_keys=True) + "\n")

    @property
    def _partial(self) -> Path:
        return self.folder.with_name(PARTIAL + self.folder.name)

    def _train(self, kind: Kind, load: Callable[[], Encoder], pairs: Dataset) -> dict[str, Any]:
        """Train and save, on all ranks (a sharded model needs them); gives what `record` will hold."""
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(self.log_folder)
        os.environ["WANDB_RUN_GROUP"] = self.group
        clock = _Clock(self.workshop / "seconds")
        arguments = self._arguments(kind)
        encoder = load()
        checkpoint = last_whole_checkpoint(self.workshop)
        make: Any = BiEncoderTrainer if kind == "bi-encoder" else CrossEncoderTrainer
        trainer = make(
            encoder,
            arguments,
            pairs,
            self.dev and _dataset(self.dev),
            metric=self.metric,
            callbacks=[_Reporter(self.progress, self.metric.__name__), clock],
            peft_config=peft_config(encoder.model, kind, self.lora) if self.lora.rank else None,
            # they are what a teacher said: logits, of a cross-encoder that learnt with mean squared error
            check_labels=False,
        )
        trainer.remove_callback(PrinterCallback)
        trainable, parameters = parameter_counts(encoder.model)
        batch = trainer.get_total_train_batch_size(trainer.args)
        self.progress.say(
            f"{self.progress.stage}: {trainable / 1e6:,.2f} M of {parameters / 1e6:,.2f} M parameters "
            f"({100 * trainable / parameters:.2f} %) are trained; batches of {batch} pairs"
        )
        on_gpu = trainer.args.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model(str(self._partial / ADAPTER if self.lora.rank else self._partial))
        record = self._record(trainer, clock) | {"trainable": trainable, "parameters": parameters}
        if on_gpu:
            record["peak_memory"] = torch.cuda.max_memory_allocated()
            self.progress.say(f"{self.progress.stage}: peak memory {record['peak_memory'] / 1e9:.2f} GB")
        _finish_loggers(arguments.report_to)
        trainer.accelerator.free_memory()
        return record

    def _arguments(self, kind: Kind) -> TrainingArguments:
        make: Any = BiEncoderTrainingArguments if kind == "bi-encoder" else CrossEncoderTrainingArguments
        try:
            return make(
                output_dir=str(self.workshop),
                seed=self.seed,
                run_name=self.run_name,
                disable_tqdm=True,
                **{
                    # a Trainer turns the libraries' messages up again, on every rank but the first by default
                    "log_level": "error",
                    "log_level_replica": "error",
                    # Without a dev set the trainer would save every 500 steps; a killed stage loses at most an epoch.
                    "save_strategy": "epoch" if self.dev is None else None,
                    **self.values,
                },
            )
        except (ValueError, ImportError) as error:
            section = self.section or kind.replace("-", "_")
            raise InputError(f"{section}: transformers refuses its arguments: {' '.join(str(error).split())}") from None

    def _record(self, trainer: Any, clock: _Clock) -> dict[str, Any]:
        metric, state = f"eval_{self.metric.__name__}", trainer.state
        record = {
            "steps": state.global_step,
            "best_step": state.global_step if self.dev is None else state.best_global_step,
            "engine": type(trainer.model_wrapped).__name__,
            "seconds": round(clock.total(), 3),
            # the mean over the steps since the log before; None where the training ended before the first
            "loss": next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None),
            "dev_curve": [[entry["step"], entry[metric]] for entry in state.log_history if metric in entry],
        }
        if trainer.args.include_num_input_tokens_seen != "no":
            record["num_input_tokens_seen"] = state.num_input_tokens_seen
        return record

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


class _Reporter(TrainerCallback):
    """Hands a training's progress to the run's display."""

    def __init__(self, progress: RunProgress, metric: str) -> None:
        self.progress = progress
        self.metric = f"eval_{metric}"

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress.advance(state.global_step / max(1, state.max_steps))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        self.progress.score(f"last dev {100 * kwargs['metrics'][self.metric]:.2f}")


class _Clock(TrainerCallback):
    """Seconds of a training over all processes that worked on it, as far as their checkpoints tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with damage_as_input_error(path, then="the run's command continues, and counts this training's seconds anew"):
            self.before = float(path.read_text()) if path.exists() else 0.0
        self.began = time.monotonic()

    def total(self) -> float:
        return self.before + time.monotonic() - self.began

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            write_text(self.path, str(self.total()))


def _dataset(gold: GoldSet) -> Dataset:
    return Dataset.from_dict({"sentence1": gold.sentence1, "sentence2": gold.sentence2, "label": gold.scores})


def forget_engine() -> None:
    """Let go of what a Trainer leaves behind in accelerate, transformers and DeepSpeed.

    As long as it is there, `from_pretrained` under ZeRO-3 gives empty weights, and a second Trainer is refused.
    """
    gc.collect()
    AcceleratorState._reset_state(reset_partial_state=False)
    unset_hf_deepspeed_config()


def _finish_loggers(report_to: list[str] | str | None) -> None:
    """End the loggers' run, so that the next stage begins one of its own."""
    if "wandb" in (report_to or []):
        import wandb

        wandb.finish()
    if "trackio" in (report_to or []):
        import trackio

        trackio.finish()
