"""What is said of errors of other libraries."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertConfig

from te_trainer.errors import first_line
from te_trainer.models.load_failures import why_no_model


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "ValueError"),
        ("It is so.\nAnd more of it", "It is so"),
        ("Validation error for 'x':\n\n    it is a text.\nsee there", "Validation error for 'x': it is a text"),
    ],
)
def test_the_first_line_says_what_is_wrong(message: str, said: str) -> None:
    assert first_line(ValueError(message)) == said


def test_a_lack_of_memory_or_of_permission_is_no_fault_of_a_configuration() -> None:
    folder, config = Path("model"), BertConfig()
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(type(error)):
            why_no_model(folder, config, error)
    refused = PermissionError(13, "Permission denied", "model/model.safetensors")
    assert why_no_model(folder, config, refused) == "model.safetensors may not be read; change its permissions"
