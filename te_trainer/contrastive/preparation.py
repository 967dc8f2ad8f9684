"""What contrastive training looks at and writes before it begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from datasets import Dataset

from te_trainer.config.schema import ContrastiveConfig, ContrastiveDataConfig
from te_trainer.contrastive.plan import ContrastivePlan, data_sources
from te_trainer.data import GoldSets, SentenceManifest, build_sentences
from te_trainer.files.atomic import atomic_folder
from te_trainer.models import local_fingerprint
from te_trainer.runs.checks import (
    check_loggers,
    check_space,
    gold_fingerprints,
    refuse_changed_files,
    refuse_changes_here,
)
from te_trainer.runs.commits import hub_commits
from te_trainer.runs.manifest import Fingerprint, RunManifest
from te_trainer.runs.training_arguments import check_arguments


def check_run(manifest: RunManifest[ContrastiveConfig]) -> None:
    """Refuse models, loggers and disks that cannot be used."""
    plan: ContrastivePlan = manifest.plan
    plan.check()
    check_loggers(manifest.config.report_to)
    check_arguments("bi-encoder", "contrastive", plan.training, manifest.config.ddp_timeout)
    if manifest.begun is None:
        weights = 4 * plan.start.empty_model("bi-encoder").num_parameters()
        # the encoder, and while a checkpoint is written, three of weights and AdamW's two moments and the best weights
        check_space(manifest.root, weights + (3 * 3 + 1) * weights)


def prepare_sentences(manifest: RunManifest[ContrastiveConfig], gold: GoldSets) -> None:
    """Write the sentences and `run.yaml` into the output folder, or see that they are what the run began with.

    `run.yaml` comes first: it makes the folder a run's, whenever the process is killed.
    """
    config, plan = manifest.config, manifest.plan
    fixed = [_model_fingerprint(config, plan.start.fingerprint), *gold_fingerprints(gold)]
    manifest.refuse_changes(fixed)
    with read_sentences(config.data, manifest.layout.sentences, config.seed) as sentences:
        plan.check_batch(sentences.num_rows)
        texts = Fingerprint(("sentences", "fingerprint"), sentences.fingerprint, "data.sentences: they have")
        commits = hub_commits([config.model], data_sources(config))
        manifest.begin_or_continue([texts, *fixed], sentences={"number": sentences.num_rows}, **commits)


def refuse_changed_finished(manifest: RunManifest[ContrastiveConfig]) -> None:
    """Refuse that a run is finished where its sentences, gold scores or model are here and have changed."""
    config = manifest.config
    sources = SentenceManifest.read_sources(manifest.layout.sentences)
    model = _model_fingerprint(config, local_fingerprint(config.model))
    refuse_changes_here(manifest, [(sources, config.data.dir)], [model])


def _model_fingerprint(config: ContrastiveConfig, value: str | None) -> Fingerprint:
    return Fingerprint(("model",), value, f"model: the files of {config.model} have")


@contextlib.contextmanager
def read_sentences(
    data: ContrastiveDataConfig, final: Path, seed: int, read_pool: Callable[[], Dataset] | None = None
) -> Iterator[SentenceManifest]:
    """Give the sentences that lie in the folder `final`; sentences that are read are there when the block ends well.

    Args:
        read_pool: Gives pairs whose sentences are taken where `data` names no source.
    """
    if final.exists():
        sentences = SentenceManifest.load(final)[0]
        refuse_changed_files(sentences.sources, data.dir, final.parent)
        yield sentences
        return
    with atomic_folder(final) as folder:
        pool = None if data.sentences or read_pool is None else read_pool()
        sentences = build_sentences(data, folder, pool=pool, seed=seed)
        del pool  # no folder is renamed on the disks of Windows while a file in it is mapped
        yield sentences
