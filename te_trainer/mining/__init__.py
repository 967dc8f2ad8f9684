"""Pairs out of sentences: candidates from four sources, scored elsewhere, drawn evenly over their scores."""
