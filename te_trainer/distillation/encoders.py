"""The encoders of a run, loaded as what each is: a start, a student that trains, or a teacher that labels."""

from __future__ import annotations

from te_trainer.config.types import Kind
from te_trainer.distillation.plan import DistillationPlan
from te_trainer.errors import InputError
from te_trainer.models import BiEncoder, Checkpoint, CrossEncoder, Encoder, resolve_checkpoint
from te_trainer.models.bi_encoder import resolve_pooling
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.store import RunStore


def load_run_encoder(plan: DistillationPlan, store: RunStore, key: EncoderKey, kind: Kind | None = None) -> Encoder:
    """Load an encoder of a run.

    `kind` is what it becomes, by default its own kind; under `init: sequential` a student starts from a teacher of the
    other kind. Raises an InputError that says how to make the encoder again, where it is gone or damaged.
    """
    kind = kind or key.kind
    if not store.trains(key):
        return _load(plan, store, key.name, kind, plan.models[key.name].encoders[key.kind].start)
    store.check_encoder(key)
    try:
        return _load(plan, store, key.name, kind, str(store.encoder_path(key)))
    except InputError as error:
        again = store.how_to_train_again(key)
        raise InputError(f"{error}; delete {again['delete']()}, and {again['then']}") from None


def _load(plan: DistillationPlan, store: RunStore, name: str, kind: Kind, path: str | Checkpoint) -> Encoder:
    encoder = plan.models[name].encoders[kind]
    if kind == "cross-encoder":
        return CrossEncoder.from_pretrained(
            path, max_length=encoder.max_length, attn_implementation=encoder.attn_implementation
        )
    start_key = EncoderKey(0, name, kind)
    trains_start = store.trains(start_key)
    start = resolve_checkpoint(str(store.encoder_path(start_key))) if trains_start else encoder.start
    return BiEncoder.from_pretrained(
        path,
        pooling=resolve_pooling(start, encoder.pooling),
        max_length=encoder.max_length,
        prompt=encoder.prompt,
        layout=start.layout,
        from_cross_encoder=plan.config.distillation.init == "sequential",
        attn_implementation=encoder.attn_implementation,
    )
