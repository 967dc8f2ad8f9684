"""What of an encoder's folder is published, and what is not."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import transformers
from conftest import save_tiny
from transformers import set_seed

from te_trainer.errors import InputError
from te_trainer.hub.files import PUBLISHED, encoder_files
from te_trainer.models import BiEncoder, CrossEncoder


@pytest.fixture
def encoder(tiny: Path, tmp_path: Path) -> Path:
    """A bi-encoder's folder in a run's folder."""
    folder = tmp_path / "run" / "tiny" / "bi-encoder"
    BiEncoder.from_pretrained(str(tiny), pooling="mean").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_all_that_an_encoder_is_saved_as_is_published(kind: str, tmp_path: Path) -> None:
    plain = save_tiny(tmp_path / "plain", kind)
    set_seed(0)
    for name, encoder in (
        ("bi-encoder", BiEncoder.from_pretrained(str(plain), pooling="mean")),
        ("cross-encoder", CrossEncoder.from_pretrained(str(plain))),
    ):
        folder = tmp_path / "run" / "tiny" / name
        encoder.save_pretrained(folder)
        found = encoder_files(folder, tmp_path / "run")
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert set(found.published) == there and {"config.json", "model.safetensors", "tokenizer.json"} <= there
        assert not found.left_out


def test_what_is_no_file_of_a_checkpoint_is_left_out_and_named(encoder: Path, tmp_path: Path) -> None:
    before = encoder_files(encoder, tmp_path / "run").published
    left_out = [".env", "1_Pooling/notes.txt", "config.json.orig", "model.safetensors~", "optimizer.pt", "train.tsv"]
    left_out += ["pytorch_model.bin", "xmodel.safetensors", "scheduler.pt"]
    for name in [*left_out, "README.md"]:
        (encoder / name).write_text("secret", encoding="utf-8")
    for name in (".git", "checkpoint-3", "1_Pooling/model.safetensors"):
        (encoder / name).mkdir()
    (encoder / "checkpoint-3" / "model.safetensors").write_text("secret", encoding="utf-8")
    found = encoder_files(encoder, tmp_path / "run")
    assert found.published == before
    assert set(found.left_out) == {*left_out, ".git/", "checkpoint-3/", "1_Pooling/model.safetensors/"}


def test_the_vocabularies_of_all_tokenizers_are_published() -> None:
    modules = sorted(Path(transformers.__path__[0], "models").glob("*/tokenization_*.py"))
    names = set()
    for path in modules:
        try:
            module = importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")
        except (ImportError, NameError):  # it needs a package that is not installed
            continue
        names |= set(getattr(module, "VOCAB_FILES_NAMES", {}).values())
    assert len(names) > 15
    assert not {name for name in names if PUBLISHED.fullmatch(name) is None}


@pytest.mark.parametrize("name", ["vocab.txt", "notes.txt", "1_Pooling", "2_Dense", "bi-encoder", "tiny"])
def test_links_are_refused_by_name(name: str, encoder: Path, tmp_path: Path) -> None:
    """A file, a folder, the encoder's own folder, the PLM's folder; a link that leads nowhere as well."""
    path = {"bi-encoder": encoder, "tiny": encoder.parent}.get(name, encoder / name)
    outside = tmp_path / "outside"
    if path.exists():
        path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(InputError, match=r"is a link to .*outside, and nothing is published through links") as caught:
        encoder_files(encoder, tmp_path / "run")
    assert str(caught.value).startswith(str(path))


def test_the_folder_of_the_run_may_be_a_link(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "run")
    found = encoder_files(tmp_path / "link" / "tiny" / "bi-encoder", tmp_path / "link")
    assert found == encoder_files(encoder, tmp_path / "run")


def test_a_folder_outside_the_run_is_refused(encoder: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    root.mkdir()
    with pytest.raises(InputError, match="does not lie in"):
        encoder_files(root / ".." / "run" / "tiny" / "bi-encoder", root)
