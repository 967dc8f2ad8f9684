"""How much memory is said to be needed, against what torch really keeps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from te_trainer.config.commands import parse
from te_trainer.distillation.costs import describe_memory
from te_trainer.distillation.plan import DistillationPlan, make_plan
from te_trainer.runs.memory import activation_bytes, describe_gpus


def plan_of(plm: Path, *more: str) -> DistillationPlan:
    return make_plan(parse(["--models", f"[{{bi_encoder: {plm}, name: bert}}]", "--data.pool", "pairs.tsv", *more]), 1)


@pytest.fixture(scope="module")
def plm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plm")
    config = BertConfig(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512)
    config.save_pretrained(folder)
    save_file({"one": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def test_activations_are_those_that_torch_keeps(plm: Path) -> None:
    more = ("--bi_encoder.max_length", "24", "--bi_encoder.per_device_train_batch_size", "32")
    plan = plan_of(plm, *more)
    config = plan.models["bert"].encoders["bi-encoder"].start.config
    model = BertModel(config).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.ones(2 * 32, 24, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # alive until its tensors are counted
        output = model(input_ids=ids).last_hidden_state
    assert output.requires_grad
    said = activation_bytes(config, 2 * 32, 24)
    assert said == pytest.approx(sum(kept.values()), rel=0.25)
    assert describe_memory(plan)[1].endswith(f", and {said / 1e9:.2f} GB for a batch of texts of full length")


def test_lines_count_what_is_trained(plm: Path) -> None:
    parameters = sum(weight.numel() for weight in BertModel(BertConfig.from_pretrained(plm)).parameters())
    cross, bi = describe_memory(plan_of(plm))
    assert cross.startswith(f"bert: training a cross-encoder takes about {16 * parameters / 1e9:.2f} GB of memory")
    assert bi.startswith("bert: training a bi-encoder takes about")
    adapters = describe_memory(plan_of(plm, "--lora.rank", "4"))[0]
    assert f"about {4 * parameters / 1e9:.2f} GB" in adapters


def test_gpus_that_stay_idle_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("te_trainer.runs.memory.device_type", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))
    for devices in (1, 8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=devices: count)
        lines = describe_gpus()
        assert lines[0] == "The GPU has 80.0 GB"
        assert (len(lines) == 2 and "one of 8 GPUs" in lines[1]) == (devices == 8)
