"""Scores of finished models on pairs with gold scores: what is evaluated, on what, and the tables of it."""
