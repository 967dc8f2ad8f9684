"""Pairs out of sentences: candidates from four sources, scored elsewhere, drawn over the range of their scores."""
