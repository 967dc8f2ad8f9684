"""Where everything lies in an output folder. Nothing here reads or writes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from te_trainer.config.types import Kind

PYTHON_PAIRS = "python-pairs.jsonl"
ADAPTER = "adapter"  # folder of an adapter beside the weights that it was merged into


class EncoderKey(NamedTuple):
    """An encoder of a run."""

    cycle: int  # that trains it; 0 is what a PLM starts from
    name: str  # of the PLM
    kind: Kind

    @staticmethod
    def start(name: str) -> EncoderKey:
        """The bi-encoder that a PLM starts from, or that step 0 makes of it."""
        return EncoderKey(0, name, "bi-encoder")

    @staticmethod
    def teacher(cycle: int, name: str, kind: Kind) -> EncoderKey:
        """The encoder that labels the pool in a cycle: the bi-encoder of the cycle before, or the cross-encoder."""
        return EncoderKey(cycle - (kind == "bi-encoder"), name, kind)


class RunLayout:
    """The paths of an output folder.

    A cycle counts from 1; cycle 0 is the start, with the scores of what a PLM starts from and the result of step 0.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # of every command
        self.manifest = root / "run.yaml"  # makes the folder a run's; it is written first
        self.results = root / "results.json"  # makes the run a finished one; it is written last
        self.gold_scratch = root / ".scratch-gold"  # for scores of the sets with gold scores
        # of distil and contrastive
        self.python_pairs = root / PYTHON_PAIRS  # that a Python program gave; the pool is read from them
        self.pool = root / "pool"  # the pairs, what is known of them, and how many the encoders cut
        self.sentences = root / "sentences"  # the same of contrastive training's sentences
        # of distil
        self.mining = root / "mining"  # the sentences that pairs are mined from, and what is known of them
        self.given_pairs = self.mining / "pool"  # the pairs of `data.pool`, which mined ones are added to
        self.mined_record = self.pool / "mined.json"  # for the report; both appear at once
        self.mining_scratch = root / ".scratch-mining"  # for the sentences' vectors, candidates and their scores
        self.report = root / "report.md"
        self.curves = root / "curves.png"
        self.page = root / "report.html"
        self.neighbours = root / "neighbours.json"  # which sentences have other ones than the start finds, by PLM
        # of contrastive
        self.contrastive_encoder = root / "bi-encoder"
        # of evaluate
        self.markdown_table = root / "table.md"
        self.latex_table = root / "table.tex"

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

    def grown_pairs(self, cycle: int) -> Path:
        """Pairs, with labels, that a cycle's cross-encoders learn beside the pool's.

        They are added for a pool of fewer than 500 pairs (`GROWS_AT_ONCE`) at once, and for one of fewer than 1,000
        (`LARGEST_POOL`) where a cross-encoder has not learnt from the pool alone.
        """
        return self.mining / f"cycle-{cycle}.json"

    def agreement_labels(self, name: str) -> Path:
        """The labels of the last cycle's bi-encoder, which teaches none."""
        return self.root / "agreement" / name / "bi-encoder-labels"

    def contrastive_scores(self, part: str) -> Path:
        """Scores of contrastive training's encoder before ("start") or after ("final") it."""
        return self.root / "scores" / f"{part}.json"

    def model_predictions(self, name: str) -> Path:
        """A model's predictions, a Parquet file a set."""
        return self.root / "predictions" / name


def training_record(encoder: Path) -> Path:
    """How an encoder came to be, beside the encoder: steps, seconds, dev curve."""
    return encoder.with_name(f"{encoder.name}.training.json")
