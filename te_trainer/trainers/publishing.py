"""A trainer's model card, and its uploads to the Hub, which hold the encoder alone."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from numbers import Real
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from huggingface_hub import ModelCardData
from transformers import Trainer
from transformers.utils.hub import PushInProgress, hf_api

from te_trainer.errors import first_line
from te_trainer.hub_errors import hub_trouble
from te_trainer.models.card_parts import PIPELINE_TAGS, card_tags, render_card
from te_trainer.models.weights import replaced_weights
from te_trainer.trainers.checkpoint_mark import MARKS

TEMPLATE = Path(__file__).with_name("trainer_card.md")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
HUB_CACHE = re.compile(r"models--([\w.-]+?)(?:--([\w.-]+))?/snapshots/([0-9a-f]+)", re.ASCII)
SPEED_METRICS = ("_runtime", "_per_second", "_compilation_time", "_model_preparation_time")  # ends of their names
# Files of a checkpoint that only a resumed training reads.
TRAINING_FILES = (
    *("optimizer*", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json", "training_args.bin", *MARKS),
    *("global_step*", "pytorch_model_fsdp*", "latest", "zero_to_fp32.py"),  # of DeepSpeed and FSDP
)

logger = logging.getLogger(__name__)


class PublishingTrainer(Trainer):
    """A Trainer with a card for sentence-transformers, whose uploads hold the encoder alone.

    It overrides one private method, `_push_from_checkpoint`: the Trainer's uploads the whole of `output_dir`.
    """

    encoder: Any
    _upload_has_failed: bool = False  # of a checkpoint, which is said once

    def finish_saved(self, folder: Path) -> None:
        """Take out of a saved encoder what only training needed."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write `README.md` into `args.output_dir`; arguments are those of `trainer_card`, in this order."""
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir or ".")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "README.md").write_text(trainer_card(self, *args, **kwargs), encoding="utf-8")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Upload the encoder and its card to `args.hub_model_id`, from a folder of their own.

        Nothing else of `output_dir` goes along: no checkpoints, logs or training arguments. Arguments are those of
        `Trainer.push_to_hub`, and of `trainer_card`.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.save_model(folder.name, _internal_call=True)
        if not self.is_world_process_zero():
            folder.cleanup()
            return None
        self._finish_current_push()
        job = self._upload(folder, commit_message, token, revision, **kwargs)
        return job.result() if blocking else job

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == "end":
            return
        running = getattr(self, "push_in_progress", None)
        if not self.args.hub_always_push and running is not None and not running.is_done():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # a copy: the checkpoint may be deleted while it is uploaded
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ignored = shutil.ignore_patterns(*TRAINING_FILES)
        shutil.copytree(checkpoint_folder, folder.name, ignore=ignored, dirs_exist_ok=True)
        job = self._upload(folder, f"Training in progress, step {self.state.global_step}", self.args.hub_token)
        job.add_done_callback(self._say_that_it_failed)
        self.push_in_progress: Any = PushInProgress([job])  # type: ignore[arg-type]

    def _upload(
        self,
        folder: tempfile.TemporaryDirectory[str],
        message: str | None,
        token: str | None,
        revision: str | None = None,
        **card: Any,
    ) -> Any:
        """Begin to upload a temporary folder, which is deleted afterwards."""
        path = Path(folder.name)
        self.finish_saved(path)
        (path / "README.md").write_text(trainer_card(self, **card), encoding="utf-8")
        job: Any = hf_api().run_as_future(
            _replace,
            str(self.hub_model_id),
            path,
            revision=revision if revision is not None else self.args.hub_revision,
            token=token,
            message=message,
        )
        job.add_done_callback(lambda _: folder.cleanup())
        return job

    def _say_that_it_failed(self, job: Any) -> None:
        error = None if job.cancelled() else job.exception()
        if error is not None and not self._upload_has_failed:
            self._upload_has_failed = True
            logger.warning(
                "a checkpoint was not uploaded to %s: %s; the training goes on, and push_to_hub uploads its encoder",
                self.hub_model_id,
                hub_trouble(error) or first_line(error),
            )


def _replace(repository: str, folder: Path, revision: str | None, token: str | None, message: str | None) -> Any:
    """Upload a folder in the place of the weights that the repository holds."""
    api: Any = hf_api()
    stale = replaced_weights(folder, api.list_repo_files(repository, revision=revision, token=token))
    if stale:
        logger.warning("%s: deleted, because the upload takes their place: %s", repository, ", ".join(stale))
    return api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        commit_message=message,
        token=token,
        revision=revision,
        ignore_patterns=list(TRAINING_FILES),
        delete_patterns=stale or None,
    )


def trainer_card(
    trainer: Any,
    language: str | None = None,
    license: str | None = None,
    tags: str | list[str] | None = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: str | list[str] | None = None,
    dataset_tags: str | list[str] | None = None,
    dataset: str | list[str] | None = None,
    dataset_args: str | list[str] | None = None,
) -> str:
    """The model card of a trainer's encoder as it is now; the arguments are those of `Trainer.create_model_card`."""
    encoder, args = trainer.encoder, trainer.args
    base, revision = (finetuned_from, None) if finetuned_from else base_model(encoder)
    repository = trainer.hub_model_id or model_name or Path(args.output_dir or "model").absolute().name
    best = trainer.state.best_global_step if args.load_best_model_at_end else None
    metrics = last_metrics(trainer.state.log_history, best)
    is_adapter = hasattr(encoder.model, "peft_config")
    pairs, orders = trainer.train_dataset, 1 + getattr(args, "both_orders", False)
    length = "max_steps" if args.max_steps > 0 else "num_train_epochs"
    data = ModelCardData(
        language=language,
        license=license,
        library_name="peft" if is_adapter else "sentence-transformers",
        pipeline_tag=(_as_list(tasks) or [PIPELINE_TAGS[encoder.kind]])[0],
        tags=card_tags([encoder.kind], "generated_from_trainer", *_as_list(tags)),
        base_model=base,
        datasets=_as_list(dataset_tags) or None,
        metrics=["spearmanr"] if any(name.endswith("spearman") for name in metrics) else None,
    )
    return render_card(
        TEMPLATE,
        data,
        title=" ".join((model_name or repository.rpartition("/")[2]).split()),
        repository=repository,
        encoder=encoder,
        is_adapter=is_adapter,
        base=base,
        base_revision=revision,
        pair_count=None if isinstance(pairs, IterableDataset | None) else len(pairs) // orders,
        datasets=[*_as_list(dataset), *_as_list(dataset_args)],
        loss="a custom loss" if trainer.has_custom_loss() else f"the loss `{args.loss}`",
        arguments={
            "learning_rate": args.learning_rate,
            "lr_scheduler_type": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
            "warmup_steps": args.warmup_steps,
            "weight_decay": args.weight_decay,
            "batch size (all processes, accumulated)": trainer.get_total_train_batch_size(args),
            length: getattr(args, length),
            "seed": args.seed,
            "precision": args.arithmetic,
            "max_length": encoder.max_length,
        },
        metrics=metrics,
        steps=trainer.state.global_step,
    )


def base_model(encoder: Any) -> tuple[str | None, str | None]:
    """The Hub's name of what an encoder was loaded from, and its commit, as far as they are known."""
    model = encoder.model
    name = str(getattr(model, "name_or_path", "") or getattr(model.config, "_name_or_path", ""))
    if cached := HUB_CACHE.search(name):
        *parts, commit = cached.groups()
        return "/".join(part for part in parts if part), commit
    is_on_hub = HUB_NAME.fullmatch(name) and not Path(name).exists()
    return (name, encoder.commit) if is_on_hub else (None, None)


def last_metrics(log_history: list[dict[str, Any]], best_step: int | None = None) -> dict[str, float]:
    """The metrics of the last evaluation, without those of speed.

    Where the weights of `best_step` were loaded when the training ended, evaluations of other weights do not count.
    """
    ends = [number for number, entry in enumerate(log_history) if "train_runtime" in entry]
    if best_step is not None and ends:
        of_these = [entry for entry in log_history[: ends[-1]] if entry.get("step") == best_step]
        log_history = [*of_these, *log_history[ends[-1] :]]
    metrics = [
        (entry["step"], key, value)
        for entry in log_history
        for key, value in entry.items()
        if key.startswith("eval_") and not key.endswith(SPEED_METRICS) and isinstance(value, Real)
    ]
    # several sets are logged one after another
    return {key: float(value) for step, key, value in metrics if step == metrics[-1][0]}


def _as_list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])
