"""The pool: what is kept, what is dropped and counted, and what it costs in memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from conftest import GOLD_FOLDER, SAMPLE, process_environment
from test_readers import FORMATS, PAIRS, as_rows, put_into_hub_cache, write_rows

from te_trainer.config.schema import DataConfig
from te_trainer.data import PoolManifest, build_pool, load_gold
from te_trainer.data.readers import read_rows
from te_trainer.errors import InputError

Pair = tuple[str, str]


def pairs_of(folder: Path) -> list[Pair]:
    _, pairs = PoolManifest.load(folder)
    return list(zip(pairs["sentence1"][:], pairs["sentence2"][:], strict=True))


def write_tsv(path: Path, pairs: list[Pair]) -> str:
    return write_rows(path, "tsv", as_rows(pairs))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_becomes_the_same_pool(tmp_path: Path, kind: str) -> None:
    pool = build_pool(DataConfig(pool=[write_rows(tmp_path / "source", kind, as_rows(PAIRS))]), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == PAIRS
    assert (pool.num_rows, pool.sources[0].rows, pool.sources[0].empty, pool.duplicates) == (3, 3, 0, 0)
    reference = build_pool(DataConfig(pool=[write_tsv(tmp_path / "reference", PAIRS)]), tmp_path / "other")
    assert pool.fingerprint == reference.fingerprint


def test_several_sources_of_several_formats_are_one_pool(tmp_path: Path) -> None:
    sources = [write_rows(tmp_path / kind, kind, as_rows([(f"of {kind}", "x"), ("shared", "y")])) for kind in FORMATS]
    pool = build_pool(DataConfig(pool=sources), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == [("of txt", "x"), ("shared", "y"), *((f"of {k}", "x") for k in FORMATS[1:])]
    assert [count.source for count in pool.sources] == sources
    assert [count.rows for count in pool.sources] == [2] * len(FORMATS)
    assert pool.duplicates == len(FORMATS) - 1


def test_mapped_columns_hold_for_every_source_and_labels_and_splits_are_ignored(tmp_path: Path) -> None:
    named = [
        write_rows(tmp_path / kind, kind, [{"split": kind, "score": "high", "query": f"of {kind}", "answer": "x"}])
        for kind in ("csv", "jsonl", "dataset")
    ]
    build_pool(DataConfig(pool=named, columns={"sentence1": "query", "sentence2": "answer"}), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == [("of csv", "x"), ("of jsonl", "x"), ("of dataset", "x")]


def test_a_duplicate_pair_is_kept_once_and_counted(tmp_path: Path) -> None:
    kept = [("a", "b"), ("b", "a"), ("a", "a"), ("ab", "c"), ("a", "bc"), ("A", "b")]
    source = write_tsv(tmp_path / "source", [*kept, ("a", "b"), (" a ", "b"), ("ab", "c")])
    pool = build_pool(DataConfig(pool=[source]), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == kept
    assert (pool.duplicates, pool.distinct, pool.num_rows) == (3, 6, 6)
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == ["pairs.arrow", "pool.json"]


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "parquet", "dataset"])
def test_a_row_with_an_empty_side_is_dropped_and_counted(tmp_path: Path, kind: str) -> None:
    rows = [
        {"sentence1": one, "sentence2": two}
        for one, two in [
            ("", "x"),
            ("a", "b"),
            ("x", "  "),
            ("\u00a0", "x"),
            (None, "x"),
            ("\ufeff\u200b", "x"),
            ("c", "d\u200d"),
        ]
    ]
    pool = build_pool(DataConfig(pool=[write_rows(tmp_path / "source", kind, rows)]), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == [("a", "b"), ("c", "d\u200d")]
    assert (pool.sources[0].rows, pool.sources[0].empty, pool.duplicates) == (7, 5, 0)


def test_counts_are_told_in_lines(tmp_path: Path) -> None:
    one = write_tsv(tmp_path / "one", [(str(number), "x") for number in range(1200)] + [("", "x")])
    two = write_tsv(tmp_path / "two", [("0", "x"), ("new", "x")])
    pool = build_pool(DataConfig(pool=[one, two], max_pairs=1000), tmp_path / "pool")
    assert pool.describe() == [
        f"pool: {one}: 1,201 rows, 1 empty ones dropped",
        f"pool: {two}: 2 rows",
        "pool: 1,000 pairs (1 duplicates dropped, 1,000 drawn of 1,201)",
    ]


@pytest.mark.parametrize(("alike", "said"), [(1, False), (2, True), (4, True)])
def test_many_pairs_of_one_text_are_named(tmp_path: Path, alike: int, said: bool) -> None:
    rows = [(str(number), str(number) if number < alike else "x") for number in range(5)]
    source = write_tsv(tmp_path / "source", [*rows, rows[0]])
    pool = build_pool(DataConfig(pool=[source]), tmp_path / "pool")
    assert pool.alike == alike
    last = f"pool: {alike} of them hold the same text twice; any bi-encoder gives these a cosine of 1, and nothing is "
    assert (pool.describe()[-1] == f"{last}learnt from them") == said
    assert PoolManifest.load(tmp_path / "pool")[0] == pool


def test_a_pool_of_several_blocks_is_what_plain_python_makes_of_it(tmp_path: Path) -> None:
    numbers = random.Random(0)
    rows = [(str(numbers.randrange(150)), numbers.choice(["", *map(str, range(150))])) for _ in range(35_000)]
    distinct = list(dict.fromkeys(row for row in rows if all(row)))
    pool = build_pool(DataConfig(pool=[write_tsv(tmp_path / "source", rows)]), tmp_path / "whole")
    assert pairs_of(tmp_path / "whole") == distinct
    assert pool.sources[0].empty == sum(not all(row) for row in rows)
    assert pool.duplicates == len(rows) - pool.sources[0].empty - len(distinct)
    assert len(distinct) > 10_000


def test_a_subsample_follows_the_seed_and_keeps_the_order(tmp_path: Path) -> None:
    everything = [(f"sentence {number}", "x") for number in range(12_000)]
    source = write_tsv(tmp_path / "source", everything * 2)
    drawn = {}
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        pool = build_pool(DataConfig(pool=[source], max_pairs=3000), tmp_path / name, seed=seed)
        drawn[name] = (pool.fingerprint, pairs_of(tmp_path / name))
        assert (pool.num_rows, pool.distinct, pool.duplicates) == (3000, 12_000, 12_000)
    assert drawn["first"] == drawn["again"]
    assert drawn["first"][0] != drawn["other"][0]
    chosen = drawn["first"][1]
    assert len(set(chosen)) == 3000
    places = {pair: place for place, pair in enumerate(everything)}
    assert chosen == sorted(chosen, key=places.__getitem__)
    first_half = sum(int(pair[0].split()[1]) < 6000 for pair in chosen)
    assert 1300 < first_half < 1700
    assert 600 < len(set(chosen) & set(drawn["other"][1])) < 900


def test_a_pool_within_the_limit_is_kept_whole(tmp_path: Path) -> None:
    source = write_tsv(tmp_path / "source", PAIRS)
    for limit in (3, 4):
        build_pool(DataConfig(pool=[source], max_pairs=limit), tmp_path / "pool")
        assert pairs_of(tmp_path / "pool") == PAIRS


def test_the_fingerprint_tells_pools_apart_and_no_path(tmp_path: Path) -> None:
    variants = [PAIRS, PAIRS[::-1], PAIRS[:2], [(two, one) for one, two in PAIRS]]
    prints = [
        build_pool(
            DataConfig(pool=[write_tsv(tmp_path / f"source{number}", pairs)]), tmp_path / f"pool{number}"
        ).fingerprint
        for number, pairs in enumerate([*variants, PAIRS])
    ]
    assert len(set(prints)) == len(variants)
    assert prints[-1] == prints[0]


def test_a_pool_is_read_back_as_it_was_built_from_mapped_memory(tmp_path: Path) -> None:
    built = build_pool(DataConfig(pool=[write_tsv(tmp_path / "source", PAIRS)]), tmp_path / "pool")
    loaded, pairs = PoolManifest.load(tmp_path / "pool")
    assert loaded == built
    assert [file["filename"] for file in pairs.cache_files] == [str(tmp_path / "pool" / "pairs.arrow")]


def test_benchmarks_are_pooled_by_name_with_all_their_splits(tmp_path: Path) -> None:
    for name in ("stsb", "qqp"):
        rows = [
            {"split": split, "score": "1", "sentence1": f"{name} {split}", "sentence2": "x"}
            for split in ("train", "dev", "sample", "test")
        ]
        write_rows(tmp_path / name, "tsv", rows)
    pool = build_pool(DataConfig(pool=["stsb", "qqp"], dir=str(tmp_path)), tmp_path / "pool")
    assert pool.num_rows == 8
    assert pairs_of(tmp_path / "pool")[5] == ("qqp dev", "x")


# How many rows of each split the paper's pool holds, and how many there are more.
PAPERS_ROWS = {
    "qnli": {"train": (10_000, 50), "dev": (5463, 0), "test": (0, 50)},
    "qqp": {"train": (10_000, 50), "dev": (1000, 50), "test": (10_000, 50)},
    "mrpc": {"train": (4076, 0), "test": (1725, 0)},
}


@pytest.mark.parametrize(("name", "size"), [("qnli", 15_463), ("qqp", 21_000), ("mrpc", 5801)])
@pytest.mark.parametrize("extra", [False, True])
def test_a_pool_holds_the_papers_rows(tmp_path: Path, name: str, size: int, extra: bool) -> None:
    rows = [
        {"split": split, "score": "1", "sentence1": f"{split} {number}", "sentence2": "x"}
        for split, (kept, more) in PAPERS_ROWS[name].items()
        for number in range(kept + more)
    ]
    write_rows(tmp_path / name, "tsv", rows)
    own = write_tsv(tmp_path / "source", PAIRS) if extra else name
    pool = build_pool(DataConfig(pool=[own], dir=str(tmp_path), extra=[name] * extra), tmp_path / "pool")
    assert (pool.extra if extra else pool.num_rows) == size
    expected = [(f"{split} {number}", "x") for split, (kept, _) in PAPERS_ROWS[name].items() for number in range(kept)]
    assert pairs_of(tmp_path / "pool")[-size:] == expected


def test_rows_of_a_pool_are_counted_by_split_wherever_they_stand(tmp_path: Path) -> None:
    rows = [
        {"split": split, "score": "1", "sentence1": f"{split} {number}", "sentence2": "x"}
        for number in range(1010)
        for split in ("dev", "train", "sample")
    ]
    write_rows(tmp_path / "qqp", "tsv", rows)
    build_pool(DataConfig(pool=["qqp"], dir=str(tmp_path)), tmp_path / "pool")
    found = pairs_of(tmp_path / "pool")
    assert {pair[0] for pair in found if pair[0].startswith("dev")} == {f"dev {number}" for number in range(1000)}
    assert sum(pair[0].startswith(("train", "sample")) for pair in found) == 2020


def test_a_pool_of_the_hubs_rows_holds_the_test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def rows(split: str, count: int, one: str, two: str) -> list[dict[str, Any]]:
        return [{one: f"{split} {number}", two: "x", "label": number % 2} for number in range(count)]

    sizes = {"train": 10_050, "validation": 11_050, "test": 20}
    questions = {split: rows(split, count, "question1", "question2") for split, count in sizes.items()}
    put_into_hub_cache(tmp_path, "nyu-mll/glue", "qqp", questions)
    pool = build_pool(DataConfig(pool=["qqp"]), tmp_path / "qqp")
    assert pool.num_rows == 21_000
    found = pairs_of(tmp_path / "qqp")
    assert [found[0], found[9_999], found[10_000], found[-1]] == [
        ("train 0", "x"),
        ("train 9999", "x"),
        ("validation 0", "x"),
        ("validation 10999", "x"),
    ]
    for role in ("dev", "test"):
        gold = load_gold("qqp", role, {})  # type: ignore[arg-type]
        assert set(zip(gold.sentence1, gold.sentence2, strict=True)) <= set(found)

    sizes = {"train": 10_050, "validation": 5463, "test": 20}
    answers = {split: rows(split, count, "question", "sentence") for split, count in sizes.items()}
    put_into_hub_cache(tmp_path, "nyu-mll/glue", "qnli", answers)
    assert build_pool(DataConfig(pool=["qnli"]), tmp_path / "qnli").num_rows == 15_463

    scored = {split: [{"sentence1": split, "sentence2": "x", "score": 1.0}] for split in ("train", "test")}
    put_into_hub_cache(tmp_path, "mteb/sts12-sts", None, scored)
    build_pool(DataConfig(pool=["sts12"]), tmp_path / "sts12")
    assert pairs_of(tmp_path / "sts12") == [("test", "x")]
    # only pools are cut to the paper's rows: a file that is scored keeps all of them
    assert [values[0] for _, values in read_rows("sts12", ["sentence1"], {})] == ["train", "test"]


@pytest.mark.skipif(not GOLD_FOLDER.is_dir(), reason="the measuring sets are not here")
def test_real_benchmarks_are_pooled_whole(tmp_path: Path) -> None:
    names = {"stsb": 8628, "sts12": 3108, "sts14": 3750}
    pool = build_pool(DataConfig(pool=names, dir=str(GOLD_FOLDER)), tmp_path / "pool")
    assert {count.source: count.rows for count in pool.sources} == names
    assert [count.empty for count in pool.sources] == [0, 0, 0]
    raw = [
        tuple(cell.strip() for cell in line.split("\t")[2:])
        for name in names
        for line in (GOLD_FOLDER / f"{name}.tsv").read_text(encoding="utf-8").split("\n")[1:-1]
    ]
    assert pairs_of(tmp_path / "pool") == list(dict.fromkeys(raw))


def test_the_sample_pool_is_whole(tmp_path: Path) -> None:
    pool = build_pool(DataConfig(pool=[str(SAMPLE / "pool.tsv")]), tmp_path / "pool")
    assert pool.num_rows >= 600
    assert (pool.duplicates, pool.sources[0].empty) == (0, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence1\tsentence2\n\n\t\n", "data.pool: no pair of sentences in .*a.tsv"),
        ("a.jsonl", "", "data.pool: no pair of sentences in .*a.jsonl"),
        ("a.jsonl", '{"sentence1": 5, "sentence2": "x"}\n', r"a.jsonl, line 1: sentence1 is a number \(5\); make"),
        ("a.jsonl", '{"sentence1": "x", "sentence2": ["y"]}\n', r"line 1: sentence2 is a list \(\['y'\]\); make the"),
        # Half of a surrogate pair, as a text cut in the middle of an emoji leaves it.
        ("a.jsonl", '{"sentence1": "cut \\ud83d", "sentence2": "x"}\n', "a.jsonl, line 1"),
    ],
)
def test_what_makes_no_pool_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        build_pool(DataConfig(pool=[str(tmp_path / name)]), tmp_path / "pool")


MEMORY = """
import json, sys, threading, time
from pathlib import Path
import psutil
from te_trainer.config.schema import DataConfig
from te_trainer.data import PoolManifest, build_pool, load_gold
from te_trainer.data.readers import read_rows

folder = Path(sys.argv[1])
build_pool(DataConfig(pool=[str(folder / "small.tsv")]), folder / "small")
PoolManifest.load(folder / "small")[1][0]
process = psutil.Process()

def private():
    # USS less the pages of mapped files, which the system takes back when it wants them
    return sum(part.anonymous for part in process.memory_maps())

before = private()
peak, done = before, threading.Event()

def watch():
    global peak
    while not done.wait(0.03):
        peak = max(peak, private())

watcher = threading.Thread(target=watch)
watcher.start()
pool = build_pool(DataConfig(pool=[str(folder / "large.tsv")]), folder / "large")
pairs = PoolManifest.load(folder / "large")[1]
last = pairs[len(pairs) - 1]
peak = max(peak, private())
done.set()
watcher.join()
lists = pairs.to_dict()
grown = private() - before
print(json.dumps({"pairs": pool.num_rows, "duplicates": pool.duplicates, "last": last, "peak": peak - before,
                  "lists": grown, "file": (folder / "large" / "pairs.arrow").stat().st_size}))
"""


@pytest.mark.slow
def test_a_large_pool_stays_on_disk(tmp_path: Path) -> None:
    write_tsv(tmp_path / "small", PAIRS)
    padding = "a word or two more to make it longer " * 5
    pairs = [(f"{number} first {padding}", f"{number} second {padding}") for number in range(200_000)]
    write_tsv(tmp_path / "large", [*pairs, *pairs[::1000]])
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env=process_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    assert (seen["pairs"], seen["duplicates"]) == (200_000, 200)
    assert seen["last"] == {"sentence1": pairs[-1][0].strip(), "sentence2": pairs[-1][1].strip()}
    assert seen["file"] > 75e6
    assert seen["peak"] < 45e6
    # The same pairs as Python lists: the measure does see what a process holds.
    assert seen["lists"] > 90e6


# ---------------------------------------------------------------- extra pairs


def test_extra_pairs_are_new_ones_drawn_by_the_seed_and_stand_last(tmp_path: Path) -> None:
    own = [(f"own {number}", "x") for number in range(40)]
    new = [(f"new {number}", "y") for number in range(60)]
    source = write_tsv(tmp_path / "own", own)
    extra = [write_tsv(tmp_path / "one", [*own[:30], *new[:50]]), write_tsv(tmp_path / "two", [*new[20:], ("", "y")])]
    drawn = {}
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        pool = build_pool(
            DataConfig(pool=[source], max_pairs=10, extra=extra, extra_pairs=25), tmp_path / name, seed=seed
        )
        drawn[name] = pairs_of(tmp_path / name)
        assert (pool.num_rows, pool.distinct, pool.extra_distinct, pool.extra) == (35, 40, 60, 25)
        assert pool.duplicates == 30 + 30
        assert PoolManifest.load(tmp_path / name)[0] == pool
    # the pairs that a subsample of the pool leaves out are not "extra" ones
    assert set(drawn["first"][:10]) <= set(own) and set(drawn["first"][10:]) <= set(new)
    assert len(set(drawn["first"])) == 35
    assert drawn["first"] == drawn["again"] and drawn["first"][10:] != drawn["other"][10:]
    assert drawn["first"][10:] == sorted(drawn["first"][10:], key=new.index)
    build_pool(DataConfig(pool=[source], max_pairs=10), tmp_path / "without", seed=5)
    assert pairs_of(tmp_path / "without") == drawn["first"][:10]
    assert pool.describe() == [
        f"pool: {source}: 40 rows",
        f"pool: extra {extra[0]}: 80 rows",
        f"pool: extra {extra[1]}: 41 rows, 1 empty ones dropped",
        "pool: 35 pairs (60 duplicates dropped, 10 drawn of 40, 25 of 60 extra ones added)",
    ]


@pytest.mark.parametrize("extra_pairs", [None, 3])
def test_no_more_extra_pairs_than_there_are(tmp_path: Path, extra_pairs: int | None) -> None:
    extra = [("e", "f"), ("g", "h")]
    own, more = write_tsv(tmp_path / "own", PAIRS), write_tsv(tmp_path / "extra", extra)
    pool = build_pool(DataConfig(pool=[own], extra=[more], extra_pairs=extra_pairs), tmp_path / "pool")
    assert pairs_of(tmp_path / "pool") == PAIRS + extra
    assert pool.describe()[-1] == "pool: 5 pairs (0 duplicates dropped, 2 of 2 extra ones added)"


def test_extra_sources_without_a_new_pair_are_refused(tmp_path: Path) -> None:
    own, extra = write_tsv(tmp_path / "own", PAIRS), write_tsv(tmp_path / "extra", PAIRS[:2])
    with pytest.raises(InputError, match=r"^data\.extra: no pair of sentences that data\.pool does not hold in "):
        build_pool(DataConfig(pool=[own], extra=[extra]), tmp_path / "pool")
