"""Whether a model can be computed with the attention that its user names."""

from __future__ import annotations

from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from te_trainer.compat import attention_of
from te_trainer.distributed import device_type
from te_trainer.errors import InputError, first_line
from te_trainer.models.packed import AttentionBackend, use_backend
from te_trainer.models.packed.pack import PACKED_NAMES
from te_trainer.models.packed.packable import transformers_model

DROPOUT_KEYS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")  # of models' configurations


def check_attention(
    model: nn.Module, name: str | None, key: str, *, trains: bool = False, device: str | None = None
) -> None:
    """Refuse the name of an attention that cannot be used; None is no name.

    A kernel of the Hub is downloaded now, and for other names nothing is.

    Args:
        model: It may be on the device `meta`, and stays what it is.
        key: Of the configuration, for the error.
        trains: Whether the model is trained with it.
        device: Type of the device that computes. Default: this process's.
    """
    plain = transformers_model(model)
    if name is None or plain is None:
        return
    reason = _why_not(plain, name, trains, device or device_type())
    if reason is not None:
        raise InputError(
            f"{key}: '{name}' cannot be used for {type(plain).__name__} ({reason}); name another, such as sdpa or "
            "eager, or leave the key out"
        )


def _why_not(model: PreTrainedModel, name: str, trains: bool, device: str) -> str | None:
    # those with a bar generate texts, and those of te_trainer fit some models and texts
    registered = (each for each in AttentionInterface().valid_keys() if "|" not in each and each not in PACKED_NAMES)
    known = sorted({"eager", *registered})
    if name not in known and "/" not in name:
        return f"known are {', '.join(known)}, and kernels of the Hub as OWNER/NAME"
    # on a CPU flex_attention has no backward pass, is compiled for each shape of a batch, and was seen to give NaN
    if name.startswith(("flash_attention_", "flex_attention")) and device == "cpu":
        return "it needs a GPU"
    if name == "flex_attention" and trains:
        for dropout in DROPOUT_KEYS:
            if getattr(model.config, dropout, 0):
                return f"it has no dropout, and {dropout} in the model's config.json is not 0"
    before = attention_of(model.config)
    try:
        with use_backend(model, AttentionBackend(name)):
            # transformers warns where it cannot set one
            is_set = name == before or attention_of(model.config) != before
    except Exception as error:  # whatever the Hub, a kernel or a package raises
        return first_line(error).partition(" Please request")[0].rstrip(".")
    return None if is_set else f"its attention is {before} and no other"
