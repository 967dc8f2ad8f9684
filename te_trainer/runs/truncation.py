"""What an encoder cannot read of its texts, counted before anything is done with them.

Nothing after the last token that is read changes a score: long texts that begin alike get the same one. So do texts
of as many words that the vocabulary lacks, as those of a language that the model has not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from te_trainer.config.types import SENTENCE_COLUMNS, Kind, section_of
from te_trainer.data.digests import text_digest
from te_trainer.files.records import write_json
from te_trainer.models.tokenization import TokenCounts

RECORD = "truncation.json"
SAMPLE = 100_000  # rows that are tokenised at most; of more, so many are drawn
BLOCK = 10_000  # rows in memory at a time
LONGEST_TOKEN = 100  # characters of a text that are tokenised for each token that is read
MOST_UNKNOWN = 0.2  # of the tokens; a tenth may be the emoji and signs of a language that the model knows
TEXTS = {"bi-encoder": "distinct sentences", "cross-encoder": "pairs"}

Truncation = dict[str, Any]  # what `count_truncation` returns


def count_truncation(
    pairs: Dataset, kind: Kind, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "", seed: int = 0
) -> Truncation:
    """Count the texts that an encoder cuts, of all rows or of a sample.

    A bi-encoder reads the distinct sentences of the columns `sentence1` and `sentence2`, each after a prompt, a
    cross-encoder the pairs. `max_length` includes special tokens and those of the prompt.

    Returns:
        `{"max_length": n, "texts": n, "cut": n, "sampled": b, "share": f, "unknown": f}`: how many texts were counted,
        how many of them have more tokens, whether they are a sample, the part that is cut, 0 to 1, and the part of all
        tokens, special ones left out, that the vocabulary lacks.
    """
    sampled = len(pairs) > SAMPLE
    if sampled:
        rows = np.random.default_rng(seed).choice(len(pairs), size=SAMPLE, replace=False, shuffle=False)
        pairs = pairs.select(np.sort(rows))
    longest = LONGEST_TOKEN * max_length
    special = tokenizer.num_special_tokens_to_add(pair=kind == "cross-encoder")
    texts = cut = tokens = unknown = 0
    for sides in _sentences(pairs, prompt) if kind == "bi-encoder" else _pairs(pairs):
        counts = TokenCounts.of(tokenizer, *([text[:longest] for text in side] for side in sides))
        texts += len(counts.lengths)
        cut += int((counts.lengths > max_length).sum())
        tokens += int(counts.lengths.sum()) - special * len(counts.lengths)
        unknown += counts.unknown
    counted = {"max_length": max_length, "texts": texts, "cut": cut, "sampled": sampled}
    return counted | {"share": cut / max(1, texts), "unknown": unknown / max(1, tokens)}


def count_once(folder: Path, count: Callable[[], dict[str, Any]]) -> None:
    """Write what is counted of the texts in a folder beside them, unless it is there."""
    if not read_truncations(folder):
        write_json(folder / RECORD, count())


def read_truncations(folder: Path) -> dict[str, Any]:
    """Read what was counted; nothing where it was not, or the file was cut: it is counted again then."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def describe_run_truncation(truncations: dict[str, dict[str, Truncation]]) -> list[str]:
    """What each encoder of a run does not read, by PLM, and by kind of encoder or `step0`."""
    keys = {"step0": "contrastive.max_length in the file of distillation.step0"}
    return [
        line
        for name, entries in truncations.items()
        for kind, entry in entries.items()
        for line in describe_truncation(
            f"{name}: {kind}", kind, entry, keys.get(kind, f"{section_of(kind)}.max_length")
        )
    ]


def describe_contrastive_truncation(truncations: dict[str, Truncation]) -> list[str]:
    """What contrastive training does not read, with the key that helps."""
    return [
        line
        for kind, entry in truncations.items()
        for line in describe_truncation("contrastive training", kind, entry, "contrastive.max_length")
    ]


def describe_truncation(title: str, kind: str, counts: Truncation, key: str) -> list[str]:
    """What is not read, in lines that begin with `title`; `key` is that of the configuration that sets the length."""
    lines = []
    if (unknown := counts["unknown"]) >= MOST_UNKNOWN:
        lines.append(
            f"{title}: {100 * unknown:.0f} % of the tokens are unknown to the model, so that texts which differ look "
            "alike to it; choose one that knows their language, such as a multilingual one"
        )
    if not counts["cut"]:
        return lines
    texts = TEXTS.get(kind, TEXTS["bi-encoder"])
    share, numbers = f"{100 * counts['share']:.1f} %", f"{counts['cut']:,} of {counts['texts']:,}"
    counted = f"about {share} of the {texts} ({numbers} drawn)" if counts["sampled"] else f"{numbers} {texts} ({share})"
    return [
        *lines,
        f"{title}: {counted} have more than {counts['max_length']:,} tokens and are cut; a larger {key} reads more, as "
        "far as the model can",
    ]


def _sentences(pairs: Dataset, prompt: str) -> Iterator[tuple[list[str]]]:
    """Distinct sentences, block by block."""
    seen: set[int] = set()
    for block in pairs.iter(batch_size=BLOCK):
        fresh = {text_digest(text): text for name in SENTENCE_COLUMNS for text in block[name]}
        texts = [prompt + text for digest, text in fresh.items() if digest not in seen]
        seen |= fresh.keys()
        if texts:  # a tokenizer in Python takes no empty list
            yield (texts,)


def _pairs(pairs: Dataset) -> Iterable[tuple[list[str], list[str]]]:
    return ((block["sentence1"], block["sentence2"]) for block in pairs.iter(batch_size=BLOCK))
