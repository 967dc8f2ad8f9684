"""Which encoder of a run answers when the run's folder is named as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from te_trainer.errors import InputError
from te_trainer.runs.chosen_encoder import Use, choose_encoder

GOOD, WORSE = {"as_good_as_start": True}, {"as_good_as_start": False}


def write_results(root: Path, final: dict[str, Any], **more: Any) -> Path:
    (root / "results.json").write_text(json.dumps({"cycles": [], "final": final, **more}))
    return root


@pytest.mark.parametrize(
    ("use", "cross", "kind", "why"),
    [
        ("pairs", GOOD, "cross-encoder", "as good as the start"),
        ("pairs", WORSE, "bi-encoder", "cross-encoder is not known to be as good as the start"),
        ("pairs", None, "bi-encoder", "kept no cross-encoder"),
        ("sentences", GOOD, "bi-encoder", "vectors"),
        ("rerank", GOOD, "cross-encoder", "as good as the start"),
        ("rerank", WORSE, "cross-encoder", "not known to be as good as the start"),
    ],
)
def test_the_use_and_the_start_decide(use: Use, cross: Any, kind: str, why: str, tmp_path: Path) -> None:
    kept = {"bi-encoder": GOOD, **({} if cross is None else {"cross-encoder": cross})}
    encoder, reason = choose_encoder(write_results(tmp_path, {"bert": kept}), use, "model")
    assert encoder == tmp_path / "bert" / kind
    assert why in reason


def test_a_contrastive_run_has_one_encoder(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"start": {}, "final": {}}')
    (tmp_path / "bi-encoder").mkdir()
    (tmp_path / "bi-encoder" / "config.json").write_text("{}")
    assert choose_encoder(tmp_path, "pairs", "model")[0] == tmp_path / "bi-encoder"
    with pytest.raises(InputError, match=r"^rerank: .* holds no run with such an encoder"):
        choose_encoder(tmp_path, "rerank", "rerank")


def test_what_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^model: .* is not finished"):
        choose_encoder(tmp_path, "pairs", "model")
    write_results(tmp_path, {"bert": {"bi-encoder": GOOD}})
    with pytest.raises(InputError, match=r"^rerank: .* kept no cross-encoder"):
        choose_encoder(tmp_path, "rerank", "rerank")
    several = {"bert": {"bi-encoder": GOOD}, "roberta": {"bi-encoder": GOOD}, "ensemble": {"bi-encoder": {}}}
    write_results(tmp_path, several)
    with pytest.raises(InputError, match=f"has several models; name an encoder of {tmp_path}/bert, {tmp_path}/roberta"):
        choose_encoder(tmp_path, "pairs", "model")
