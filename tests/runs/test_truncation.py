"""How many texts an encoder cuts: counted with its own tokenizer, and logged with the key that helps."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import MINILM, build_tokenizer, sample_pairs
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from te_trainer.config.types import Kind
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.checkpoint import resolve_checkpoint
from te_trainer.models.model_names import locate
from te_trainer.models.tokenization import TokenCounts, tokenise
from te_trainer.runs import truncation
from te_trainer.runs.truncation import count_truncation, describe_truncation

PAIRS = [
    ("one two three", "one two"),
    ("one two three four", "one"),
    ("one two three", "one two three four"),
    ("one", "two"),
]


def dataset(pairs: list[tuple[str, str]]) -> Dataset:
    return Dataset.from_dict({"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs]})


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """A token a word; [CLS] and [SEP] around a sentence, another [SEP] behind a second one."""
    return build_tokenizer()


@pytest.mark.parametrize(
    ("max_length", "prompt", "cut"),
    [(6, "", 0), (5, "", 1), (4, "", 2), (6, "a b ", 2), (7, "a b ", 1), (8, "a b ", 0)],
)
def test_distinct_sentences_are_counted_once_with_their_prompt(
    words: PreTrainedTokenizerBase, max_length: int, prompt: str, cut: int
) -> None:
    counts = count_truncation(dataset(PAIRS), "bi-encoder", words, max_length, prompt)
    unknown = counts.pop("unknown")
    assert counts == {"max_length": max_length, "texts": 5, "cut": cut, "sampled": False, "share": cut / 5}
    assert 0 <= unknown <= 1


@pytest.mark.parametrize(("max_length", "cut"), [(10, 0), (9, 1), (8, 1), (7, 3), (5, 3), (4, 4)])
def test_pairs_are_counted_whole(words: PreTrainedTokenizerBase, max_length: int, cut: int) -> None:
    counts = count_truncation(dataset(PAIRS), "cross-encoder", words, max_length)
    assert (counts["texts"], counts["cut"]) == (4, cut)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("sides", [1, 2])
def test_counts_are_what_the_tokenizer_gives_without_a_length(slow: bool, sides: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    if slow:
        from transformers import BertTokenizerLegacy

        tokenizer = BertTokenizerLegacy(str(Path(locate(MINILM), "vocab.txt")))
    texts = [list(side) for side in zip(*sample_pairs(40), strict=True)][:sides]
    texts[0][0] *= 50
    expected = [len(ids) for ids in tokenizer(*texts, verbose=False)["input_ids"]]
    assert TokenCounts.of(tokenizer, *texts).lengths.tolist() == expected
    tokenise(tokenizer, 8, *texts)  # leaves the tokenizer as it was
    assert TokenCounts.of(tokenizer, *texts).lengths.tolist() == expected


def test_a_block_of_known_sentences_is_no_trouble_for_a_tokenizer_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertTokenizerLegacy

    monkeypatch.setattr(truncation, "BLOCK", 2)
    tokenizer = BertTokenizerLegacy(str(Path(locate(MINILM), "vocab.txt")))
    counts = count_truncation(dataset([*PAIRS[:2], *PAIRS[:2]]), "bi-encoder", tokenizer, 5)
    assert (counts["texts"], counts["cut"]) == (4, 1)


def count(encoder: Encoder, pairs: Dataset) -> int:
    prompt = getattr(encoder, "prompt", "")
    return count_truncation(pairs, encoder.kind, encoder.tokenizer, encoder.max_length, prompt)["cut"]


def test_an_encoder_cuts_what_is_counted(models: dict[str, str]) -> None:
    pairs = dataset(sample_pairs(60))
    bi = BiEncoder.from_pretrained(models["bert"], max_length=9, prompt="router ")
    cross = CrossEncoder.from_pretrained(models["roberta"], max_length=24)
    texts = {text for name in ("sentence1", "sentence2") for text in pairs[name]}
    lengths = {text: len(bi.tokenizer("router " + text)["input_ids"]) for text in texts}
    assert 0 < count(bi, pairs) == sum(length > 9 for length in lengths.values()) < len(texts)
    rows = cross.tokenizer(pairs["sentence1"][:], pairs["sentence2"][:])["input_ids"]
    assert 0 < count(cross, pairs) == sum(len(row) > 24 for row in rows) < 60


def test_large_pools_are_sampled(words: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "SAMPLE", 500)
    monkeypatch.setattr(truncation, "BLOCK", 64)
    rows = [(f"one {'two ' * (4 * (number % 4 == 0))}", f"three {number}") for number in range(2000)]
    counts = count_truncation(dataset(rows), "cross-encoder", words, 8, seed=3)
    assert (counts["texts"], counts["sampled"]) == (500, True)
    assert counts["cut"] / 500 == pytest.approx(0.25, abs=0.08)
    assert counts == count_truncation(dataset(rows), "cross-encoder", words, 8, seed=3)
    line = describe_truncation("bert: cross-encoder", "cross-encoder", counts, "cross_encoder.max_length")[-1]
    assert line == (
        f"bert: cross-encoder: about {counts['cut'] / 5:.1f} % of the pairs ({counts['cut']} of 500 drawn) have more "
        "than 8 tokens and are cut; a larger cross_encoder.max_length reads more, as far as the model can"
    )


@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
def test_texts_of_a_language_that_the_model_does_not_know_are_named(kind: Kind) -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    foreign = [("怎样重置密码", "怎样删除账户"), ("请问快递什么时候到", "请问退款什么时候到")]
    counts = count_truncation(dataset(foreign), kind, tokenizer, 64)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for pair in foreign for text in pair]
    every = [token for row in ids for token in row]
    assert counts["unknown"] == pytest.approx(every.count(tokenizer.unk_token_id) / len(every))
    (line,) = describe_truncation("minilm", kind, counts, "max_length")
    assert line.startswith(f"minilm: {100 * counts['unknown']:.0f} % of the tokens are unknown to the model")
    known = count_truncation(dataset([*sample_pairs(20), ("it works 🙂", "thanks 🙂")]), kind, tokenizer, 64)
    assert 0 < known["unknown"] < 0.05
    assert describe_truncation("minilm", kind, known, "max_length") == []


def test_a_token_with_another_role_is_not_the_unknown_one() -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    tokenizer.unk_token = tokenizer.sep_token
    assert TokenCounts.of(tokenizer, ["one [SEP] two", "three"]).unknown == 0


def test_a_very_long_text_is_cut_and_costs_no_more(words: PreTrainedTokenizerBase) -> None:
    counts = count_truncation(dataset([("word " * 500_000, "one")]), "bi-encoder", words, 32)
    assert (counts["texts"], counts["cut"]) == (2, 1)


def test_a_tokenizer_of_a_checkpoint_counts_its_own_tokens(tiny: Path, letters: Path) -> None:
    pairs = dataset([("my router", "no sound")])
    assert count_truncation(pairs, "bi-encoder", resolve_checkpoint(str(tiny)).tokenizer, 5)["cut"] == 0
    assert count_truncation(pairs, "bi-encoder", resolve_checkpoint(str(letters)).tokenizer, 5)["cut"] == 2
