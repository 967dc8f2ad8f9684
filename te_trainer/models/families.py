"""Families of models that transformers knows, but whose scores would be wrong here."""

from __future__ import annotations

from typing import Any

from transformers import MODEL_MAPPING, PretrainedConfig

from te_trainer.errors import InputError

# Padding changes their vectors, whatever the attention mask says: they mix tokens by a convolution, a Fourier
# transform, random hashes or pooling.
READ_PADDING = {"canine", "convbert", "fnet", "funnel", "reformer", "yoso"}
MORE_THAN_TEXT = {"bros", "layoutlmv2", "layoutlmv3", "lilt", "lxmert", "markuplm", "tapas"}


def check_family(name: str, config: PretrainedConfig) -> None:
    """Refuse families whose score of a pair depends on its batch, or that need more than text.

    Raises:
        InputError: names the family.
    """
    family = config.model_type
    model_class: Any = MODEL_MAPPING[type(config)]
    # else it needs padding to a multiple of its segments
    whole_attention = getattr(config, "num_landmarks", 0) == getattr(config, "segment_means_seq_len", 0)
    if family in READ_PADDING or not whole_attention:
        raise InputError(
            f"model {name}: a {family} reads padding, so that the score of a pair would depend on its batch; start "
            "from another model"
        )
    if family == "xmod" and config.default_language is None:
        raise InputError(
            f"model {name}: an xmod reads texts of the language that default_language in config.json names, and it "
            "names none; set it"
        )
    if family in MORE_THAN_TEXT or model_class.main_input_name != "input_ids":
        raise InputError(f"model {name}: a {family} reads more or other things than text; start from another model")
