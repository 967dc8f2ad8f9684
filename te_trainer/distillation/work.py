"""How much work the parts of a run are, in passes over the pool, which the display counts."""

from __future__ import annotations

from typing import Any, NamedTuple

from te_trainer.config.types import Kind
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distillation.plan import DistillationPlan, batch_size, pairs_read
from te_trainer.distributed import ask_main_process, process_state
from te_trainer.runs.layout import RunLayout

FORWARD, TRAINING = 1, 4  # cost of a pass over the pool; docs/performance.md measures 3.6 and 4.2 of a training
EMBEDDED_PER_SEARCH = 1 / 200_000  # sentences, for each that BM25 searches; of all-MiniLM-L6-v2 by docs/mining.md


def training_work(plan: DistillationPlan, name: str, kind: Kind, pairs: int) -> float:
    """One training of a PLM's encoder on a pool of so many pairs."""
    training = plan.models[name].encoders[kind].training
    return TRAINING * _rows_learnt(training, pairs_read(training, pairs)) / pairs


def step0_work(plan: DistillationPlan, layout: RunLayout) -> float:
    """Step 0 of one PLM: each sentence is read twice, a pair's sentences once each."""
    step0 = next(iter(plan.models.values())).step0
    if step0 is None:
        return 0.0
    sentences = SentenceManifest.load(layout.sentences)[0].num_rows
    return TRAINING * _rows_learnt(step0.training, sentences) / expected_pairs(plan, layout)


def _rows_learnt(training: dict[str, Any], rows: int) -> float:
    """How many rows a training reads, of which an epoch reads so many."""
    steps = int(training.get("max_steps", -1))
    if steps > 0:
        return steps * batch_size(training, process_state().num_processes)
    return float(training["num_train_epochs"]) * rows


class MiningWork(NamedTuple):
    """What mining costs."""

    gather: float  # candidates, with BM25's search, once
    embed: float  # sentences with one PLM
    search: float  # for neighbours by one PLM's vectors

    def total(self, models: int) -> float:
        """With so many PLMs."""
        return self.gather + models * (self.embed + self.search)


def mining_work(plan: DistillationPlan, layout: RunLayout) -> MiningWork:
    """BM25's search among all sentences; embedding and search with one PLM, which take about as long as each other."""
    if not plan.config.mines:
        return MiningWork(0.0, 0.0, 0.0)
    mining, sentences = plan.config.mining, SentenceManifest.load(layout.mining)[0].num_rows
    anchors, searches = plan.anchors(sentences), "neighbours" in mining.sources
    # a sentence has one before it and one after it in its document, and random partners look for partners themselves
    most = {"document": 2 if plan.config.data.document else 0, "random": 0}
    partners = sum(most.get(source, mining.candidates) for source in mining.sources)
    embedded = sentences if searches else min(sentences, anchors * (1 + partners))
    searched = anchors * sentences * EMBEDDED_PER_SEARCH if "bm25" in mining.sources else 0.0
    sentence = FORWARD / 2 / expected_pairs(plan, layout)
    return MiningWork(searched * sentence, embedded * sentence, embedded * sentence * searches)


def cycles_work(plan: DistillationPlan, name: str, pairs: int) -> float:
    """All cycles of a PLM on a pool of so many pairs."""
    trainings = sum(training_work(plan, name, kind, pairs) for kind in plan.kinds)
    labellings = plan.cycles * len(plan.kinds) + (plan.config.distillation.selection == "agreement")
    return plan.cycles * trainings + FORWARD * labellings


def total_work(plan: DistillationPlan, layout: RunLayout) -> float:
    """The whole run."""
    step0, mining, pairs = step0_work(plan, layout), mining_work(plan, layout), expected_pairs(plan, layout)
    return mining.total(len(plan.models)) + sum(cycles_work(plan, name, pairs) + step0 for name in plan.models)


def expected_pairs(plan: DistillationPlan, layout: RunLayout) -> int:
    """The pairs of the pool; before it is mined, as many as are asked for."""
    if ask_main_process(layout.pool.exists):
        return PoolManifest.load(layout.pool)[0].num_rows
    sentences = SentenceManifest.load(layout.mining)[0].num_rows
    given = PoolManifest.load(layout.given_pairs)[0].num_rows if layout.given_pairs.exists() else 0
    return given + plan.pairs_to_mine(sentences)
