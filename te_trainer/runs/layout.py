"""Where everything lies in an output folder. Nothing here reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from te_trainer.config.schema import Kind


class EncoderKey(NamedTuple):
    """An encoder of a run."""

    cycle: int  # that trains it; 0 is what a PLM starts from
    name: str  # of the PLM
    kind: Kind

    @staticmethod
    def teacher(cycle: int, name: str, kind: Kind) -> EncoderKey:
        """The encoder that labels the pool in a cycle: the bi-encoder of the cycle before, or the cross-encoder."""
        return EncoderKey(cycle - (kind == "bi-encoder"), name, kind)


@dataclass(frozen=True)
class RunLayout:
    """The paths of an output folder.

    A cycle counts from 1; cycle 0 is the start, with the scores of what a PLM starts from and the result of step 0.
    """

    root: Path

    # ------------------------------------------------------------ every command

    @property
    def manifest(self) -> Path:
        """`run.yaml`, which makes the folder a run's; it is written first."""
        return self.root / "run.yaml"

    @property
    def results(self) -> Path:
        """`results.json`, which makes the run a finished one; it is written last."""
        return self.root / "results.json"

    @property
    def gold_scratch(self) -> Path:
        """A scratch folder for scores of the sets with gold scores."""
        return self.root / ".scratch-gold"

    # ------------------------------------------------------------ distil and contrastive

    @property
    def python_pairs(self) -> Path:
        """The pairs that a Python program gave, from which the pool is read."""
        return self.root / "python-pairs.jsonl"

    @property
    def pool(self) -> Path:
        """The pairs, what is known of them, and how many the encoders cut."""
        return self.root / "pool"

    @property
    def sentences(self) -> Path:
        """The sentences of contrastive training, what is known of them, and how many the encoder cuts."""
        return self.root / "sentences"

    # ------------------------------------------------------------ distil

    @property
    def mining(self) -> Path:
        """The sentences that pairs are mined from, and what is known of them."""
        return self.root / "mining"

    @property
    def given_pairs(self) -> Path:
        """The pairs of `data.pool`, which mined ones are added to."""
        return self.mining / "pool"

    @property
    def mined_record(self) -> Path:
        """What was mined, for the report; in the pool's folder, because both appear at once."""
        return self.pool / "mined.json"

    @property
    def mining_scratch(self) -> Path:
        """A scratch folder for the sentences' vectors."""
        return self.root / ".scratch-mining"

    @property
    def report(self) -> Path:
        return self.root / "report.md"

    @property
    def curves(self) -> Path:
        return self.root / "curves.png"

    @property
    def page(self) -> Path:
        return self.root / "report.html"

    @property
    def neighbours(self) -> Path:
        """Which sentences have other neighbours than the start finds, by model."""
        return self.root / "neighbours.json"

    def model(self, cycle: int, name: str) -> Path:
        """What a PLM's encoders did and became in a cycle."""
        return self.root / (f"cycle-{cycle}" if cycle else "start") / name

    def encoder(self, cycle: int, name: str, kind: Kind) -> Path:
        """An encoder trained in a cycle."""
        return self.model(cycle, name) / kind

    def kept_encoder(self, name: str, kind: Kind) -> Path:
        """The best cycle's encoder, which the run is made for."""
        return self.root / name / kind

    def scores(self, cycle: int, name: str, kind: Kind) -> Path:
        """The scores of an encoder; there only when its stage is done."""
        return self.model(cycle, name) / f"{kind}.json"

    def predictions(self, cycle: int, name: str, kind: Kind) -> Path:
        """An encoder's predictions for the sets with gold scores; written before its scores."""
        return self.model(cycle, name) / f"{kind}.predictions.npz"

    def labels(self, cycle: int, name: str, teacher: Kind) -> Path:
        """The labels that a teacher gave the pool in a cycle."""
        return self.model(cycle, name) / f"{teacher}-labels"

    def agreement_labels(self, name: str) -> Path:
        """The labels of the last cycle's bi-encoder, which teaches none."""
        return self.root / "agreement" / name / "bi-encoder-labels"

    # ------------------------------------------------------------ contrastive

    @property
    def contrastive_encoder(self) -> Path:
        """The bi-encoder that contrastive training makes."""
        return self.root / "bi-encoder"

    def contrastive_scores(self, part: str) -> Path:
        """Scores of the encoder before ("start") or after ("final") the training."""
        return self.root / "scores" / f"{part}.json"

    # ------------------------------------------------------------ evaluate

    @property
    def markdown_table(self) -> Path:
        return self.root / "table.md"

    @property
    def latex_table(self) -> Path:
        return self.root / "table.tex"

    def model_predictions(self, name: str) -> Path:
        """A model's predictions, a Parquet file a set."""
        return self.root / "predictions" / name


def training_record(encoder: Path) -> Path:
    """How an encoder came to be, beside the encoder: steps, seconds, dev curve."""
    return encoder.with_name(f"{encoder.name}.training.json")
