"""BERT's own pooler is no part of a sentence's vector, but of what others load: it is saved as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import build_tokenizer, labelled
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AlbertConfig, AlbertModel, AutoModel, BertConfig, BertForMaskedLM, PreTrainedModel

from te_trainer.models import BiEncoder, CrossEncoder
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments

NAMES = {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What transformers and sentence-transformers say, as they say it to their users."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    yield caplog
    transformers.logging.disable_propagation()
    transformers.logging.set_verbosity(before)


def save(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def silent(folder: Path, warnings: pytest.LogCaptureFixture) -> Any:
    warnings.clear()
    SentenceTransformer(str(folder), device="cpu")
    model = AutoModel.from_pretrained(folder)
    assert warnings.text == ""
    return model


def test_what_a_start_held_is_saved_and_loads_without_a_word(
    tiny: Path, tiny_roberta: Path, tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    albert = AlbertConfig(
        vocab_size=len(build_tokenizer()), hidden_size=16, num_attention_heads=2, intermediate_size=16
    )
    for start in (str(tiny), str(tiny_roberta), save(AlbertModel(albert), tmp_path / "albert")):
        held = load_file(Path(start, "model.safetensors"))
        encoder = BiEncoder.from_pretrained(start)
        assert not [name for name, _ in encoder.model.named_parameters() if "pooler" in name]
        again = tmp_path / "again" / Path(start).name
        encoder.save_pretrained(again)
        silent(again, warnings)
        found = load_file(again / "model.safetensors")
        assert found.keys() == held.keys()
        assert all(torch.equal(found[name], held[name]) for name in held)
    # the test does see what it is about
    encoder.pooler = {}
    encoder.save_pretrained(tmp_path / "without")
    AutoModel.from_pretrained(tmp_path / "without")
    assert "pooler" in warnings.text


def test_a_pooler_that_a_start_lacks_is_drawn_always_the_same(
    tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    config = BertConfig(
        vocab_size=len(build_tokenizer()),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    start = save(BertForMaskedLM(config), tmp_path / "start")
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(1)
        torch.manual_seed(seed)
        encoder = BiEncoder.from_pretrained(start)
        # whoever draws afterwards draws what they would have drawn
        assert torch.equal(torch.rand(1), expected)
        encoder.save_pretrained(tmp_path / str(seed))
        silent(tmp_path / str(seed), warnings)
        drawn.append(load_file(tmp_path / str(seed) / "model.safetensors"))
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in NAMES)


def test_a_trainer_saves_the_pooler_and_trains_none(
    tiny: Path, tmp_path: Path, warnings: pytest.LogCaptureFixture
) -> None:
    held = load_file(tiny / "model.safetensors")
    arguments = BiEncoderTrainingArguments(
        output_dir=str(tmp_path / "checkpoints"), max_steps=2, per_device_train_batch_size=4, report_to="none"
    )
    trainer = BiEncoderTrainer(BiEncoder.from_pretrained(str(tiny)), arguments, labelled(16))
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    silent(tmp_path / "saved", warnings)
    found = load_file(tmp_path / "saved" / "model.safetensors")
    assert found.keys() == held.keys()
    assert all(torch.equal(found[name], held[name]) for name in NAMES)
    assert not torch.equal(found["encoder.layer.0.output.dense.weight"], held["encoder.layer.0.output.dense.weight"])
    # the next training starts from the same, and so does a cross-encoder
    again = BiEncoder.from_pretrained(str(tmp_path / "saved"))
    cross = CrossEncoder.from_pretrained(str(tmp_path / "saved"))
    for name in NAMES:
        assert torch.equal(again.pooler[name], held[name])
        assert torch.equal(cross.model.state_dict()[f"bert.{name}"], held[name])
