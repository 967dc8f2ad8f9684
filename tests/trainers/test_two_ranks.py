"""What two ranks do together in trainings; real processes over gloo, all of it in one launch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import run_ranks

RANK = """
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset, IterableDataset
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModel, AutoTokenizer, TrainerCallback

from te_trainer.errors import InputError
from te_trainer.losses import info_nce
from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments
from te_trainer.trainers.contrastive import gather_with_gradient

plm, output = sys.argv[1:]
values = {"output_dir": output, "save_strategy": "no", "per_device_train_batch_size": 4, "disable_tqdm": True}


def divide_a_stream():
    def pairs(rows=range(16)):
        # of many lengths: batches of the two ranks are not alike
        for row in rows:
            yield {"sentence1": "red " * (row + 1), "sentence2": f"{row} blue", "label": row / 16}

    seen = []

    class Recording(BiEncoderTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if model.training:
                seen.extend((16 * inputs["labels"]).int().tolist())
            return super().compute_loss(model, inputs, *args, **kwargs)

    args = BiEncoderTrainingArguments(max_steps=2, **values)
    dev = [dict(row) for row in pairs()]
    # as of sixteen files, which accelerate would share out
    stream = IterableDataset.from_generator(pairs, gen_kwargs={"rows": list(range(16))})
    assert stream.n_shards == 16
    trainer = Recording(plm, args, stream, dev)
    trainer.train()
    rank = trainer.args.process_index
    assert seen == ([0, 1, 2, 3, 8, 9, 10, 11] if rank == 0 else [4, 5, 6, 7, 12, 13, 14, 15]), seen
    assert [round(16 * label) for label in trainer.predict(dev).label_ids] == list(range(16))
    try:
        BiEncoderTrainer(plm, BiEncoderTrainingArguments(**values), dev[:1]).train()
    except InputError as error:
        assert str(error).startswith("train_dataset: 1 pairs are too few for 2 processes"), error
    else:
        raise AssertionError("a pair for two ranks is taken")


class Learnt(TrainerCallback):
    # the best ones, which all ranks load in the end, would always be the same
    def on_step_end(self, args, state, control, **kwargs):
        self.weights = {name: weight.clone() for name, weight in kwargs["model"].state_dict().items()}


def learn_together_after_an_evaluation():
    pairs = Dataset.from_dict(
        {"sentence1": [f"{i} red" for i in range(16)], "sentence2": [f"{i} blue" for i in range(16)],
         "label": [i / 16 for i in range(16)]}
    )
    learnt = Learnt()
    args = BiEncoderTrainingArguments(max_steps=3, learning_rate=1e-2, precision="bfloat16", **values)
    trainer = BiEncoderTrainer(plm, args, pairs, pairs, callbacks=[learnt])
    dtypes = []
    product = next(module for module in trainer.encoder.model.modules() if isinstance(module, torch.nn.Linear))
    product.register_forward_hook(lambda module, _, output: dtypes.append(output.dtype))
    for _ in range(2):
        trainer.evaluate()
        trainer.train()
        assert set(dtypes) == {torch.bfloat16}, dtypes
        torch.save(learnt.weights, f"{output}/{trainer.args.process_index}")
        trainer.accelerator.wait_for_everyone()
        one, two = (torch.load(f"{output}/{rank}") for rank in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one), "the ranks differ"
        trainer.accelerator.wait_for_everyone()


def give_the_gradient_of_one():
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
    torch.save(found, Path(output, f"gradients-{dist.get_rank()}"))


def leave_a_pooler_alone():
    # a model object has it on; with activation checkpointing, DDP is told to look for no weights without a gradient
    pairs = [{"sentence1": f"{i} red", "sentence2": f"{i} blue", "label": i / 16} for i in range(16)]
    tokenizer = AutoTokenizer.from_pretrained(plm)
    for checkpointing in (True, False):
        model = AutoModel.from_pretrained(plm)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        asked = {"activation_checkpointing": True} if checkpointing else {"ddp_find_unused_parameters": False}
        args = BiEncoderTrainingArguments(max_steps=3, **asked, **values)
        BiEncoderTrainer(model, args, pairs, processing_class=tokenizer).train()
        changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
        assert before.keys() - changed == {"pooler.dense.weight", "pooler.dense.bias"}, before.keys() - changed
        assert all(weight.requires_grad for weight in model.parameters())


divide_a_stream()
leave_a_pooler_alone()
learn_together_after_an_evaluation()
with warnings.catch_warnings():
    warnings.filterwarnings("error", message=".*deprecated")
    give_the_gradient_of_one()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_divide_a_stream_learn_together_and_give_the_gradient_of_one(
    models: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ranks.py").write_text(RANK, encoding="utf-8")
    result = run_ranks(tmp_path / "ranks.py", [models["bert"], str(tmp_path)])
    assert result.returncode == 0, result.stderr
    for rank in "01":
        found = torch.load(tmp_path / f"gradients-{rank}")
        for both_views in (False, True):
            two, one = found[both_views, 2], found[both_views, 1]
            assert max(gradient.abs().max() for gradient in one) > 1e-2
            for ours, whole in zip(two, one, strict=True):
                torch.testing.assert_close(ours, whole, rtol=0, atol=1e-6)
