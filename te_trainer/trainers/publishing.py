"""What a trainer tells of its encoder, and what of it goes to the Hub: the encoder, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.utils.hub import PushInProgress, hf_api

from te_trainer.trainers.callbacks import WHOLE
from te_trainer.trainers.card import CardFacts, trainer_card

# Of a checkpoint, that a training goes on with and nobody else reads.
TRAINING_FILES = (
    "optimizer*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "global_step*",
    "pytorch_model_fsdp*",
    "latest",
    "zero_to_fp32.py",
    WHOLE,
)


class PublishingTrainer(Trainer):
    """A Trainer with a card for sentence-transformers, whose uploads hold the encoder alone.

    Beside public methods it overrides `_push_from_checkpoint`: the Trainer's uploads the whole of `output_dir`.
    """

    encoder: Any

    def finish_saved(self, folder: Path) -> None:
        """Make a saved encoder one to be used: without what only training needed."""

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write `README.md` into `args.output_dir`.

        Args:
            language, license, tags: of the model, for the card's metadata; nothing is asked of the Hub.
            model_name: the card's title; defaults to the repository's or the folder's name.
            finetuned_from: the base model; defaults to the one that the encoder was loaded from, if it is on the Hub.
            tasks: replaces the pipeline tag.
            dataset_tags, dataset: data sets on the Hub, and what the card calls them.
            dataset_args: of the data sets, named in the card's text.
        """
        if self.is_world_process_zero():
            facts = CardFacts(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            folder = Path(self.args.output_dir or ".")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "README.md").write_text(trainer_card(self, facts), encoding="utf-8")

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

        Nothing else of `output_dir` goes along: no checkpoints, logs or training arguments.

        Args:
            commit_message, blocking, token, revision, private: as for `Trainer.push_to_hub`.
            kwargs: passed on to `create_model_card`'s card.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        folder = Path(tempfile.mkdtemp())
        try:
            self.save_model(str(folder), _internal_call=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if not self.is_world_process_zero():
            shutil.rmtree(folder, ignore_errors=True)
            return None
        self._finish_current_push()
        return self._upload(folder, commit_message, blocking, token, revision, CardFacts(**kwargs))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == "end":
            return
        running = self.push_in_progress
        if not self.args.hub_always_push and running is not None and not running.is_done():
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        # a copy: the checkpoint may be deleted while it is uploaded
        folder = Path(tempfile.mkdtemp())
        shutil.copytree(checkpoint_folder, folder, dirs_exist_ok=True)
        message = f"Training in progress, step {self.state.global_step}"
        job = self._upload(folder, message, False, self.args.hub_token, None, CardFacts())
        self.push_in_progress: Any = PushInProgress([job])  # type: ignore[arg-type]

    def _upload(
        self,
        folder: Path,
        message: str | None,
        blocking: bool,
        token: str | None,
        revision: str | None,
        facts: CardFacts,
    ) -> Any:
        """Upload a folder that may be deleted afterwards."""
        job: Any = None
        try:
            for pattern in TRAINING_FILES:
                for path in folder.glob(pattern):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            self.finish_saved(folder)
            (folder / "README.md").write_text(trainer_card(self, facts), encoding="utf-8")
            job = hf_api().upload_folder(
                repo_id=str(self.hub_model_id),
                folder_path=folder,
                commit_message=message,
                token=token,
                run_as_future=not blocking,  # type: ignore[call-overload]
                revision=revision if revision is not None else self.args.hub_revision,
            )
        finally:
            if blocking or job is None:
                shutil.rmtree(folder, ignore_errors=True)
        if not blocking:
            job.add_done_callback(lambda _: shutil.rmtree(folder, ignore_errors=True))
        return job
