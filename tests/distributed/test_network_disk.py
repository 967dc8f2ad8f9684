"""Ranks on several machines, whose disk tells a machine for a while that what it has looked for is still not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import results_of, tiny_arguments
from forked import run_ranks, script_with

WITHOUT_GOLD = ("--distillation.selection", "auto", "--data.dev", "null", "--distillation.cycles", "1")
FROM_SENTENCES = ("--data.max_pairs", "null", "--mining.pairs", "64")
FROM_SENTENCES += ("--distillation.selection", "agreement", "--distillation.cycles", "1")


def script_of_two_machines(folder: Path, output: Path) -> Path:
    lines = ("import os", "if os.environ['RANK'] == '1':", "    from pathlib import Path")
    lines += ("    from network_disk import keep_what_is_not_there",)
    lines += (f"    keep_what_is_not_there(Path({str(output)!r}))",)
    return script_with(folder, *lines)


@pytest.mark.slow
@pytest.mark.parametrize("more", [WITHOUT_GOLD, FROM_SENTENCES], ids=["pairs", "sentences"])
def test_no_rank_but_the_first_looks_for_what_is_not_there_yet(
    more: Sequence[str], tiny: Path, few_gold: list[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = tiny_arguments(tiny, output, *few_gold, *more)
    if more is FROM_SENTENCES:
        section = "contrastive: {pooling: mean, method: simcse, mlp_head: false, max_steps: 2}\n"
        (tmp_path / "step0.yaml").write_text(section, encoding="utf-8")
        arguments += ["--data.sentences", arguments[3].strip("[]")]
        arguments[3] = "[]"
        arguments += ["--distillation.step0", str(tmp_path / "step0.yaml")]
    script = script_of_two_machines(tmp_path, output)
    for _ in range(2):  # done, and found to be finished
        done = run_ranks(script, arguments)
        assert done.returncode == 0, done.stderr
    assert results_of(output)["final"]["tiny"]
