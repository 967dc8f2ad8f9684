"""Sentence pairs: unlabelled pools and sets with gold scores, from files and from the Hub."""

from te_trainer.pairs.gold import GoldSet, load_gold
from te_trainer.pairs.pool import Pool, build_pool

__all__ = ["GoldSet", "Pool", "build_pool", "load_gold"]
