"""Labelling: whose scores they are, what they cost, and that nothing changes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from conftest import GOLD_FOLDER, MINILM, SAMPLE, sample_pairs
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from telling import columns, new_cross_encoder, pairs_with_repeats
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from te_trainer import labelling
from te_trainer.config.schema import DataConfig
from te_trainer.data import PoolManifest, build_pool, load_gold
from te_trainer.errors import DivergedError
from te_trainer.labelling import distinct_sentences, score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, Encoder
from te_trainer.models.bi_encoder import Pooling as PoolingName
from te_trainer.models.model_names import locate
from te_trainer.models.packed import packable
from te_trainer.models.packed.batches import BATCH_MULTIPLE, ROW_MULTIPLE, packed_batches, padded_batches, row_length

needs_gold = pytest.mark.skipif(not GOLD_FOLDER.is_dir(), reason="the measuring sets are not here")


@pytest.fixture(scope="module")
def bi_encoder(start: str) -> BiEncoder:
    return BiEncoder.from_pretrained(start)


@pytest.fixture(scope="module")
def cross_encoder(start: str) -> CrossEncoder:
    return new_cross_encoder(start)


@pytest.fixture(params=["bi-encoder", "cross-encoder"])
def encoder(request: pytest.FixtureRequest, bi_encoder: BiEncoder, cross_encoder: CrossEncoder) -> Encoder:
    return bi_encoder if request.param == "bi-encoder" else cross_encoder


class Watch:
    """What goes through a model: shapes and real tokens of batches, and each row's tokens if they are asked for."""

    def __init__(self, model: nn.Module, keep_rows: bool = False) -> None:
        self.rows: Counter[tuple[int, ...]] = Counter()
        self.batches: list[tuple[int, int]] = []
        self.sizes: list[int] = []
        self._keep_rows = keep_rows
        self._handle = model.register_forward_pre_hook(self._see, with_kwargs=True, prepend=True)

    def _see(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        assert not args
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        self.batches.append(tuple(ids.shape))
        self.sizes.append(int(mask.sum()))
        if self._keep_rows:
            self.rows.update(tuple(row[kept.bool()].tolist()) for row, kept in zip(ids, mask, strict=True))

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *args: object) -> None:
        self._handle.remove()


# ---------------------------------------------------------------- whose scores they are


@pytest.mark.parametrize(
    ("model", "count", "pooling"), [("tiny", 150, "cls"), ("tiny", 150, "mean"), (MINILM, 40, "mean")]
)
def test_bi_encoder_labels_equal_those_of_sentence_transformers(
    start: str, model: str, count: int, pooling: PoolingName
) -> None:
    name = start if model == "tiny" else model
    pairs = columns(pairs_with_repeats(count))
    transformer = Transformer(locate(name), max_seq_length=32)
    theirs = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_word_embedding_dimension(), pooling)], device="cpu"
    )
    one, two = (theirs.encode(pairs[side], convert_to_tensor=True) for side in ("sentence1", "sentence2"))
    expected = sentence_transformers.util.pairwise_cos_sim(one, two).numpy()
    ours = score_pairs(BiEncoder.from_pretrained(name, pooling=pooling), pairs)
    assert (ours.dtype, ours.shape) == (np.float32, (len(pairs["sentence1"]),))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.05


def test_cross_encoder_labels_equal_those_of_sentence_transformers(tmp_path: Path, start: str) -> None:
    pairs = columns(pairs_with_repeats(150))
    encoder = new_cross_encoder(start)
    encoder.save_pretrained(tmp_path)
    theirs = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    expected = theirs.predict(list(zip(pairs["sentence1"], pairs["sentence2"], strict=True)))
    ours = score_pairs(encoder, pairs)
    assert (ours.dtype, ours.shape) == (np.float32, (len(pairs["sentence1"]),))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.005


def test_long_sentences_are_cut_where_sentence_transformers_cuts_them(
    tmp_path: Path, start: str, cross_encoder: CrossEncoder
) -> None:
    words = [word for pair in sample_pairs(90) for word in pair[0].lower().split() if word.isalpha()]
    texts = [" ".join(words[offset : offset + length]) for offset in (0, 7) for length in (5, 29, 30, 31, 80, 120)]
    pairs = [(one, two) for one in texts for two in texts]
    transformer = Transformer(start, max_seq_length=32)
    theirs = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    embedded = dict(zip(texts, theirs.encode(texts, convert_to_tensor=True), strict=True))
    expected = [torch.cosine_similarity(embedded[one], embedded[two], dim=0).item() for one, two in pairs]
    ours = score_pairs(BiEncoder.from_pretrained(start, pooling="mean"), columns(pairs))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)

    cross_encoder.save_pretrained(tmp_path)
    predicted = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu").predict(pairs)
    np.testing.assert_allclose(score_pairs(cross_encoder, columns(pairs)), predicted, rtol=0, atol=1e-5)


def test_dropout_is_off_while_labelling(encoder: Encoder) -> None:
    encoder.model.train()
    pairs = columns(sample_pairs(20))
    assert np.array_equal(score_pairs(encoder, pairs), score_pairs(encoder, pairs))
    assert encoder.model.training


# ---------------------------------------------------------------- nothing changes them


def test_scores_stand_in_the_order_of_the_pairs(encoder: Encoder) -> None:
    pairs = pairs_with_repeats(100)
    order = np.random.default_rng(0).permutation(len(pairs))
    expected = score_pairs(encoder, columns(pairs))
    shuffled = score_pairs(encoder, columns([pairs[place] for place in order]))
    np.testing.assert_allclose(shuffled, expected[order], rtol=0, atol=1e-5)
    alone = [score_pairs(encoder, columns([pairs[place]]))[0] for place in (0, 57, len(pairs) - 1)]
    np.testing.assert_allclose(alone, expected[[0, 57, -1]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [7, 32])
def test_windows_and_batch_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch, encoder: Encoder, window: int) -> None:
    pairs = columns(pairs_with_repeats(40))
    expected = score_pairs(encoder, pairs)
    monkeypatch.setattr(labelling, "WINDOW", window)
    for budget in (1, 300):
        np.testing.assert_allclose(score_pairs(encoder, pairs, batch_tokens=budget), expected, rtol=0, atol=1e-5)


def test_a_pool_on_disk_gives_the_scores_of_lists(tmp_path: Path, encoder: Encoder) -> None:
    build_pool(DataConfig(pool=[str(SAMPLE / "pool.tsv")], max_pairs=150), tmp_path)
    _, pairs = PoolManifest.load(tmp_path)
    assert isinstance(pairs, Dataset)
    lists = {name: pairs[name][:] for name in ("sentence1", "sentence2")}
    expected = score_pairs(encoder, lists)
    assert np.array_equal(score_pairs(encoder, pairs), expected)
    assert np.array_equal(score_pairs(encoder, pairs.add_column("label", [0.0] * 150)), expected)
    chosen = list(range(149, 0, -2))
    np.testing.assert_allclose(score_pairs(encoder, pairs.select(chosen)), expected[chosen], rtol=0, atol=1e-5)


def test_a_scratch_folder_gives_the_scores_of_memory(tmp_path: Path, encoder: Encoder) -> None:
    pairs = columns(pairs_with_repeats(100))
    on_disk = score_pairs(encoder, pairs, scratch=tmp_path)
    assert np.array_equal(on_disk, score_pairs(encoder, pairs))
    assert not isinstance(on_disk, np.memmap)
    assert (tmp_path / "scores.f32").stat().st_size == 4 * len(on_disk)
    if isinstance(encoder, BiEncoder):
        distinct = len({text for side in pairs.values() for text in side})
        assert (tmp_path / "vectors.f32").stat().st_size == 4 * 32 * distinct


def test_half_precision_labels_are_float32_and_hardly_tie(encoder: Encoder) -> None:
    pairs = columns(sample_pairs(300))
    plain = score_pairs(encoder, pairs)
    half = score_pairs(encoder, pairs, precision="bfloat16")
    assert half.dtype == np.float32
    assert not np.array_equal(half, plain)
    assert np.corrcoef(half, plain)[0, 1] > 0.99
    assert len(np.unique(half)) > 0.98 * len(half)


def test_progress_rises_to_one(encoder: Encoder) -> None:
    seen: list[float] = []
    score_pairs(encoder, columns(sample_pairs(60)), batch_tokens=300, progress=seen.append)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert 0 < seen[0] < 1
    assert seen[-1] == 1


# ---------------------------------------------------------------- what they cost


@pytest.mark.parametrize("window", [13, labelling.WINDOW])
def test_each_distinct_sentence_goes_through_the_model_once(
    monkeypatch: pytest.MonkeyPatch, bi_encoder: BiEncoder, window: int
) -> None:
    monkeypatch.setattr(labelling, "WINDOW", window)
    # Without punctuation the tiny tokenizer knows every word, so that different sentences have different tokens.
    words = sorted({word for pair in sample_pairs(60) for word in pair[0].lower().split() if word.isalpha()})
    texts = [" ".join(words[at : at + 1 + at % 9]) for at in range(0, 100)]
    pairs = [(texts[at], texts[at * 7 % 100]) for at in range(100)] + [(texts[3], texts[3]), (texts[99], texts[0])]
    with Watch(bi_encoder.model, keep_rows=True) as watch:
        score_pairs(bi_encoder, columns(pairs))
    expected = Counter(tuple(ids) for ids in bi_encoder.tokenizer(texts)["input_ids"])
    assert set(expected.values()) == {1}
    assert watch.rows == expected


def test_a_cross_encoder_sees_each_pair_once(cross_encoder: CrossEncoder) -> None:
    pairs = columns(sample_pairs(100))
    with Watch(cross_encoder.model, keep_rows=True) as watch:
        score_pairs(cross_encoder, pairs)
    encoded = cross_encoder.tokenizer(pairs["sentence1"], pairs["sentence2"], truncation=True, max_length=64)
    assert watch.rows == Counter(map(tuple, encoded["input_ids"]))


@pytest.fixture(scope="module")
def real_tokens() -> Callable[[str], Encoder]:
    """Encoders with the packaged encoder's tokenizer, and a model that costs next to nothing."""
    tokenizer = AutoTokenizer.from_pretrained(locate(MINILM))
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )

    def encoder(kind: str) -> Encoder:
        if kind == "bi-encoder":
            return BiEncoder(BertModel(config, add_pooling_layer=False), tokenizer)
        config.num_labels = 1
        return CrossEncoder(BertForSequenceClassification(config), tokenizer)

    return encoder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["bi-encoder", "cross-encoder"])
@pytest.mark.parametrize(
    ("source", "budget"),
    [
        ("sample", 4096),
        pytest.param("stsb", 4096, marks=needs_gold),
        pytest.param("stsb dev", 32768, marks=needs_gold),
    ],
)
def test_95_of_100_tokens_of_a_batch_are_real(
    tmp_path: Path,
    real_tokens: Callable[[str], Encoder],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    source: str,
    budget: int,
    packed: bool,
) -> None:
    """With the budgets that a CPU and a GPU have by default."""
    encoder = real_tokens(kind)
    if not packed:
        monkeypatch.setattr(packable, "POSITION_IDS_BY_MODEL_TYPE", {})
    pairs: Any
    if source == "stsb dev":
        gold = load_gold("stsb", "dev", {}, str(GOLD_FOLDER))
        pairs = {"sentence1": gold.sentence1, "sentence2": gold.sentence2}
    else:
        name = str(SAMPLE / "pool.tsv") if source == "sample" else source
        build_pool(DataConfig(pool=[name], dir=str(GOLD_FOLDER)), tmp_path)
        _, pairs = PoolManifest.load(tmp_path)
    with Watch(encoder.model) as watch:
        score_pairs(encoder, pairs, batch_tokens=budget)
    sizes = watch.sizes
    positions = map(row_length, sizes) if packed else (rows * columns for rows, columns in watch.batches)
    assert sum(sizes) >= 0.95 * sum(positions)
    # Not bought with many small batches.
    assert len(watch.batches) <= sum(sizes) / budget + encoder.max_length / 2


def test_batches_on_a_cpu_are_filled_up_to_4096_tokens(bi_encoder: BiEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    words = sorted({word for pair in sample_pairs(60) for word in pair[0].lower().split() if word.isalpha()})[:50]
    texts = [f"{one} {two}" for one in words for two in words]
    # texts of 4 tokens; a packed batch holds a multiple of 16, as far as there are so many left
    for packs, sizes in ((packable.POSITION_IDS_BY_MODEL_TYPE, [4032, 4032, 1920, 16]), ({}, [4096, 4096, 1808])):
        monkeypatch.setattr(packable, "POSITION_IDS_BY_MODEL_TYPE", packs)
        with Watch(bi_encoder.model) as watch:
            score_pairs(bi_encoder, {"sentence1": texts, "sentence2": texts})
        assert watch.sizes == sizes


def test_the_token_budget_is_kept(encoder: Encoder) -> None:
    with Watch(encoder.model) as watch:
        score_pairs(encoder, columns(sample_pairs(80)), batch_tokens=200)
    assert max(watch.sizes) <= 200


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 16, 100, 4096])
def test_packed_batches_are_nearly_full_and_of_few_sizes(seed: int, budget: int) -> None:
    lengths = np.random.default_rng(seed).integers(2, 65, 333)
    batches = list(packed_batches(lengths, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(333))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()
    ordered, stop = np.sort(lengths)[::-1], 0
    for batch in batches:
        assert len(batch) == 1 or row_length(lengths[batch].sum()) <= max(budget, ROW_MULTIPLE)
        assert len(batch) < BATCH_MULTIPLE or len(batch) % BATCH_MULTIPLE == 0
        stop += len(batch)
        step = BATCH_MULTIPLE if len(batch) >= BATCH_MULTIPLE else 1
        more = ordered[stop : stop + step]
        assert len(more) < step or row_length(lengths[batch].sum() + more.sum()) > budget - ROW_MULTIPLE


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [1, 16, 100, 4096])
def test_token_batches_hold_every_item_once_within_the_budget(seed: int, budget: int) -> None:
    lengths = np.random.default_rng(seed).integers(2, 65, 333)
    batches = list(padded_batches(lengths, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(333))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget
    assert len(batches) <= 2 * lengths.sum() / budget + 64


def test_token_batches_of_nothing_are_none() -> None:
    assert list(padded_batches(np.array([], dtype=np.int64), 100)) == []
    assert list(packed_batches(np.array([], dtype=np.int64), 100)) == []


def test_distinct_sentences_are_numbered_as_they_first_occur() -> None:
    ids, first = distinct_sentences(Dataset.from_dict(columns([("b", "a"), ("a", "c"), ("b", "b"), ("c", "d")])))
    assert ids.tolist() == [[0, 1], [1, 2], [0, 0], [2, 3]]
    assert first.tolist() == [0, 1, 3, 7]


def test_scores_are_fetched_once_a_window(monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> None:
    fetched: list[int] = []
    plain = torch.Tensor.cpu

    def fetch(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():  # packing asks for masks so, which it has
            fetched.append(len(tensor))
        return plain(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", fetch)
    monkeypatch.setattr(labelling, "WINDOW", 32)
    pairs = columns(sample_pairs(80))
    count = len({text for side in pairs.values() for text in side}) if isinstance(encoder, BiEncoder) else 80
    with Watch(encoder.model) as watch:
        score_pairs(encoder, pairs, batch_tokens=200)
    assert fetched == [32] * (count // 32) + [count % 32] * (count % 32 > 0)
    assert len(watch.batches) > len(fetched)


# ---------------------------------------------------------------- weights that diverged


def test_a_pair_whose_score_is_nan_is_named(tmp_path: Path, start: str) -> None:
    pairs = columns([*sample_pairs(20), ("is the kettle on", "zebra stripes"), *sample_pairs(5)])
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokenizer.add_tokens(["zebra"])
    for encoder in (BiEncoder.from_pretrained(start), new_cross_encoder(start)):
        encoder.tokenizer = tokenizer
        encoder.model.resize_token_embeddings(len(tokenizer))
        assert np.isfinite(score_pairs(encoder, pairs)).all()
        with torch.no_grad():
            encoder.model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("zebra")] = torch.nan
        for scratch in (None, tmp_path):
            with pytest.raises(DivergedError, match=rf"the {encoder.kind}'s score of pair 21 is nan"):
                score_pairs(encoder, pairs, scratch=scratch)


def test_nan_weights_stop_labelling_at_the_first_pair(start: str) -> None:
    for encoder in (BiEncoder.from_pretrained(start), new_cross_encoder(start)):
        with torch.no_grad():
            next(encoder.model.parameters()).fill_(torch.nan)
        with pytest.raises(DivergedError, match="score of pair 1 is nan"):
            score_pairs(encoder, columns(sample_pairs(5)))
