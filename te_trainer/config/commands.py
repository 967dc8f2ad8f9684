"""The command line of each command: what it reads, and what all of its values together must fulfil.

Each function raises an `InputError` for a key or a value that cannot be, and for one that is missing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from te_trainer.config.defaults import MIRROR_BERT
from te_trainer.config.names import check_model_names, check_path
from te_trainer.config.parsing import read
from te_trainer.config.schema import (
    AnnotateConfig,
    ContrastiveConfig,
    EvaluationConfig,
    HubConfig,
    MiningConfig,
    PushConfig,
    RunConfig,
    ScoreConfig,
)
from te_trainer.errors import InputError

# What the Hub lets a repository be called: OWNER/NAME.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)\w[\w.-]*/\w([\w.-]{0,94}\w)?", re.ASCII)
OUTPUT_FORMATS = (".tsv", ".csv", ".jsonl", ".parquet")


def parse(given: Sequence[str] | Mapping[str, Any] | None = None) -> RunConfig:
    """The configuration of the main job, from a command line or from keys."""
    config = read(RunConfig, given)
    data, distillation = config.data, config.distillation
    if distillation.step0 is not None:
        config.step0 = parse_step0(distillation.step0)
    _require(config.models, "models", "at least one model, e.g. --models '[bert-base-uncased]'")
    _require(
        data.pool or data.sentences,
        "data.pool",
        "at least one source of sentence pairs, e.g. --data.pool '[pairs.tsv]', or with data.sentences a source of "
        "sentences that pairs are mined from",
    )
    _check_mining(config)
    check_model_names([model.name for model in config.models])
    check_path(config.output_dir, "output_dir")
    if distillation.selection == "dev" and data.dev is None:
        raise InputError(
            "distillation.selection is 'dev' but data.dev names no set with gold scores; give one, or set "
            "distillation.selection to 'health'"
        )
    for key, value in (("bi_encoder_labels", "averaged"), ("cross_encoder_labels", "quantiles")):
        if getattr(distillation, key) == value and distillation.students == "bi-encoder":
            raise InputError(
                f"distillation.{key} is '{value}', but distillation.students is 'bi-encoder', so that there is no "
                "cross-encoder; leave one of both keys out"
            )
    for model in config.models:
        if model.weight is not None and distillation.combine != "weighted":
            raise InputError(
                f"models: '{model.name}' has a weight, but distillation.combine is '{distillation.combine}'; set it to "
                "'weighted', or remove the weight"
            )
    if data.extra_pairs is not None and not data.extra:
        raise InputError("data.extra_pairs is given but data.extra names no source; name one, or remove the key")
    _check_hub(config.hub)
    if config.hub.branch_per_cycle and not distillation.keep_cycles:
        raise InputError(
            "hub.branch_per_cycle is given but only the best encoders are kept; set distillation.keep_cycles to true"
        )
    return config


def parse_contrastive(argv: Sequence[str] | None = None) -> ContrastiveConfig:
    """The configuration of contrastive training alone."""
    config = _contrastive(argv)
    _require(config.model, "model", "a plain PLM, e.g. --model bert-base-uncased")
    _require(config.data.sentences, "data.sentences", "at least one source, e.g. --data.sentences '[sentences.txt]'")
    check_path(config.output_dir, "output_dir")
    return config


def parse_step0(path: str) -> ContrastiveConfig:
    """The file that a run's `distillation.step0` names.

    Only what the run itself does not decide is kept: the sources of sentences (none for the run's own texts) and the
    section `contrastive`.
    """
    try:
        config = _contrastive(["--config", path])
    except InputError as error:
        raise InputError(f"distillation.step0: {str(error).removeprefix('--config: ')}") from None
    for key in ("column", "columns", "split"):
        if getattr(config.data, key) and not config.data.sentences:
            raise InputError(
                f"distillation.step0: data.{key} in {path} belongs to data.sentences, which is not given there; name a "
                "source, or remove the key"
            )
    data = replace(config.data, dev=None, test=[])
    return ContrastiveConfig(data=data, contrastive=config.contrastive, output_dir="", seed=0)


def parse_evaluation(argv: Sequence[str] | None = None) -> EvaluationConfig:
    """The configuration of an evaluation."""
    config = read(EvaluationConfig, argv)
    _require(config.models, "models", "at least one model, e.g. --models '[runs/sts/bert/bi-encoder]'")
    check_path(config.output_dir, "output_dir")
    return config


def parse_score(argv: Sequence[str] | None = None) -> ScoreConfig:
    """The configuration of scoring."""
    config = read(ScoreConfig, argv)
    data = config.data
    _require(config.model, "model", "a bi-encoder or a cross-encoder, e.g. --model runs/my/bert/bi-encoder")
    if (data.pairs is None) == (data.sentences is None):
        raise InputError("data: name either data.pairs or data.sentences, and not both")
    if data.pairs is not None:
        top_k = config.top_k if config.top_k != ScoreConfig.top_k else None
        of_search = {"top_k": top_k, "rerank": config.rerank, "data.queries": data.queries, "data.column": data.column}
        for key, value in of_search.items():
            if value is not None:
                raise InputError(f"{key}: belongs to data.sentences, but data.pairs is given; leave it out")
    else:
        of_pairs = {"probabilities": config.probabilities, "data.keep": None if data.keep else False}
        for key, value in of_pairs.items():
            if value is not None:
                raise InputError(f"{key}: belongs to data.pairs, but data.sentences is given; leave it out")
    if config.same_from is not None and config.probabilities is None:
        raise InputError("same_from: belongs to probabilities, which names no pairs with scores; name them")
    check_output(config.output, config.overwrite)
    return config


def parse_push(argv: Sequence[str] | None = None) -> PushConfig:
    """Which run is published where."""
    config = read(PushConfig, _run_first(argv))
    for key, value in (("run", config.run), ("hub.repo_id", config.hub.repo_id)):
        if not value:
            how = "te-trainer push (python recipes/push_to_hub.py) RUN_FOLDER --hub.repo_id OWNER/NAME"
            raise InputError(f"{key} is missing: write {how}")
    _check_hub(config.hub)
    return config


def parse_annotate(argv: Sequence[str] | None = None) -> AnnotateConfig:
    """Of which run pairs are chosen, and where they go."""
    config = read(AnnotateConfig, _run_first(argv))
    if not config.run:
        raise InputError("run is missing: write te-trainer annotate RUN_FOLDER --output labels.tsv")
    check_output(config.output, config.overwrite, formats=(".tsv",))
    return config


def _check_mining(config: RunConfig) -> None:
    """Refuse keys that would have no effect."""
    data, mining = config.data, config.mining
    if not config.mines and mining != MiningConfig():
        raise InputError(
            "mining: its keys say how pairs are mined, but neither data.sentences nor mining.pairs is given; give one"
        )
    for key in ("column", "document"):
        if getattr(data, key) is not None and not data.sentences:
            raise InputError(
                f"data.{key}: belongs to data.sentences, which is not given; name a source, or remove the key"
            )
    for key in ("max_pairs", "extra"):
        if getattr(data, key) and not data.pool:
            raise InputError(f"data.{key}: belongs to data.pool, which is not given; name a source, or remove the key")
    if not mining.sources:
        raise InputError("mining.sources is empty: name one, e.g. --mining.sources '[neighbours]'")
    if "document" not in mining.sources and data.document is not None:
        raise InputError("data.document: mining.sources lacks document; add it, or remove the key")
    if set(mining.sources) == {"document"} and data.document is None:
        raise InputError("mining.sources: document alone needs data.document; name the column, or other sources")


def _run_first(argv: Sequence[str] | None) -> list[str]:
    """A command line whose first argument may be the folder of a run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return ["--run", *arguments] if arguments and not arguments[0].startswith("-") else arguments


def check_output(output: str, overwrite: bool, formats: Sequence[str] = OUTPUT_FORMATS) -> None:
    """Refuse a file that cannot be written, or is there already."""
    path = Path(output)
    known = " or ".join(filter(None, (", ".join(formats[:-1]), formats[-1])))
    if not output:
        raise InputError(f"output: it is missing; name the file to write, which ends in {known}")
    if path.suffix.lower() not in formats:
        raise InputError(f"output: '{output}' does not end in {known}; name such a file")
    check_path(output, "output", is_file=True)
    if path.is_dir():
        raise InputError(f"output: {output} is a folder; name a file")
    if path.exists() and not overwrite:
        raise InputError(f"output: {output} is there already; name another file, or set --overwrite true")


def _require(value: Any, key: str, what: str) -> None:
    if not value:
        raise InputError(f"{key} is empty: name {what}")


def _contrastive(argv: Sequence[str] | None) -> ContrastiveConfig:
    config = read(ContrastiveConfig, argv)
    if config.contrastive.method == "mirror_bert":
        config = read(ContrastiveConfig, argv, contrastive=MIRROR_BERT)
    return config


def _check_hub(hub: HubConfig) -> None:
    if hub.repo_id is None:
        if hub != HubConfig():
            raise InputError("hub: its keys say how to publish, but hub.repo_id is not given; name OWNER/NAME")
    elif REPOSITORY.fullmatch(hub.repo_id) is None:
        raise InputError(f"hub.repo_id: '{hub.repo_id}' cannot name a repository; write it as OWNER/NAME")
