"""How much work a run's stages are, in passes over the pool, for the display."""

from __future__ import annotations

from te_trainer.config.schema import Kind
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.runs.layout import RunLayout

FORWARD, TRAINING = 1, 4  # cost of a pass over the pool; docs/performance.md measures 3.6 and 4.2 of a training


def training_work(plan: DistillationPlan, name: str, kind: Kind) -> float:
    """One training of a PLM's encoder."""
    training = plan.models[name].encoders[kind].training
    orders = 2 if training.get("both_orders") else 1
    return TRAINING * orders * float(training["num_train_epochs"])


def step0_work(plan: DistillationPlan, layout: RunLayout) -> float:
    """Step 0 of one PLM: each sentence is read twice, a pair's sentences once each."""
    step0 = next(iter(plan.models.values())).step0
    if step0 is None:
        return 0.0
    sentences = SentenceManifest.load(layout.sentences)[0].num_rows
    return TRAINING * float(step0.training["num_train_epochs"]) * sentences / expected_pairs(plan, layout)


def mining_work(plan: DistillationPlan, layout: RunLayout) -> float:
    """The search with one PLM's vectors, or their embedding, which takes about as long."""
    sentences = SentenceManifest.load(layout.mining)[0].num_rows if plan.config.mines else 0
    return FORWARD * sentences / expected_pairs(plan, layout)


def cycles_work(plan: DistillationPlan, name: str) -> float:
    """All cycles of a PLM."""
    trainings = sum(training_work(plan, name, kind) for kind in plan.kinds)
    labellings = plan.cycles * len(plan.kinds) + (plan.config.distillation.selection == "agreement")
    return plan.cycles * trainings + FORWARD * labellings


def total_work(plan: DistillationPlan, layout: RunLayout) -> float:
    """The whole run."""
    starts = step0_work(plan, layout) + 2 * mining_work(plan, layout)
    return sum(cycles_work(plan, name) + starts for name in plan.models)


def expected_pairs(plan: DistillationPlan, layout: RunLayout) -> int:
    """The pairs of the pool; before it is mined, as many as are asked for."""
    if layout.pool.exists():
        return PoolManifest.load(layout.pool)[0].num_rows
    sentences = SentenceManifest.load(layout.mining)[0].num_rows
    given = PoolManifest.load(layout.given_pairs)[0].num_rows if layout.given_pairs.exists() else 0
    return given + plan.pairs_to_mine(sentences)
