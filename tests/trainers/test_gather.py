"""Two ranks with half a batch each train as one rank with the whole batch does; real processes over gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import run_two_ranks

RANK = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from te_trainer.losses import info_nce
from te_trainer.trainers.contrastive import gather_with_gradient

dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 8))
wrapped = DistributedDataParallel(model)
sentences = torch.randn(2, 8, 6)
found = {}
for both_views in (False, True):
    for ranks in (2, 1):
        model.zero_grad()
        mine = sentences.chunk(2, dim=1)[dist.get_rank()] if ranks == 2 else sentences
        one, two = (wrapped if ranks == 2 else model)(mine.flatten(0, 1)).chunk(2)
        all_one, own = gather_with_gradient(one) if ranks == 2 else (one, 0)
        all_two, _ = gather_with_gradient(two) if ranks == 2 else (two, 0)
        assert len(all_two) == 8 and own == (dist.get_rank() * 4 if ranks == 2 else 0)
        info_nce(one, all_two, 0.1, own, anchor_side=all_one if both_views else None).backward()
        found[both_views, ranks] = [weight.grad.clone() for weight in model.parameters()]
torch.save(found, Path(sys.argv[1], str(dist.get_rank())))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_give_the_gradient_of_one(tmp_path: Path) -> None:
    result = run_two_ranks(RANK, tmp_path, str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr
    for rank in "01":
        found = torch.load(tmp_path / rank)
        for both_views in (False, True):
            two, one = found[both_views, 2], found[both_views, 1]
            assert max(gradient.abs().max() for gradient in one) > 1e-2
            for ours, whole in zip(two, one, strict=True):
                torch.testing.assert_close(ours, whole, rtol=0, atol=1e-6)
