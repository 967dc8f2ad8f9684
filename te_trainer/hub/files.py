"""Which files of an encoder's folder are published: those of a checkpoint, and nothing else that may lie there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from te_trainer.errors import InputError

# Paths as transformers, sentence-transformers and peft name what they write; weights as safetensors alone, since other
# formats may hold code.
WEIGHTS = r"model\.safetensors(\.index\.json)?|model-\d+-of-\d+\.safetensors"
TOKENIZER = (
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|chat_template\.jinja|"
    r"vocab\.(txt|json|bpe)|merges\.txt|bpe\.codes|(tokenizer|spiece|spm|sentencepiece\.bpe)\.model"
)
LAYOUT = r"modules\.json|sentence_[a-z0-9-]+_config\.json|config_sentence_transformers\.json"
CHECKPOINT = rf"config\.json|generation_config\.json|{WEIGHTS}|{TOKENIZER}|{LAYOUT}"
PUBLISHED = re.compile(
    rf"(\d+_[A-Za-z]+/)?({CHECKPOINT})|adapter/(adapter_config\.json|adapter_model\.safetensors)", re.ASCII
)
REPLACED = {"README.md", "adapter/README.md"}  # a model card of ours takes its place


@dataclass(frozen=True)
class EncoderFiles:
    """The files of an encoder's folder, as paths within it.

    Args:
        published: what a checkpoint consists of.
        left_out: other files and folders.
    """

    published: list[str]
    left_out: list[str]


def encoder_files(folder: Path, root: Path) -> EncoderFiles:
    """Tell the files that are published from those that are not.

    Args:
        folder: of the encoder, in the run's folder `root`.

    Raises:
        InputError: the folder, or something in it, is a link.
    """
    # the run's folder itself may be a link
    for path in [folder, *folder.parents]:
        if path == root:
            break
        _refuse_link(path)
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{folder} does not lie in {root}, so it is not published")
    published: list[str] = []
    left_out: list[str] = []
    _sort(folder, folder, published, left_out)
    return EncoderFiles(published, left_out)


def _sort(folder: Path, encoder: Path, published: list[str], left_out: list[str]) -> None:
    for path in sorted(folder.iterdir()):
        _refuse_link(path)
        name = path.relative_to(encoder).as_posix()
        if path.is_dir() and (name == "adapter" or re.fullmatch(r"\d+_[A-Za-z]+", name, re.ASCII)):
            _sort(path, encoder, published, left_out)
        elif path.is_file() and PUBLISHED.fullmatch(name):
            published.append(name)
        elif name not in REPLACED:
            left_out.append(name + "/" * path.is_dir())


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(
            f"{path} is a link to {path.readlink()}, and nothing is published through links; put the file or folder "
            "itself there, or remove the link"
        )
