"""How many texts are longer than an encoder reads, counted before anything is done with them.

Nothing behind the last token that is read changes a score: long texts that begin alike get the same one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from te_trainer.config.schema import Kind
from te_trainer.data.digests import text_digest
from te_trainer.files.records import write_json
from te_trainer.models.tokenization import token_counts

RECORD = "truncation.json"
SAMPLE = 100_000  # rows that are tokenised at most; of more, so many are drawn
BLOCK = 10_000  # rows in memory at a time
LONGEST_TOKEN = 100  # characters of a text that are tokenised for each token that is read
TEXTS = {"bi-encoder": "distinct sentences", "cross-encoder": "pairs"}

Truncation = dict[str, Any]  # what `count_truncation` returns


def count_truncation(
    pairs: Dataset, kind: Kind, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "", seed: int = 0
) -> Truncation:
    """Count the texts that an encoder cuts, of all rows or of a sample.

    A bi-encoder reads the distinct sentences of the columns `sentence1` and `sentence2`, each behind a prompt, a
    cross-encoder the pairs. `max_length` includes special tokens and those of the prompt.

    Returns:
        `{"max_length": n, "texts": n, "cut": n, "sampled": b, "share": f}`: how many texts were counted, how many of
        them have more tokens, whether they are a sample, and the part that is cut, 0 to 1.
    """
    sampled = len(pairs) > SAMPLE
    if sampled:
        rows = np.random.default_rng(seed).choice(len(pairs), size=SAMPLE, replace=False, shuffle=False)
        pairs = pairs.select(np.sort(rows))
    longest = LONGEST_TOKEN * max_length
    texts = cut = 0
    for sides in _sentences(pairs, prompt) if kind == "bi-encoder" else _pairs(pairs):
        counts = token_counts(tokenizer, *([text[:longest] for text in side] for side in sides))
        texts += len(counts)
        cut += int((counts > max_length).sum())
    return {"max_length": max_length, "texts": texts, "cut": cut, "sampled": sampled, "share": cut / max(1, texts)}


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
    """A line for each encoder of a run that cuts something, by PLM, and by kind of encoder or `step0`."""
    keys = {"step0": "contrastive.max_length in the file of distillation.step0"}
    return [
        describe_truncation(f"{name}: {kind}", kind, entry, keys.get(kind, f"{kind.replace('-', '_')}.max_length"))
        for name, entries in truncations.items()
        for kind, entry in entries.items()
        if entry["cut"]
    ]


def describe_contrastive_truncation(truncations: dict[str, Truncation]) -> list[str]:
    """A line if contrastive training cuts something, with the key that helps."""
    return [
        describe_truncation("contrastive training", kind, entry, "contrastive.max_length")
        for kind, entry in truncations.items()
        if entry["cut"]
    ]


def describe_truncation(title: str, kind: str, counts: Truncation, key: str) -> str:
    """What is cut, in a line that begins with `title` and names the key of the configuration that sets the length."""
    texts = TEXTS.get(kind, TEXTS["bi-encoder"])
    share, numbers = f"{100 * counts['share']:.1f} %", f"{counts['cut']:,} of {counts['texts']:,}"
    counted = f"about {share} of the {texts} ({numbers} drawn)" if counts["sampled"] else f"{numbers} {texts} ({share})"
    return (
        f"{title}: {counted} have more than {counts['max_length']:,} tokens and are cut; a larger {key} reads more, as "
        "far as the model can"
    )


def _sentences(pairs: Dataset, prompt: str) -> Iterator[tuple[list[str]]]:
    """Distinct sentences, block by block."""
    seen: set[int] = set()
    for block in pairs.iter(batch_size=BLOCK):
        fresh = {text_digest(text): text for name in ("sentence1", "sentence2") for text in block[name]}
        texts = [prompt + text for digest, text in fresh.items() if digest not in seen]
        seen |= fresh.keys()
        if texts:  # a tokenizer in Python takes no empty list
            yield (texts,)


def _pairs(pairs: Dataset) -> Iterable[tuple[list[str], list[str]]]:
    return ((block["sentence1"], block["sentence2"]) for block in pairs.iter(batch_size=BLOCK))
