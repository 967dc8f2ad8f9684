"""The benchmark sets of the paper: their names, where they are on the Hub, which columns and rows hold what.

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
        title: the paper's name for it.
        mteb: MTEB's name for it, where it has one.
        positive: the Hub's label that counts as 1 (the paper flips QNLI so that entailment is 1); None keeps scores.
        hub_splits: the Hub's names of our splits, where they differ.
        pool: the rows that belong to the paper's pool, of the splits that are there; none stands for all rows.
        hub_pool: the same of the Hub's set, where they are others.
    """

    name: str
    title: str
    repository: str
    configuration: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    positive: int | None = None
    dev: Rows | None = None
    test: Rows = Rows("test")
    hub_splits: dict[str, str] = field(default_factory=dict)
    pool: tuple[Rows, ...] = ()
    hub_pool: tuple[Rows, ...] = ()
    mteb: str | None = None


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in [
        Benchmark("sts12", "STS12", "mteb/sts12-sts", hub_pool=(Rows("test"),), mteb="STS12"),
        Benchmark("sts13", "STS13", "mteb/sts13-sts", hub_pool=(Rows("test"),), mteb="STS13"),
        Benchmark("sts14", "STS14", "mteb/sts14-sts", hub_pool=(Rows("test"),), mteb="STS14"),
        Benchmark("sts15", "STS15", "mteb/sts15-sts", hub_pool=(Rows("test"),), mteb="STS15"),
        Benchmark("sts16", "STS16", "mteb/sts16-sts", hub_pool=(Rows("test"),), mteb="STS16"),
        Benchmark(
            "stsb",
            "STS-B",
            "mteb/stsbenchmark-sts",
            dev=Rows("dev"),
            hub_splits={"dev": "validation"},
            mteb="STSBenchmark",
        ),
        Benchmark("sickr", "SICK-R", "mteb/sickr-sts", dev=Rows("trial"), mteb="SICK-R"),
        Benchmark(
            "mrpc",
            "MRPC",
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
            "QNLI",
            "nyu-mll/glue",
            "qnli",
            columns={"sentence1": "question", "sentence2": "sentence", "score": "label"},
            positive=0,
            dev=Rows("dev", 0, 1000),
            test=Rows("dev", 1000),
            pool=(Rows("train", 0, 10_000), Rows("dev")),
            hub_splits={"dev": "validation"},
        ),
        # The paper took the first 10,000, 1,000 and 10,000 rows of train, dev and test of another split of these
        # questions. GLUE's test has no labels: its validation rows stand for dev and test, and are in the pool as both.
        Benchmark(
            "qqp",
            "QQP",
            "nyu-mll/glue",
            "qqp",
            columns={"sentence1": "question1", "sentence2": "question2", "score": "label"},
            positive=1,
            dev=Rows("sample", 0, 1000),
            test=Rows("sample", 1000, 11000),
            pool=(Rows("train", 0, 10_000), Rows("dev", 0, 1000), Rows("test", 0, 10_000), Rows("sample", 0, 11_000)),
            hub_splits={"sample": "validation"},
            hub_pool=(Rows("train", 0, 10_000), Rows("sample", 0, 11_000)),
        ),
    ]
}

# Names for several sets at once; `sts_sickr` are the seven of the paper's Table 1, `binary` the three of its Table 2.
GROUPS = {
    "sts": ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb"],
    "sts_sickr": ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"],
    "binary": ["qqp", "qnli", "mrpc"],
}
