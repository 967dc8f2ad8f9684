"""How many texts of its pool and its sentences a run of distillation cuts."""

from __future__ import annotations

import json
from functools import cache

from te_trainer.config.schema import Kind, RunConfig
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distil.settings import kinds_of, max_length_of, start_of
from te_trainer.distil.step0 import step0_settings
from te_trainer.files.atomic import write_text
from te_trainer.models import resolve_checkpoint
from te_trainer.runs.layout import RunLayout, truncation_record
from te_trainer.runs.truncation import Truncation, count_truncation, read_truncations


def count_run_truncation(config: RunConfig, layout: RunLayout) -> None:
    """Count what each PLM's encoders cut of the pool, and step 0 of its sentences, unless that is known.

    The file holds the records by PLM, and by kind of encoder or `step0`.
    """
    file = truncation_record(layout.pool)
    if read_truncations(file):
        return
    _, pairs = PoolManifest.load(layout.pool)

    @cache
    def count(name: str, kind: Kind, max_length: int, prompt: str, of_step0: bool = False) -> Truncation:
        texts = SentenceManifest.load(layout.sentences)[1] if of_step0 else pairs
        tokenizer = resolve_checkpoint(name).tokenizer
        return count_truncation(texts, kind, tokenizer, max_length, prompt, config.seed)

    truncations: dict[str, dict[str, Truncation]] = {}
    for model in config.models:
        truncations[str(model.name)] = entry = {}
        if config.step0 is not None:
            max_length, prompt = step0_settings(config).reads(model.bi_encoder)
            entry["step0"] = count(model.bi_encoder, "bi-encoder", max_length, prompt, of_step0=True)
        for kind in kinds_of(config):
            start, prompt = start_of(model, kind), ""
            if kind == "bi-encoder":
                chosen = config.bi_encoder.prompt
                prompt = resolve_checkpoint(start).layout.prompt if chosen is None else chosen
            entry[kind] = count(start, kind, max_length_of(config, kind), prompt)
    write_text(file, json.dumps(truncations, indent=2) + "\n")
