"""How many texts are longer than an encoder reads, counted before anything is done with them.

What stands behind the last token that is read changes no score: texts that begin alike and are long get the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from te_trainer.config.schema import ContrastiveConfig, Kind, RunConfig
from te_trainer.contrastive.stage import ContrastiveSettings
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.data.digests import text_digest
from te_trainer.distil.settings import kinds_of, max_length_of, start_of
from te_trainer.distil.step0 import step0_settings
from te_trainer.files.atomic import write_text
from te_trainer.models import BiEncoder, Encoder, resolve_checkpoint
from te_trainer.models.tokenization import token_counts

SAMPLE = 100_000  # rows that are tokenised at most; more of them are drawn from
BLOCK = 10_000  # rows in memory at a time
LONGEST_TOKEN = 100  # characters; of a text, so many for each token that is read are looked at
FILE = "truncation.json"
TEXTS = {"bi-encoder": "distinct sentences", "cross-encoder": "pairs"}

Truncations = dict[str, dict[str, Any]]  # by what reads the texts: {"max_length", "texts", "cut", "share", "sampled"}


@dataclass(frozen=True)
class Truncation:
    """What an encoder cuts.

    Args:
        max_length: tokens that it reads of a text, special ones and those of a prompt included.
        texts: that were counted: distinct sentences of a bi-encoder, pairs of a cross-encoder.
        cut: those of them that have more tokens.
        sampled: whether the texts are drawn from more.
    """

    max_length: int
    texts: int
    cut: int
    sampled: bool

    def record(self) -> dict[str, Any]:
        """For `results.json`; `share` is the part of the texts that is cut, 0 to 1."""
        return {**asdict(self), "share": self.cut / max(1, self.texts)}


def count_truncation(
    pairs: Dataset, kind: Kind, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "", seed: int = 0
) -> Truncation:
    """Count the texts that an encoder cuts, of all rows or of `SAMPLE` ones that are drawn.

    Args:
        pairs: columns `sentence1` and `sentence2`.
        prompt: that stands in front of every sentence of a bi-encoder.
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
        cut += sum(count > max_length for count in counts)
    return Truncation(max_length, texts, cut, sampled)


def truncation_of(encoder: Encoder, pairs: Dataset) -> Truncation:
    """What an encoder that is loaded cuts."""
    prompt = encoder.prompt if isinstance(encoder, BiEncoder) else ""
    return count_truncation(pairs, encoder.kind, encoder.tokenizer, encoder.max_length, prompt)


def count_run_truncation(config: RunConfig, root: Path) -> None:
    """Count what each PLM's encoders cut of the pool, and step 0 of its sentences, unless that is known."""
    file = root / "pool" / FILE
    if _read(file) is not None:
        return
    _, pairs = PoolManifest.load(root / "pool")

    @cache
    def counted(name: str, kind: Kind, max_length: int, prompt: str, of_step0: bool = False) -> dict[str, Any]:
        texts = SentenceManifest.load(root / "sentences")[1] if of_step0 else pairs
        return count_truncation(
            texts, kind, resolve_checkpoint(name).tokenizer, max_length, prompt, config.seed
        ).record()

    found: dict[str, Truncations] = {}
    for model in config.models:
        found[str(model.name)] = entry = {}
        if config.step0 is not None:
            length, prompt = _step0_reads(step0_settings(config), model.bi_encoder)
            entry["step0"] = counted(model.bi_encoder, "bi-encoder", length, prompt, of_step0=True)
        for kind in kinds_of(config):
            start, prompt = start_of(model, kind), ""
            if kind == "bi-encoder":
                given = config.bi_encoder.prompt
                prompt = resolve_checkpoint(start).layout.prompt if given is None else given
            entry[kind] = counted(start, kind, max_length_of(config, kind), prompt)
    write_text(file, json.dumps(found, indent=2) + "\n")


def count_contrastive_truncation(config: ContrastiveConfig, root: Path) -> None:
    """Count what contrastive training cuts of its sentences, unless that is known."""
    file = root / "sentences" / FILE
    if _read(file) is not None:
        return
    _, sentences = SentenceManifest.load(root / "sentences")
    length, prompt = _step0_reads(ContrastiveSettings(config.contrastive), config.model)
    found = count_truncation(
        sentences, "bi-encoder", resolve_checkpoint(config.model).tokenizer, length, prompt, config.seed
    )
    write_text(file, json.dumps({"bi-encoder": found.record()}, indent=2) + "\n")


def run_truncation(root: Path) -> dict[str, Truncations]:
    """What was counted of a run: of each PLM, by kind of encoder, and `step0` where there is one."""
    return _read(root / "pool" / FILE) or {}


def contrastive_truncation(root: Path) -> Truncations:
    """What was counted of a contrastive training."""
    return _read(root / "sentences" / FILE) or {}


def describe_run_truncation(found: dict[str, Truncations]) -> list[str]:
    """A line for each encoder that cuts something, with the key that helps."""
    keys = {"step0": "contrastive.max_length in the file of distillation.step0"}
    return [
        describe_truncation(f"{name}: {kind}", kind, entry, keys.get(kind, f"{kind.replace('-', '_')}.max_length"))
        for name, entries in found.items()
        for kind, entry in entries.items()
        if entry["cut"]
    ]


def describe_contrastive_truncation(found: Truncations) -> list[str]:
    """A line if contrastive training cuts something, with the key that helps."""
    return [
        describe_truncation("contrastive training", kind, entry, "contrastive.max_length")
        for kind, entry in found.items()
        if entry["cut"]
    ]


def describe_truncation(title: str, kind: str, found: dict[str, Any], key: str) -> str:
    """What is cut, in a line.

    Args:
        kind: of encoder.
        found: as `Truncation.record` gives it.
        key: of the configuration, that sets the length.
    """
    texts = TEXTS.get(kind, TEXTS["bi-encoder"])
    share, numbers = f"{100 * found['share']:.1f} %", f"{found['cut']:,} of {found['texts']:,}"
    counted = f"about {share} of the {texts} ({numbers} drawn)" if found["sampled"] else f"{numbers} {texts} ({share})"
    return (
        f"{title}: {counted} have more than {found['max_length']:,} tokens and are cut; a larger {key} reads more, as "
        "far as the model can"
    )


def _step0_reads(settings: ContrastiveSettings, model: str) -> tuple[int, str]:
    """Length and prompt of contrastive training."""
    prompt = settings.encoder["prompt"]
    return int(settings.encoder["max_length"]), resolve_checkpoint(model).layout.prompt if prompt is None else prompt


def _sentences(pairs: Dataset, prompt: str) -> Iterator[tuple[list[str]]]:
    """Distinct sentences, block by block."""
    seen: set[int] = set()
    for block in pairs.iter(batch_size=BLOCK):
        fresh = {text_digest(text): text for name in ("sentence1", "sentence2") for text in block[name]}
        texts = [prompt + text for digest, text in fresh.items() if digest not in seen]
        seen |= fresh.keys()
        yield (texts,)


def _pairs(pairs: Dataset) -> Iterable[tuple[list[str], list[str]]]:
    return ((block["sentence1"], block["sentence2"]) for block in pairs.iter(batch_size=BLOCK))


def _read(file: Path) -> dict[str, Any] | None:
    """What was counted; None where nothing was, or the file was cut."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
