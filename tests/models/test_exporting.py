"""The code in docs/exporting.md that takes a cross-encoder apart gives the same scores."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, sample_pairs
from sentence_transformers import CrossEncoder as SentenceTransformersCrossEncoder
from transformers import set_seed

from te_trainer.models import CrossEncoder


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_cross_encoder_of_modules_scores_as_before(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    set_seed(0)
    encoder = CrossEncoder.from_pretrained(models[kind])
    with torch.no_grad():
        for parameter in encoder.model.classifier.parameters():
            parameter.mul_(20)
    encoder.save_pretrained(tmp_path / "cross-encoder")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "Dense" in block)
    for name, folder in (("runs/tickets/bert/cross-encoder", "cross-encoder"), ("tickets-modular", "modular")):
        assert name in code
        code = code.replace(name, str(tmp_path / folder))
    exec(code, {})
    assert (tmp_path / "modular" / "modules.json").is_file()
    found, expected = (
        SentenceTransformersCrossEncoder(str(tmp_path / folder), device="cpu").predict(sample_pairs(64))
        for folder in ("modular", "cross-encoder")
    )
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)
