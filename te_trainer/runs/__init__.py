"""The life of a run in its output folder: who works in it, what it began with, what is done."""
