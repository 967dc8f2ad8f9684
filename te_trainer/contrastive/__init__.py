"""Contrastive training: from a plain PLM and sentences to a bi-encoder, the paper's step 0."""
