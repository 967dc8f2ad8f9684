"""The trainings of a run: step 0 of each PLM, and each student of each cycle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from te_trainer.contrastive.plan import contrastive_training
from te_trainer.data import SentenceManifest
from te_trainer.distillation.encoders import load_run_encoder
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.distillation.work import step0_work
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore
from te_trainer.runs.training import Training, training_seed
from te_trainer.runs.training_arguments import run_arguments

# A student that has not learnt is trained once more, for so many times the epochs.
ATTEMPTS = (1, 3)


@dataclass(frozen=True)
class Trainings:
    """Makes the trainings of a run; the scorer's dev set chooses checkpoints, where the plan says so."""

    plan: DistillationPlan
    store: RunStore
    scorer: Scorer
    progress: RunProgress

    def student(self, key: EncoderKey, attempt: int = 1, part: float = 1.0) -> Training:
        """The training of a cycle's student, from its original checkpoint or from its teacher's weights.

        `part` of its pairs are the pool's; those that are added do not lengthen it.
        """
        config = self.plan.config
        source = key._replace(cycle=0)
        if config.distillation.init == "sequential":
            teachers = {student: teacher for teacher, student in self.plan.half_cycles}
            source = EncoderKey.teacher(key.cycle, key.name, teachers[key.kind])
        encoder = self.plan.models[key.name].encoders[key.kind]
        factors = {"num_train_epochs": ATTEMPTS[attempt - 1] * part, "max_steps": ATTEMPTS[attempt - 1]}
        given = {name: encoder.training[name] for name in factors if encoder.training.get(name, -1) > 0}
        length = {name: factors[name] * value for name, value in given.items()}
        return Training(
            kind=key.kind,
            load=partial(load_run_encoder, self.plan, self.store, source, key.kind),
            values=run_arguments(config) | encoder.training | length,
            attempt=attempt,
            section=encoder.section,
            log_name=f"cycle-{key.cycle}/{key.name}/{key.kind}",
            lora=config.lora,
            **self._common(key),
        )

    def train_starts(self, after_stage: Callable[[], None]) -> None:
        """Train the bi-encoders that the PLMs' cycles start from, each once, where the run has a step 0.

        `after_stage` is called when a training's result is on the disk; it need not return.
        """
        if self.plan.config.step0 is None:
            return
        layout = self.store.layout
        _, sentences = SentenceManifest.load(layout.sentences)
        work = step0_work(self.plan, layout)
        for name in self.plan.models:
            training = self.step0(name)
            is_new = not training.is_done
            training.run(f"step 0 {name}: contrastive training", work, sentences)
            if is_new:
                after_stage()

    def step0(self, name: str) -> Training:
        """The contrastive training that makes the bi-encoder that a PLM's cycles start from."""
        plan, key = self.plan.models[name].step0, EncoderKey.start(name)
        assert plan is not None
        return contrastive_training(plan, self.plan.config, log_name=f"start/{name}", **self._common(key))

    def _common(self, key: EncoderKey) -> dict[str, Any]:
        config = self.plan.config
        return {
            "folder": self.store.encoder_path(key),
            "dev": self.scorer.gold.dev if self.plan.selector == "dev" else None,
            "metric": self.scorer.metric,
            "seed": training_seed(config.seed, key.cycle, key.kind, list(self.plan.models).index(key.name)),
            "progress": self.progress,
            "run_dir": self.store.layout.root,
        }
