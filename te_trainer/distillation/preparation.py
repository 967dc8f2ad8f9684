"""Everything that is looked at before a run begins, so that a mistake costs a second and leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from te_trainer.config.schema import ContrastiveDataConfig, RunConfig
from te_trainer.config.types import Kind, section_of
from te_trainer.contrastive.preparation import read_sentences
from te_trainer.data import GoldSets, PoolManifest, SentenceManifest, build_pool, build_sentences
from te_trainer.distillation.plan import DistillationPlan, ModelPlan, trained_kinds
from te_trainer.errors import InputError
from te_trainer.files.atomic import atomic_folder
from te_trainer.mining.bm25 import check_bm25
from te_trainer.mining.neighbours import check_faiss
from te_trainer.models import BiEncoder, Checkpoint, CrossEncoder, local_fingerprint, resolve_checkpoint
from te_trainer.models.attention import check_attention
from te_trainer.models.lora import check_targets, parameter_counts, put_adapters
from te_trainer.models.tokenizer import refuse_lost_ids
from te_trainer.runs.checks import gold_fingerprints, refuse_changed_files, refuse_changes_here
from te_trainer.runs.layout import RunLayout
from te_trainer.runs.manifest import Fingerprint, RunManifest
from te_trainer.runs.training_arguments import check_checkpointing
from te_trainer.runs.truncation import Truncation, count_once, count_truncation

# Maps texts into memory where they are read, and not for longer: the disks of Windows, which WSL shows too, rename no
# folder of which a file is mapped.
ReadTexts = Callable[[], Dataset]


def check_models(plan: DistillationPlan) -> int:
    """Refuse models that cannot be used.

    Returns:
        Bytes that the run's encoders and checkpoints take. All weights are float32. A checkpoint holds them and AdamW's
        two moments, and three of them and the best weights lie there while the newest is written; with LoRA, only what
        is trained is in them. Beside them, each kind of encoder a PLM, of this cycle and of the best one, or of all
        cycles.

    Raises:
        InputError: A checkpoint of the wrong kind, a tokenizer without padding, a length or an attention that a model
            does not have.
    """
    lora, kept = plan.config.lora, plan.cycles if plan.keeps_all_cycles else 2
    encoders, trained = 0, 0
    for model in plan.models.values():
        for kind, encoder in model.encoders.items():
            start, length = encoder.start, encoder.max_length
            if kind == "cross-encoder":
                CrossEncoder.check(start, length, "cross_encoder.")
            else:
                prompt = encoder.prompt
                BiEncoder.check(start, encoder.pooling, max_length=length, prompt=prompt, section="bi_encoder.")
            refuse_lost_ids(start.tokenizer, start.name)
            empty = start.empty_model(kind)
            check_attention(empty, encoder.attn_implementation, f"{encoder.section}.attn_implementation", trains=True)
            check_checkpointing(empty, start.name, encoder.section, encoder.training)
            weights = 4 * empty.num_parameters()
            encoders += (kept + 1 + (model.step0 is not None and kind == "bi-encoder")) * weights
            if lora.rank:
                weights = 4 * parameter_counts(put_adapters(empty, kind, lora, start.name))[0]
            trained = max(trained, weights)
        if model.step0 is not None:
            model.step0.check()
            pooling, trained_pooling = model.encoders["bi-encoder"].pooling, model.step0.section.pooling
            if pooling not in {None, trained_pooling}:
                raise InputError(
                    f"distillation.step0: contrastive.pooling is {trained_pooling}, but {model.name}'s pooling is "
                    f"{pooling}; set both to the same"
                )
    if lora.rank:
        all_encoders = [encoder for model in plan.models.values() for encoder in model.encoders.values()]
        # names may be of one kind's layers alone, or of one PLM's
        check_targets((encoder.start.empty_model(encoder.kind) for encoder in all_encoders), lora)
    return encoders + (3 * 3 + 1) * trained


def prepare_texts(manifest: RunManifest[RunConfig], gold: GoldSets) -> None:
    """Read all texts into the output folder and write `run.yaml`, or see that they are what the run began with.

    The texts are the pool, or the sentences that it is mined from, and the sentences of step 0. `run.yaml` comes first:
    it makes the folder a run's, whenever the process is killed. Raises an InputError where a source cannot be read, or
    a source, a model or a gold score has changed since the run began.
    """
    config, plan, layout = manifest.config, manifest.plan, manifest.layout
    entries: dict[str, Any] = {}
    with contextlib.ExitStack() as written:
        if config.mines:
            count, own_texts, fingerprint = written.enter_context(_read_mining_sentences(plan, layout))
            texts = [Fingerprint(("mining", "fingerprint"), fingerprint, "data: the texts have")]
            entries["mining"] = {"sentences": count}
            if config.mines_all:
                wanted = plan.pairs_to_mine(count)
                plan.fit(wanted, manifest.processes).check_batches(wanted, manifest.processes)
        else:
            pool, own_texts = written.enter_context(_read_pool(config, layout))
            texts = [Fingerprint(("pool", "fingerprint"), pool.fingerprint, "data: the texts have")]
            entries["pool"] = {"pairs": pool.num_rows}
            manifest.plan = plan = plan.fit(pool.num_rows, manifest.processes)
            plan.check_batches(pool.num_rows, manifest.processes)
        sentences = written.enter_context(read_step0_sentences(plan, layout.sentences, own_texts))
        if sentences is not None:
            texts.append(Fingerprint(("step0", "fingerprint"), sentences.fingerprint, "data: the texts have"))
            entries["step0"] = {"sentences": sentences.num_rows}
        models = model_fingerprints(config, lambda name: resolve_checkpoint(name).fingerprint)
        manifest.begin_or_continue([*texts, *gold_fingerprints(gold), *models], **entries, **plan.commits)


@contextlib.contextmanager
def _read_pool(config: RunConfig, layout: RunLayout) -> Iterator[tuple[PoolManifest, ReadTexts]]:
    """Give the pool; one that is built is in its place when the block ends well."""
    if layout.pool.exists():
        pool = PoolManifest.load(layout.pool)[0]
        refuse_changed_files(pool.sources, config.data.dir, layout.root)
        yield pool, lambda: PoolManifest.load(layout.pool)[1]
        return
    with atomic_folder(layout.pool) as folder:
        pool = build_pool(config.data, folder, config.seed)
        if pool.num_rows < 2:
            raise InputError("data.pool: it holds one pair, and training compares at least two; give more")
        yield pool, lambda: PoolManifest.load(folder)[1]


@contextlib.contextmanager
def _read_mining_sentences(plan: DistillationPlan, layout: RunLayout) -> Iterator[tuple[int, ReadTexts, str]]:
    """Give the number of the sentences that pairs are mined from, these and the given pairs, a fingerprint of both.

    What is read is in its place when the block ends well.
    """
    config, folder = plan.config, layout.mining
    data, sources = config.data, config.mining.sources
    if "bm25" in sources:
        check_bm25()
    with contextlib.ExitStack() as written:
        if not folder.exists():
            folder = written.enter_context(atomic_folder(folder))
            if data.pool:
                build_pool(data, folder / layout.given_pairs.name, config.seed)
            given_texts = None if data.sentences else PoolManifest.load(folder / layout.given_pairs.name)[1]
            texts = ContrastiveDataConfig(data.sentences, data.column, columns=data.columns, dir=data.dir)
            build_sentences(texts, folder, document=data.document, pool=given_texts)
            del given_texts
        manifest = SentenceManifest.load(folder)[0]
        given = PoolManifest.load(folder / layout.given_pairs.name)[0] if data.pool else PoolManifest()
        refuse_changed_files([*manifest.sources, *given.sources], data.dir, layout.root)
        if manifest.num_rows < 3:
            raise InputError(f"{config.mining_key}: there are fewer than three distinct sentences to pair; give more")
        if "neighbours" in sources:
            check_faiss(manifest.num_rows, plan.anchors(manifest.num_rows))

        def own_texts() -> Dataset:
            sentences = SentenceManifest.load(folder)[1]
            if not (data.pool and data.sentences):
                return sentences
            return concatenate_datasets([sentences, PoolManifest.load(folder / layout.given_pairs.name)[1]])

        yield manifest.num_rows, own_texts, "-".join(filter(None, (manifest.fingerprint, given.fingerprint)))


@contextlib.contextmanager
def read_step0_sentences(
    plan: DistillationPlan, final: Path, own_texts: ReadTexts
) -> Iterator[SentenceManifest | None]:
    """Give the sentences of step 0, if the run has one, as `read_sentences` does; by default the run's own texts."""
    config = plan.config
    if config.step0 is None:
        yield None
        return
    data = replace(config.step0.data, dir=config.step0.data.dir or config.data.dir)
    with read_sentences(data, final, config.seed, own_texts) as sentences:
        for model in plan.models.values():
            if model.step0 is not None:
                model.step0.check_batch(sentences.num_rows)
        yield sentences


def refuse_changed_finished(manifest: RunManifest[RunConfig]) -> None:
    """Refuse that a run is finished where its texts, gold scores or models are here and have changed."""
    config, layout = manifest.config, manifest.layout
    own = [
        *PoolManifest.read_sources(layout.pool),
        *PoolManifest.read_sources(layout.given_pairs),
        *SentenceManifest.read_sources(layout.mining),
    ]
    sources = [(own, config.data.dir)]
    if config.step0 is not None:
        step0_folder = config.step0.data.dir or config.data.dir
        sources.append((SentenceManifest.read_sources(layout.sentences), step0_folder))
    refuse_changes_here(manifest, sources, model_fingerprints(config, local_fingerprint), config.distillation.task)


def model_fingerprints(config: RunConfig, fingerprint: Callable[[str], str | None]) -> list[Fingerprint]:
    """Of each PLM, the fingerprints of the checkpoints that its encoders start from."""
    return [
        Fingerprint(
            ("models", model.name, section),
            fingerprint(getattr(model, section)),
            f"models: the files of {model.name}'s {section} have",
        )
        for model in config.models
        for section in map(section_of, trained_kinds(config))
    ]


def count_run_truncation(plan: DistillationPlan, layout: RunLayout) -> None:
    """Count what each PLM's encoders cut of the pool, and step 0 of its sentences, unless that is known.

    The file holds the records by PLM, and by kind of encoder or `step0`.
    """

    @cache
    def count(start: Checkpoint, kind: Kind, max_length: int, prompt: str, of_step0: bool = False) -> Truncation:
        texts = (SentenceManifest.load(layout.sentences) if of_step0 else PoolManifest.load(layout.pool))[1]
        return count_truncation(texts, kind, start.tokenizer, max_length, prompt, plan.config.seed)

    def count_model(model: ModelPlan) -> dict[str, Truncation]:
        entry = {}
        if (step0 := model.step0) is not None:
            length = step0.section.max_length
            entry["step0"] = count(step0.start, "bi-encoder", length, step0.prompt_text, of_step0=True)
        for kind, encoder in model.encoders.items():
            entry[kind] = count(encoder.start, kind, encoder.max_length, encoder.prompt_text)
        return entry

    count_once(layout.pool, lambda: {name: count_model(model) for name, model in plan.models.items()})
