"""Sentence pairs and sentences: unlabelled pools and sets with gold scores, from files and from the Hub."""

from te_trainer.data.gold import GoldSet, load_gold
from te_trainer.data.manifest import SourceCount
from te_trainer.data.overlap import count_overlaps
from te_trainer.data.pool import PoolManifest, build_pool
from te_trainer.data.rows import rows_with_both, write_rows
from te_trainer.data.sentences import SentenceManifest, build_sentences, sentences_of_pool

__all__ = [
    "GoldSet",
    "PoolManifest",
    "SentenceManifest",
    "SourceCount",
    "build_pool",
    "build_sentences",
    "count_overlaps",
    "load_gold",
    "rows_with_both",
    "sentences_of_pool",
    "write_rows",
]
