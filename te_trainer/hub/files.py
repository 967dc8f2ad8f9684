"""Which files of an encoder's folder are published: those of a checkpoint, and nothing else that may lie there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from te_trainer.errors import InputError
from te_trainer.runs.layout import ADAPTER

# Paths as transformers, sentence-transformers and peft name what they write; weights as safetensors alone, since other
# formats may hold code.
WEIGHTS = r"model\.safetensors(\.index\.json)?|model-\d+-of-\d+\.safetensors"
TOKENIZER = (
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.jinja|"
    r"vocab\.(txt|json|bpe)|merges\.txt|bpe\.codes|(tokenizer|spiece|spm|spm_char|sentencepiece(\.bpe)?|tiktoken)\.model|"
    # of single families
    r"vocab-(src|tgt)\.json|(source|target)\.spm|dict\.txt|prophetnet\.tokenizer|"
    r"(byte_maps|emoji|entity_vocab|normalizer|target_vocab|tekken|word_pronunciation|word_shape)\.json"
)
LAYOUT = r"modules\.json|sentence_[a-z0-9-]+_config\.json|config_sentence_transformers\.json"
MODULE = r"\d+_[A-Za-z]+"  # a folder of sentence-transformers
PUBLISHED = re.compile(
    rf"({MODULE}/)?(config\.json|generation_config\.json|{WEIGHTS}|{TOKENIZER}|{LAYOUT})"
    rf"|{ADAPTER}/(adapter_config\.json|adapter_model\.safetensors)",
    re.ASCII,
)
SUBFOLDER = re.compile(rf"{ADAPTER}|{MODULE}", re.ASCII)
REPLACED = {"README.md", f"{ADAPTER}/README.md"}  # a model card of ours takes its place


class EncoderFiles(NamedTuple):
    """Paths within an encoder's folder: those that make a checkpoint are published, the others are left out."""

    published: list[str]
    left_out: list[str]


def encoder_files(encoder: Path, root: Path) -> EncoderFiles:
    """Tell the files that are published from those that are not; refuses links, but for the run's folder `root`."""
    if root in encoder.parents:
        for folder in [encoder, *encoder.parents[: encoder.parents.index(root)]]:
            _refuse_link(folder)
    if not encoder.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{encoder} does not lie in {root}, so it is not published")
    files = EncoderFiles([], [])
    pending = sorted(encoder.iterdir())
    while pending:
        path = pending.pop(0)
        _refuse_link(path)
        name = path.relative_to(encoder).as_posix()
        if path.is_dir() and SUBFOLDER.fullmatch(name):
            pending = sorted(path.iterdir()) + pending
        elif path.is_file() and PUBLISHED.fullmatch(name):
            files.published.append(name)
        elif name not in REPLACED:
            files.left_out.append(name + "/" * path.is_dir())
    return files


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(
            f"{path} is a link to {path.readlink()}, and nothing is published through links; put the file or folder "
            "itself there, or remove the link"
        )
