"""Token ids equal those that the tokenizers give themselves, in memory that does not grow with the texts' product."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from conftest import MINILM, build_tokenizer, sample_pairs
from forked import run_forked
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, CanineTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from te_trainer.models import tokenization
from te_trainer.models.model_names import locate
from te_trainer.models.tokenization import TokenCounts, tokenise

STRANGE = [
    "",
    " ",
    "ﬁne ﷺ",
    "é" * 9,
    "電源ケーブル",
    "🔌🔌",
    "[SEP] <s>",
    "a\tb",
    "Donaudampfschifffahrtsgesellschaft",
    "½",
]


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE between RoBERTa's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>"]
    tokenizer.train_from_iterator(
        [one for one, _ in sample_pairs(200)], trainers.BpeTrainer(vocab_size=600, special_tokens=special)
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", model_input_names=["input_ids", "attention_mask"]
    )


def unigram() -> PreTrainedTokenizerFast:
    """Pieces over spaces after a normaliser that changes lengths, and no special tokens around a text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.train_from_iterator(
        [one for one, _ in sample_pairs(200)],
        trainers.UnigramTrainer(vocab_size=300, special_tokens=["<pad>", "<unk>"], unk_token="<unk>"),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def from_the_left() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    tokenizer.truncation_side = "left"
    return tokenizer


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "words": build_tokenizer,
    "word pieces": lambda: AutoTokenizer.from_pretrained(locate(MINILM)),
    "word pieces, cut from the left": from_the_left,
    "byte-level BPE": byte_level,
    "unigram": unigram,
    "in Python": CanineTokenizer,
}
FAST = [name for name in TOKENIZERS if name != "in Python"]
MADE = {name: cache(make) for name, make in TOKENIZERS.items()}


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """One of them as it was made: a tokenizer keeps the truncation that it was last called with."""
    tokenizer = MADE[name]()
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def texts(count: int, seed: int) -> list[str]:
    """Texts of none to thirty pieces, strange ones among them."""
    numbers = random.Random(seed)
    pieces = [*STRANGE, *(one for one, _ in sample_pairs(60)), *(word for one, _ in sample_pairs(60) for word in one)]
    return [numbers.choice(["", " "]).join(numbers.choices(pieces, k=numbers.choice(range(30)))) for _ in range(count)]


def direct(tokenizer: PreTrainedTokenizerBase, max_length: int, *sides: Sequence[str]) -> dict[str, list[list[int]]]:
    found = dict(tokenizer(*sides, truncation="longest_first", max_length=max_length))
    assert all(all(row) for row in found.pop("attention_mask"))
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [16, 31, 64])
def test_ids_equal_those_of_the_tokenizer(name: str, max_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "CHARACTERS", 3000)
    tokenizer = tokenizer_of(name)
    one, two = texts(100, seed=1), texts(100, seed=2)
    pairs = direct(tokenizer, max_length, one, two)
    assert max(map(len, pairs["input_ids"])) == max_length
    assert tokenise(tokenizer, max_length, one, two).rows() == pairs
    sentences = direct(tokenizer, max_length, one)
    assert tokenise(tokenizer, max_length, one).rows() == sentences


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pairs_about_the_limit_are_cut_where_the_tokenizer_cuts_them(name: str) -> None:
    """Every pair of lengths around the limit and its half: an odd token goes to the longer text."""
    tokenizer = tokenizer_of(name)
    lengths = [(one, two) for one in range(16) for two in range(16)]
    one, two = (["a " * pair[side] for pair in lengths] for side in (0, 1))
    for max_length in (12, 13):
        assert tokenise(tokenizer, max_length, one, two).rows() == direct(tokenizer, max_length, one, two)


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("sides", [1, 2])
def test_a_length_without_room_for_texts_leaves_what_stands_around_them(name: str, sides: int) -> None:
    tokenizer = tokenizer_of(name)
    special = tokenizer.num_special_tokens_to_add(pair=sides == 2)
    nothing = direct(tokenizer, 64, *[["", "", ""]] * sides)
    for max_length in range(special + 1):
        assert tokenise(tokenizer, max_length, *[["a b c d", "a", ""]] * sides).rows() == nothing
    one_more = tokenise(tokenizer, special + 1, *[["a b c d", "a", ""]] * sides)
    assert one_more.lengths.tolist() == [special + 1, special + 1, special]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("sides", [1, 2])
def test_no_texts_are_no_rows(name: str, sides: int) -> None:
    tokenizer = tokenizer_of(name)
    found = tokenise(tokenizer, 16, *[[]] * sides)
    assert len(found) == 0
    assert not any(found.rows().values())
    assert len(TokenCounts.of(tokenizer, *[[]] * sides).lengths) == 0


MEMORY = """
import json, sys
from conftest import build_tokenizer
from te_trainer.models import tokenization

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

tokenizer = build_tokenizer()
grown = {}
for name, rows, words, sides in json.loads(sys.argv[1]):
    texts = ["router " * words] * rows
    before = peak()
    tokenization.tokenise(tokenizer, 64, *[texts] * sides)
    grown[name] = peak() - before
texts = ["router " * 1600]
before = peak()
tokenizer(texts, texts, truncation="longest_first", max_length=64)
print(json.dumps({**grown, "direct": peak() - before}))
"""


def test_memory_follows_the_longest_text(tmp_path: Path) -> None:
    cases = [
        ["short", 1, 20, 2],
        ["long pair", 1, 2_000, 2],
        ["long sentence", 1, 20_000, 1],
        ["many long pairs", 2_000, 300, 2],
        ["many long sentences", 4_000, 300, 1],
    ]
    (tmp_path / "memory.py").write_text(MEMORY, encoding="utf-8")
    run = run_forked(tmp_path / "memory.py", [json.dumps(cases)])
    assert run.returncode == 0, run.stderr
    grown = {name: bytes_ / 1e6 for name, bytes_ in json.loads(run.stdout).items()}
    assert grown["long pair"] < 10
    assert grown["long sentence"] < 30
    # 1.2 million words each; kept all at once, they would be 500 MB
    assert grown["many long pairs"] < 60
    assert grown["many long sentences"] < 50
    # The tokenizer's own way with one pair of 1,600 words a side: the measure does see what it takes.
    assert grown["direct"] > 10, grown
