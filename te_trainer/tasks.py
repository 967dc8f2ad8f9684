"""The benchmark sets of the paper: where they are on the Hub, which columns hold what, which rows are dev and test.

In a folder (`data.dir`) each is a `NAME.tsv` with the header `split score sentence1 sentence2`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rows:
    """Rows `start:stop` of a split."""

    split: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """One set with gold scores.

    Args:
        positive: the Hub's label that counts as 1 (the paper flips QNLI so that entailment is 1); None keeps scores.
        hub_splits: the Hub's names of our splits, where they differ.
        pool_split: the one split of the Hub's set that belongs to the paper's pool; None takes all.
    """

    name: str
    repository: str
    configuration: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    positive: int | None = None
    dev: Rows | None = None
    test: Rows = Rows("test")
    hub_splits: dict[str, str] = field(default_factory=dict)
    pool_split: str | None = None


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in [
        Benchmark("sts12", "mteb/sts12-sts", pool_split="test"),
        Benchmark("sts13", "mteb/sts13-sts", pool_split="test"),
        Benchmark("sts14", "mteb/sts14-sts", pool_split="test"),
        Benchmark("sts15", "mteb/sts15-sts", pool_split="test"),
        Benchmark("sts16", "mteb/sts16-sts", pool_split="test"),
        Benchmark("stsb", "mteb/stsbenchmark-sts", dev=Rows("dev"), hub_splits={"dev": "validation"}),
        Benchmark("sickr", "mteb/sickr-sts", dev=Rows("trial")),
        Benchmark(
            "mrpc",
            "nyu-mll/glue",
            "mrpc",
            columns={"score": "label"},
            positive=1,
            dev=Rows("dev"),
            hub_splits={"dev": "validation"},
        ),
        # The paper's split of the official dev set: its first thousand rows choose, the rest test (Table 15).
        Benchmark(
            "qnli",
            "nyu-mll/glue",
            "qnli",
            columns={"sentence1": "question", "sentence2": "sentence", "score": "label"},
            positive=0,
            dev=Rows("dev", 0, 1000),
            test=Rows("dev", 1000),
            hub_splits={"dev": "validation"},
        ),
        Benchmark(
            "qqp",
            "nyu-mll/glue",
            "qqp",
            columns={"sentence1": "question1", "sentence2": "question2", "score": "label"},
            positive=1,
            dev=Rows("sample", 0, 1000),
            test=Rows("sample", 1000, 11000),
            hub_splits={"sample": "validation"},
            pool_split="sample",
        ),
    ]
}
