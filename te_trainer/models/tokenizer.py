"""A checkpoint's tokenizer: loaded, refused where it cannot read texts, and set up for its model."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any, cast

from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from te_trainer.config.types import Kind
from te_trainer.errors import first_line
from te_trainer.files.atomic import give_umask_mode
from te_trainer.files.records import write_json
from te_trainer.models.checkpoint_files import CheckpointFiles, refusal
from te_trainer.models.decoders import is_decoder, keep_backend, prepare_tokenizer
from te_trainer.models.limits import readable_columns

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "tokenizer.model",
    "bpe.codes",
    "tiktoken.model",
    "tekken.json",
)
# What a tokenizer may lose: merges of words, case, accents, digits, signs, emoji, other scripts.
TEXTS = (
    "How do I restart the router, and why does it always happen again?",
    "CRÈME brûlée costs 12,50 € at Zürich's CAFÉ (2022)!",
    "don’t “quote” @user, see https://example.org/a_b?c=1 … #trans-encoder 😀👍🏽",
    "Tôi là sinh viên trường đại học. Я живу в Москве. 東京都に住んでいます。我们喜欢猫。",
)
PADS_LEFT = {"xlnet"}  # its classifier reads the last column, its positions are relative


def read_tokenizer(
    files: CheckpointFiles, config: PretrainedConfig, trained_as: Kind | None, lower_case: bool, plain: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads, and frames sentences and pairs as its model has learnt or can learn to read them.

    `trained_as` is None for a plain PLM; `lower_case` is `do_lower_case` of sentence-transformers. `plain` says that
    by the checkpoint's files it reads plain texts, whatever template the tokenizer has.
    """
    present = [file for file in TOKENIZER_FILES if (files.folder / file).is_file()]
    if not present:
        # transformers would make an empty tokenizer of the model's type
        raise files.refusal("the folder holds no tokenizer (tokenizer.json); save the model's beside it")
    _refuse_missing_package(files, present)
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, trust_remote_code=False)
    except Exception as error:  # files of strangers make transformers and tokenizers raise many kinds
        reason = f"no tokenizer that can be loaded ({first_line(error)})"
        raise files.loading_failure(error, "tokenizer_config.json", reason) from None
    _refuse_unreadable_texts(tokenizer, files)
    if trained_as == "cross-encoder" and not plain and tokenizer.chat_template is not None:
        raise files.refusal(
            "its tokenizer has a chat template, by which sentence-transformers makes a chat of each pair, and "
            "te_trainer does not; remove the template (chat_template.jinja, or the key in tokenizer_config.json) if "
            "plain pairs are wanted"
        )
    if is_decoder(config):
        prepare_tokenizer(tokenizer, files.name, trained_as)
    elif tokenizer.num_special_tokens_to_add(pair=False) == 0:
        raise files.refusal(
            "its tokenizer puts no special tokens around a sentence, nor between two; save one with a post-processor "
            "that does"
        )
    if tokenizer.pad_token_id is None:
        raise files.refusal("its tokenizer has no padding token, without which sentences cannot be batched")
    if lower_case:
        _lower_case(tokenizer, files)
    fit_to_model(tokenizer, config)
    return tokenizer


def fit_to_model(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Let a tokenizer give what a model of this configuration can read, and pad where it expects padding."""
    # what others load of a saved tokenizer follows `init_kwargs`
    tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = readable_columns(config, tokenizer)
    # positions may be absolute, and are counted from the first column
    side = "left" if config.model_type in PADS_LEFT else "right"
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = side


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, **values: Any) -> None:
    """Save a tokenizer with other values of some of its attributes; the tokenizer keeps its own."""
    # one that an earlier saving has written, and this one may leave out
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    before = {name: getattr(tokenizer, name) for name in values}
    try:
        for name, value in values.items():
            setattr(tokenizer, name, value)
        tokenizer.save_pretrained(folder)
    finally:
        for name, value in before.items():
            setattr(tokenizer, name, value)
    if named := tokenizer.init_kwargs.get("tokenizer_class"):
        # transformers names the class of the object
        file = folder / "tokenizer_config.json"
        content = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": named}
        write_json(file, content, sort_keys=True, ensure_ascii=False)
    give_umask_mode(folder)


def refuse_lost_ids(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer that is not the same once it is saved: what it trains would read other tokens elsewhere.

    A fast one is saved whole; of one in Python, its class writes the vocabulary, and may lose some of it (BERTweet's
    does).
    """
    if getattr(tokenizer, "is_fast", False):
        return
    reason = "ids of texts differ"
    with tempfile.TemporaryDirectory() as folder:
        try:
            ids = tokenizer(list(TEXTS))["input_ids"]
            save_tokenizer(tokenizer, Path(folder))
            again = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if again(list(TEXTS))["input_ids"] == ids:
                return
        except Exception as error:  # each class has code of its own for its files
            reason = first_line(error)
    raise refusal(
        name,
        f"its tokenizer, a {type(tokenizer).__name__}, cannot be saved and read back the same ({reason}); start from "
        "another checkpoint, or from one with a tokenizer.json",
    )


def _lower_case(tokenizer: PreTrainedTokenizerBase, files: CheckpointFiles) -> None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise files.refusal("do_lower_case needs a fast tokenizer; save a tokenizer.json beside the model")
    before = backend.normalizer
    steps = list(cast(Any, before)) if isinstance(before, Sequence) else [before] if before is not None else []
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])
    keep_backend(tokenizer)


def _refuse_unreadable_texts(tokenizer: PreTrainedTokenizerBase, files: CheckpointFiles) -> None:
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or not longest >= 1:  # NaN is not, either
        raise files.refusal(
            f"model_max_length in tokenizer_config.json is {str(longest)[:60]!r}, where a number from 1 on is "
            "expected; correct the file"
        )
    try:
        tokens = tokenizer("a \N{SNOWMAN}", add_special_tokens=False)["input_ids"]
    except Exception as error:  # tokenizers raises nothing more definite
        raise files.refusal(f"its tokenizer cannot read every text ({first_line(error)})") from None
    if not tokens:
        raise files.refusal("its tokenizer makes no tokens of a text; save the model's own beside it")


def _refuse_missing_package(files: CheckpointFiles, present: list[str]) -> None:
    """Ask for the package that reads a vocabulary; transformers asks for another one where there is a choice."""
    if not all(file.endswith(".model") for file in present):
        return
    with (files.folder / present[0]).open("rb") as file:
        # SentencePiece's files are protocol buffers, whose first field has this tag; tiktoken's are lines of text
        package = "sentencepiece" if file.read(1) == b"\n" else "tiktoken"
    if importlib.util.find_spec(package) is None:
        raise files.refusal(f"its tokenizer ({present[0]}) needs the package {package}; pip install {package}")
