"""FSDP2 in one process of a CPU: accelerate's own function shards an encoder, as it does on GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, StateDictType

from te_trainer import CrossEncoder
from te_trainer.trainers.sharding import fit_fsdp2, gather_weights


@pytest.fixture(autouse=True)
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_is_sharded_and_its_logits_are_not_rounded(models: dict[str, str], kind: str) -> None:
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True
    )
    plugin.set_mixed_precision("bf16")
    assert plugin.state_dict_type == StateDictType.SHARDED_STATE_DICT
    encoder = CrossEncoder.from_pretrained(models[kind])
    types = set()
    layers = encoder.model.base_model.encoder.layer
    layers[0].intermediate.dense.register_forward_hook(lambda module, inputs, output: types.add(output.dtype))
    fit_fsdp2(plugin, encoder.model)
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert isinstance(plugin.state_dict_config, FullStateDictConfig)
    assert isinstance(plugin.optim_state_dict_config, FullOptimStateDictConfig)
    # the mean of several ranks' gradients is no number of 8 bits
    assert plugin.mixed_precision_policy.reduce_dtype == torch.float32
    accelerator: Any = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        mixed_precision="bf16",
        is_main_process=True,
        # on the CPU, also where there is a GPU
        torch_device_mesh=init_device_mesh("cpu", (1,), mesh_dim_names=("shards",)),
        parallelism_config=SimpleNamespace(fsdp_dim_names=("shards",)),
    )
    model = fsdp2_prepare_model(accelerator, encoder.model)
    ids = torch.tensor([[2, 7, 3], [2, 8, 3]])
    logits = encoder.logits(model, input_ids=ids, attention_mask=torch.ones_like(ids))
    logits.sum().backward()
    assert types == {torch.bfloat16}
    assert not torch.equal(logits, logits.bfloat16().float())
    assert all(type(layer).__name__.startswith("FSDP") for layer in layers)


def test_zero_3_saves_whole_weights() -> None:
    key = "stage3_gather_16bit_weights_on_model_save"
    for zero, expected in (({"stage": 3, key: False}, {"stage": 3, key: True}), ({"stage": 2}, {"stage": 2})):
        gather_weights(config := {"zero_optimization": zero})
        assert config["zero_optimization"] == expected
    gather_weights({})


def test_all_ranks_load_whole_models(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By accelerate's default, all but the first would get no weights that the checkpoint lacks: the new head's."""
    variables = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true", "LOCAL_RANK": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    model = CrossEncoder.from_pretrained(str(tiny)).model
    assert not any(weight.is_meta for weight in model.parameters())
