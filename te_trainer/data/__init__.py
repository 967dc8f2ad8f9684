"""Sentence pairs and sentences: unlabelled pools and sets with gold scores, from files and from the Hub."""

from te_trainer.data.arrow_io import pairs_of
from te_trainer.data.gold import GoldSet, GoldSets, count_overlaps, count_shared, load_gold
from te_trainer.data.pool import PoolManifest, add_mined_pairs, build_pool
from te_trainer.data.scored_rows import rows_with_both, write_rows
from te_trainer.data.sentences import SentenceManifest, build_sentences
from te_trainer.data.text_file import SourceCount

__all__ = [
    "GoldSet",
    "GoldSets",
    "PoolManifest",
    "SentenceManifest",
    "SourceCount",
    "add_mined_pairs",
    "build_pool",
    "build_sentences",
    "count_overlaps",
    "count_shared",
    "load_gold",
    "pairs_of",
    "rows_with_both",
    "write_rows",
]
