"""Decoder-only PLMs (GPT-2, Llama, Mistral, Qwen2 and their like) as encoders.

Their last token alone has read the whole text, so a text ends with EOS, whose vector is the sentence's. What is set
here is saved with the tokenizer and the configuration, so that every library reads a saved encoder the same way.
"""

from __future__ import annotations

from tokenizers.processors import TemplateProcessing
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from te_trainer.config.types import Kind
from te_trainer.models.checkpoint_files import refusal


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether the tokens of a model see only what comes before them."""
    made_so = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    return made_so or bool(getattr(config, "is_decoder", False))  # the latter of a BERT that is told to be one


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, trained_as: Kind | None = None) -> None:
    """Let a decoder's tokenizer pad, end a sentence with EOS, and write a pair as `s1 EOS s2 EOS`.

    A checkpoint that was `trained_as` a bi-encoder reads sentences as it learnt to, with EOS or without; a
    cross-encoder pairs.
    """
    if tokenizer.pad_token_id is None:
        # The head of a decoder reads the last token that is not padding: EOS, unless EOS is the padding.
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if trained_as == "cross-encoder":
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise refusal(name, "its tokenizer is a slow one, which cannot be set to end sentences; save a tokenizer.json")
    pair = tokenizer("a", "b")
    tokens, sides = pair.tokens(), pair.sequence_ids()
    one, two = ([index for index, side in enumerate(sides) if side == number] for number in (0, 1))
    before, between, after = tokens[: one[0]], tokens[one[-1] + 1 : two[0]], tokens[two[-1] + 1 :]
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    separated = any(token != bos or token == eos for token in between)
    if after and separated:
        return
    if eos is None:
        raise refusal(name, "its tokenizer has no EOS token, which the sentences of a decoder end with")
    end = after or [eos]
    first = [*before, "$A", *([] if separated else end), *between]
    sentence = tokenizer("a")
    text = [index for index, side in enumerate(sentence.sequence_ids()) if side == 0]
    around = sentence.tokens()[: text[0]], sentence.tokens()[text[-1] + 1 :]
    if trained_as is None:
        around = before, end
    special = sorted({*before, *between, *end, *around[0], *around[1]})
    backend.post_processor = TemplateProcessing(
        single=[*around[0], "$A", *around[1]],
        pair=[*first, "$B:1", *(f"{token}:1" for token in end)],
        special_tokens=[(token, backend.token_to_id(token)) for token in special],
    )
    keep_backend(tokenizer)


def keep_backend(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a tokenizer whose backend was changed be saved as one of the class that loads a backend as it is.

    Others (GPTNeoXTokenizer, BertTokenizer) make a normaliser or a post-processor of their own at each load.
    """
    tokenizer.init_kwargs["tokenizer_class"] = "PreTrainedTokenizerFast"
    # what its own class gives beside ids, another class need not
    tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)


def prepare_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a decoder its padding token, by which a classifier tells the last real one, and let it keep no cache."""
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
