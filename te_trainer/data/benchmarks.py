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
    """One set with gold scores."""

    name: str
    title: str  # in the paper's tables
    repository: str
    configuration: str | None = None
    columns: dict[str, str] = field(default_factory=dict)  # maps our columns to the Hub's, where they differ
    positive: int | None = None  # label on the Hub that counts as 1 (the paper flips QNLI); None keeps scores
    dev: Rows | None = None  # rows that choose checkpoints
    test: Rows = Rows("test")  # rows that are reported
    hub_splits: dict[str, str] = field(default_factory=lambda: {"dev": "validation"})  # ours to the Hub's
    pool: tuple[Rows, ...] = ()  # rows of the paper's pool; empty for all rows
    hub_pool: tuple[Rows, ...] = ()  # the same of the Hub's set, where they differ
    mteb: str | None = None  # name of the set in MTEB


_GLUE = "nyu-mll/glue"
_SETS = [
    *(
        Benchmark(f"sts{year}", f"STS{year}", f"mteb/sts{year}-sts", hub_pool=(Rows("test"),), mteb=f"STS{year}")
        for year in range(12, 17)
    ),
    Benchmark("stsb", "STS-B", "mteb/stsbenchmark-sts", dev=Rows("dev"), mteb="STSBenchmark"),
    Benchmark("sickr", "SICK-R", "mteb/sickr-sts", dev=Rows("trial"), mteb="SICK-R"),
    Benchmark("mrpc", "MRPC", _GLUE, "mrpc", {"score": "label"}, positive=1, dev=Rows("dev")),
    # The paper's split of the official dev set: its first thousand rows choose, the rest test (Table 15).
    Benchmark(
        *("qnli", "QNLI", _GLUE, "qnli"),
        columns={"sentence1": "question", "sentence2": "sentence", "score": "label"},
        positive=0,
        dev=Rows("dev", 0, 1000),
        test=Rows("dev", 1000),
        pool=(Rows("train", 0, 10_000), Rows("dev")),
    ),
    # The paper took the first 10,000, 1,000 and 10,000 rows of train, dev and test of another split of these questions.
    # GLUE's test has no labels: its validation rows stand for dev and test, and are in the pool as both.
    Benchmark(
        *("qqp", "QQP", _GLUE, "qqp"),
        columns={"sentence1": "question1", "sentence2": "question2", "score": "label"},
        positive=1,
        dev=Rows("sample", 0, 1000),
        test=Rows("sample", 1000, 11_000),
        hub_splits={"sample": "validation"},
        pool=(Rows("train", 0, 10_000), Rows("dev", 0, 1000), Rows("test", 0, 10_000), Rows("sample", 0, 11_000)),
        hub_pool=(Rows("train", 0, 10_000), Rows("sample", 0, 11_000)),
    ),
]
BENCHMARKS = {benchmark.name: benchmark for benchmark in _SETS}

# Names for several sets at once; `sts_sickr` are the seven of the paper's Table 1, `binary` the three of its Table 2.
GROUPS = {
    "sts": ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb"],
    "sts_sickr": ["sts12", "sts13", "sts14", "sts15", "sts16", "stsb", "sickr"],
    "binary": ["qqp", "qnli", "mrpc"],
}
