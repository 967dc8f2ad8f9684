"""How a trainer's encoder is computed, in trainings and evaluations, and what is left of that when they end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from accelerate.utils import DynamoBackend

from te_trainer.models.packed import AttentionBackend, choose_backend, use_backend
from te_trainer.trainers.publishing import PublishingTrainer


class ComputingTrainer(PublishingTrainer):
    """A Trainer whose encoder computes with the fastest backend for its texts, within a block."""

    args: Any

    def _release(self) -> None:
        # accelerate leaves its autocast around the forward pass, and never prepares again what it has marked: the next
        # training would be in float32, and each of its processes on its own
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            self.accelerator.free_memory()
            self.model.__dict__.pop("_is_accelerate_prepared", None)

    @contextlib.contextmanager
    def _computation(self, training: bool = False) -> Iterator[None]:
        """The encoder's model as its backend computes it; a compiler is given the layers of one that packs."""
        backend, plugin = self._backend(), self.accelerator.state.dynamo_plugin
        before, compiler = plugin.backend, None
        if before != DynamoBackend.NO and not backend.computes_padding:
            # accelerate would compile the whole model
            compiler, plugin.backend = plugin.to_kwargs(), DynamoBackend.NO
        try:
            with use_backend(self.encoder.model, backend, training, compiler):
                yield
        finally:
            plugin.backend = before

    def _backend(self) -> AttentionBackend:
        compiled = self.accelerator.state.dynamo_plugin.backend != DynamoBackend.NO
        by_engine = compiled and (self.is_deepspeed_enabled or self.is_fsdp_enabled)
        return choose_backend(
            self.encoder.model,
            self.encoder.max_length,
            self.args.device,
            self.args.arithmetic,
            compiled=compiled,
            # noise depends on a sentence's padded length, and engines compile the whole model
            needs_padding=bool(self.args.neftune_noise_alpha) or by_engine,
            attention=self._attention,
        )

    @property
    def _attention(self) -> str | None:
        """The attention that the arguments name, or the encoder."""
        named: str | None = self.args.attn_implementation
        return self.encoder.attn_implementation if named is None else named
