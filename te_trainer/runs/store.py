"""What the stages of a run leave on the disk: labels, encoders, scores; written once, and checked when they are read.

A stage whose result is here is done. Every rank calls the methods that write, and the first one writes while the others
wait. What is here, the first rank alone looks at: `te_trainer.distributed.ask_main_process`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from te_trainer.config.types import SENTENCE_COLUMNS
from te_trainer.distributed import on_main_process
from te_trainer.files.atomic import atomic_file, atomic_folder, sync
from te_trainer.files.records import damage_as_input_error, read_json, write_json
from te_trainer.models import Encoder
from te_trainer.models.precision import Precision
from te_trainer.runs.layout import EncoderKey, RunLayout, training_record
from te_trainer.runs.saved import check_encoder_files, read_label_record, read_labels

SCORES_AGAIN = "the run's command scores the encoder again"
MINED_AGAIN = "the run's command mines the same pairs again"


@dataclass(frozen=True)
class RunStore:
    """Labels, encoders and scores of one run."""

    layout: RunLayout
    cycles: int
    trains_start: bool  # whether the run itself trains the bi-encoders that its PLMs start from
    precision: Precision  # in which labels are computed
    pairs: int = 0  # in the pool, once there is one
    pool: str = ""  # its fingerprint

    # ------------------------------------------------------------ encoders

    def encoder_path(self, key: EncoderKey) -> Path:
        """Folder of an encoder that the run trains."""
        return self.layout.encoder(*key)

    def trains(self, key: EncoderKey) -> bool:
        """Whether the run trains an encoder, instead of taking it from elsewhere."""
        return key.cycle > 0 or (self.trains_start and key.kind == "bi-encoder")

    def check_encoder(self, key: EncoderKey) -> None:
        """Refuse an encoder of the run of which something is gone or cut; raises DamagedError."""
        check_encoder_files(self.encoder_path(key), **self.how_to_train_again(key))

    def keep_encoder(self, key: EncoderKey, start: Encoder | None = None) -> None:
        """Put an encoder where a run's encoders are, unless it is there; raises DamagedError."""
        final = self.layout.kept_encoder(key.name, key.kind)
        if final.exists():
            return
        if start is None:
            self.check_encoder(key)
        with atomic_folder(final) as folder:
            if start is None:
                shutil.copytree(self.encoder_path(key), folder, dirs_exist_ok=True)
            else:
                start.save_pretrained(folder)

    def remove_encoder(self, key: EncoderKey) -> None:
        """Remove an encoder of a cycle; its scores and its labels stay."""
        on_main_process(lambda: shutil.rmtree(self.encoder_path(key), ignore_errors=True))

    def training_record(self, key: EncoderKey) -> dict[str, Any]:
        """Steps, seconds (over all processes that worked on it), last loss and dev curve of a training."""
        file = training_record(self.encoder_path(key))
        return read_json(file, "steps", "seconds", then="the run's command trains the encoder again")

    # ------------------------------------------------------------ labels

    def labels_path(self, key: EncoderKey) -> Path:
        """Folder of the labels that an encoder gives the pool.

        Labels of a bi-encoder lie in the cycle that learns from them. No cycle learns from those of the last
        bi-encoder, which are computed for their agreement alone.
        """
        cycle = key.cycle + (key.kind == "bi-encoder")
        if cycle > self.cycles:
            return self.layout.agreement_labels(key.name)
        return self.layout.labels(cycle, key.name, key.kind)

    def has_labels(self, key: EncoderKey) -> bool:
        return self.labels_path(key).exists()

    def save_labels(self, key: EncoderKey, labels: np.ndarray, record: dict[str, Any]) -> None:
        """Write labels, float32 of shape (pairs,), and what is known of their teacher, in one step."""

        def write() -> None:
            mine = {"kind": key.kind, "precision": self.precision, "pool": self.pool}
            with atomic_folder(self.labels_path(key)) as folder:
                Dataset.from_dict({"score": labels}).save_to_disk(str(folder))
                write_json(folder / "fingerprint.json", record | mine)

        on_main_process(write)

    def labels(self, key: EncoderKey) -> np.ndarray:
        """Labels that an encoder gave the pool, float32 of shape (pairs,)."""
        expected = {"pool": self.pool, "precision": self.precision, "kind": key.kind}
        return read_labels(self.labels_path(key), expected, self.pairs, **self._how_to_label_again(key))

    def label_record(self, key: EncoderKey) -> dict[str, Any]:
        """The teacher's fingerprint, and the seconds of a labelling."""
        return read_label_record(self.labels_path(key), **self._how_to_label_again(key))

    def remove_token_caches(self) -> None:
        """Remove the tokens that lie beside the pool, which the trainings of all cycles share."""

        def remove() -> None:
            for path in self.layout.pool.glob("cache-*.arrow"):
                path.unlink()

        on_main_process(remove)

    # ------------------------------------------------------------ mined and added pairs

    def mined(self) -> dict[str, Any] | None:
        """What is known of the pool's mined pairs; None where none were mined."""
        file, pool = self.layout.mined_record, self.layout.pool
        again = {"delete": f"the folder {pool}", "then": MINED_AGAIN}
        return read_json(file, "seconds", **again) if file.exists() else None

    def has_grown_pairs(self, cycle: int) -> bool:
        return self.layout.grown_pairs(cycle).exists()

    def save_grown_pairs(self, cycle: int, columns: dict[str, list[Any]], seconds: float) -> None:
        """Write what a cycle adds to the pool, `sentence1`, `sentence2` and `label`, and how long it took."""
        write_json(self.layout.grown_pairs(cycle), {"seconds": seconds} | columns, ensure_ascii=False)

    def grown_pairs(self, cycle: int) -> dict[str, Any]:
        """What a cycle adds to the pool: `{"seconds": s, "sentence1": [s], "sentence2": [s], "label": [f]}`."""
        file = self.layout.grown_pairs(cycle)
        return read_json(file, "seconds", *SENTENCE_COLUMNS, "label", then=MINED_AGAIN)

    # ------------------------------------------------------------ scores

    def is_scored(self, key: EncoderKey, with_predictions: bool = False) -> bool:
        """Whether the stage of an encoder is done: its scores are there, and if asked for the predictions too."""
        return self.layout.scores(*key).exists() and (not with_predictions or self.layout.predictions(*key).exists())

    def save_scores(self, key: EncoderKey, record: dict[str, Any], predictions: Sequence[np.ndarray] = ()) -> None:
        """Write `{"scores": SCORES, "seconds": s}`, and first the predictions for the sets with gold scores, if any."""

        def write() -> None:
            if predictions:
                file = self.layout.predictions(*key)
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_file(file) as partial:
                    np.savez(partial, *predictions)
                sync(file)
            write_json(self.layout.scores(*key), record)
            # of an encoder that is removed they are all that is left
            sync(self.layout.scores(*key))

        on_main_process(write)

    def scores(self, key: EncoderKey) -> dict[str, Any]:
        """`{"scores": SCORES, "seconds": s}` of an encoder."""
        return read_json(self.layout.scores(*key), "scores", "seconds", then=SCORES_AGAIN)

    def predictions(self, key: EncoderKey) -> list[np.ndarray]:
        """Predictions of an encoder for each set, each of shape (n,)."""
        path = self.layout.predictions(*key)
        # a damaged file stays open where numpy opens it
        with damage_as_input_error(path, then=SCORES_AGAIN), path.open("rb") as file, np.load(file) as saved:
            return [saved[f"arr_{number}"] for number in range(len(saved))]

    # ------------------------------------------------------------ how to fix it, for `damage_as_input_error`

    # They are called before there is damage, on all ranks, so it is their entry `delete` that looks what is there.

    def how_to_train_again(self, key: EncoderKey) -> dict[str, Any]:
        parts = {"folder": self.encoder_path(key), "file": self.layout.scores(*key)}

        def delete() -> str:
            return " and ".join(f"the {kind} {path}" for kind, path in parts.items() if path.exists())

        return {"delete": delete, "then": "the run's command trains it again"}

    def _how_to_label_again(self, key: EncoderKey) -> dict[str, Any]:
        folder = f"the folder {self.labels_path(key)}"
        if not self.trains(key) or self.encoder_path(key).exists():
            return {"delete": folder, "then": "the run's command labels again"}
        return {
            "delete": lambda: f"{folder} and {self.how_to_train_again(key)['delete']()}",
            "then": "the run's command trains their teacher again, and labels with it",
        }
