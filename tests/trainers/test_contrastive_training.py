"""InfoNCE training of a bi-encoder: views, order, head, resuming."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sample_pairs
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny_trainings import At, Gradients, Killed, curve_of, kill, labelled, same, weights, without_dropout
from tiny_trainings import trainer_of as any_trainer_of
from torch import Tensor
from transformers import AutoModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from te_trainer.config.types import Pooling
from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.losses import info_nce
from te_trainer.models import BiEncoder
from te_trainer.trainers import BiEncoderTrainer
from te_trainer.trainers.checkpoint_mark import last_whole_checkpoint
from te_trainer.trainers.contrastive import (
    HEAD_NAME,
    ProjectionHead,
    SentenceViews,
    attach_head,
    drop_saved_head,
    mask_span,
)

COUNT, BATCH, EPOCH = 22, 4, 5  # sentences, sentences in a batch, whole batches in an epoch


def sentences(count: int = COUNT) -> Dataset:
    """The same sentence on both sides, no two pairs alike."""
    texts = list(dict.fromkeys(text for pair in sample_pairs(200) for text in pair))[:count]
    return Dataset.from_dict({"sentence1": texts, "sentence2": texts})


def trainer_of(encoder: BiEncoder | Path, output: Path, train: Dataset | None, dev: Any = None, **values: Any) -> Any:
    encoder = BiEncoder.from_pretrained(str(encoder)) if isinstance(encoder, Path) else encoder
    return any_trainer_of(encoder, output, train, dev, **{"loss": "info_nce", "warmup_steps": 0, **values})


def vectors(trainer: BiEncoderTrainer, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    outputs = trainer.outputs(trainer.encoder.model, batch)
    return outputs["embeddings1"], outputs["embeddings2"]


class Recording(BiEncoderTrainer):
    """Notes the token ids of each batch, without padding."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        rows = [tuple(ids[ids != 0].tolist()) for ids in inputs["input_ids"]]
        self.__dict__.setdefault("seen", []).append(rows)
        return super().compute_loss(model, inputs, *args, **kwargs)


def recording(base: type) -> type:
    return Recording


# ------------------------------------------------------------ order and views


def test_an_epoch_is_whole_batches_in_an_order_of_its_own(tiny: Path, tmp_path: Path) -> None:
    """22 sentences in batches of 4: five batches, and two sentences are left out, others in the next epoch."""
    trainer = trainer_of(tiny, tmp_path, sentences(), base=recording)
    trainer.train()
    batches = trainer.__dict__["seen"]
    assert [len(batch) for batch in batches] == [2 * BATCH] * (2 * EPOCH)
    for batch in batches:
        assert batch[:BATCH] == batch[BATCH:]
        assert len(set(batch)) == BATCH
    epochs = [[ids for batch in batches[start : start + EPOCH] for ids in batch[:BATCH]] for start in (0, EPOCH)]
    assert [len(set(epoch)) for epoch in epochs] == [20, 20]
    assert set(epochs[0]) != set(epochs[1])


def test_a_span_of_characters_becomes_a_mask() -> None:
    text = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"
    places = set()
    for row in range(200):
        masked = mask_span(text, 5, "[MASK]", np.random.default_rng((0, 0, row)))
        before, after = masked.split(" [MASK] ")
        assert len(before) + len(after) == len(text) - 5
        assert text.startswith(before)
        assert text.endswith(after)
        places.add(len(before))
    assert places == set(range(31))
    short = text[:29]
    assert mask_span(short, 5, "[MASK]", np.random.default_rng(0)) == short
    assert mask_span(text, 36, "[MASK]", np.random.default_rng(0)) == text


def test_masks_follow_from_seed_epoch_and_row(tiny: Path) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny))
    tokenizer, pairs = encoder.tokenizer, sentences(8)

    def second(seed: int, epoch: int) -> list[list[int]]:
        views = SentenceViews(pairs, encoder, span=5, seed=seed)
        rows = views.__getitems__([8 * epoch + row for row in range(8)])
        assert [row["input_ids1"] for row in rows] == [tokenizer(text)["input_ids"] for text in pairs["sentence1"]]
        assert rows[3] == views[8 * epoch + 3]
        return [row["input_ids2"] for row in rows]

    mask = tokenizer.mask_token_id
    assert all(mask in ids for ids in second(0, 0))
    assert second(0, 0) == second(0, 0)
    assert second(0, 0) != second(0, 1)
    assert second(0, 0) != second(1, 0)


def test_a_prompt_is_in_front_of_both_views_and_never_masked(tiny: Path) -> None:
    encoders = [BiEncoder.from_pretrained(str(tiny), prompt=prompt) for prompt in ("", "router router ")]
    plain, prompted = (SentenceViews(sentences(8), encoder, span=5) for encoder in encoders)
    router = encoders[0].tokenizer.convert_tokens_to_ids("router")
    for row in range(8):
        for side in ("input_ids1", "input_ids2"):
            assert prompted[row][side] == [plain[row][side][0], router, router, *plain[row][side][1:]]


def test_views_are_passed_to_data_workers_without_the_model(tiny: Path) -> None:
    """Those that are not forked get a pickle, which could not hold the head."""
    encoder = BiEncoder.from_pretrained(str(tiny))
    attach_head(encoder.model, seed=0)
    views = SentenceViews(sentences(), encoder, span=3)
    copied = pickle.dumps(views)
    assert len(copied) < 200_000 < sum(4 * weight.numel() for weight in encoder.model.parameters())
    assert pickle.loads(copied)[5] == views[5]


def test_dropout_makes_two_views_of_one_sentence(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny, tmp_path, sentences(8), per_device_train_batch_size=8)
    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    assert "labels" not in batch
    one, two = vectors(trainer, batch)
    assert (one - two).abs().max(dim=1).values.min() > 1e-3
    trainer.model.eval()
    one, two = vectors(trainer, batch)
    torch.testing.assert_close(one, two)


# ------------------------------------------------------------ loss


@pytest.mark.parametrize("both_views", [False, True])
def test_the_loss_is_info_nce_of_the_batch(both_views: bool, tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(
        tiny, tmp_path, sentences(8), per_device_train_batch_size=8, temperature=0.2, both_views=both_views, span=5
    )
    trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    one, two = vectors(trainer, batch)
    expected = info_nce(one, two, 0.2)
    if both_views:
        expected = (info_nce(one, two, 0.2, anchor_side=one) + info_nce(two, one, 0.2, anchor_side=two)) / 2
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("pooling", "values"),
    [("mean", {"learning_rate": 3e-3}), ("cls", {"learning_rate": 1e-2, "mlp_head": True})],
    ids=["mean", "head"],
)
def test_training_spreads_the_sentences(pooling: Pooling, values: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny), pooling=pooling)
    texts = sentences(16)["sentence1"][:]
    pairs = {"sentence1": texts[:-1], "sentence2": texts[1:]}
    before = score_pairs(encoder, pairs).mean()
    trainer_of(encoder, tmp_path, sentences(), num_train_epochs=8, **values).train()
    assert score_pairs(encoder, pairs).mean() < before - 0.2


def test_accumulated_batches_have_the_mean_of_their_gradients(tiny: Path, tmp_path: Path) -> None:
    """Not that of the whole: sentences of one do not meet those of another."""

    gradients = Gradients()
    encoder: Any = without_dropout(BiEncoder.from_pretrained(str(tiny)))
    trainer = trainer_of(
        encoder,
        tmp_path,
        sentences(17),
        callbacks=[gradients],
        span=5,
        gradient_accumulation_steps=4,
        max_steps=1,
        max_grad_norm=0.0,
        learning_rate=1e-12,
    )
    batches = list(trainer.get_train_dataloader())
    assert [len(batch["input_ids"]) for batch in batches] == [2 * BATCH] * 4
    trainer.train()
    encoder.model.zero_grad()
    for batch in batches:
        (info_nce(*vectors(trainer, batch), 0.05) / 4).backward()
    for name, weight in encoder.model.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(gradients.found[0][name], weight.grad, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------ head


def test_the_head_works_in_training_alone_and_learns(tiny: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {}

    class Look(TrainerCallback):
        def on_step_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
        ) -> None:
            model = kwargs["model"]
            head = getattr(model, HEAD_NAME)
            found.setdefault("first", head.dense.weight.detach().clone())
            found["last"] = head.dense.weight.detach().clone()
            batch = {"input_ids": torch.tensor([[2, 7, 8, 3]]), "attention_mask": torch.ones(1, 4)}
            model.train()
            assert model(**batch).last_hidden_state.abs().max() < 1
            model.eval()
            assert model(**batch).last_hidden_state.abs().max() > 1

    trainer = trainer_of(tiny, tmp_path, sentences(), mlp_head=True, seed=3, callbacks=[Look()])
    before = set(weights(trainer))
    trainer.train()
    assert torch.equal(found["first"], ProjectionHead(32, seed=3).dense.weight)
    assert not torch.equal(found["first"], found["last"])
    assert set(weights(trainer)) == before
    assert not trainer.encoder.model._forward_hooks


@pytest.mark.parametrize("plm", ["tiny", "tiny_roberta"])
def test_checkpoints_hold_the_head_and_the_saved_encoder_does_not(
    plm: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(plm)
    trainer = trainer_of(source, tmp_path, sentences(), mlp_head=True, save_strategy="epoch")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    plain = set(load_file(source / "model.safetensors"))
    saved = set(load_file(tmp_path / "saved" / "model.safetensors"))
    in_checkpoint = set(load_file(tmp_path / f"checkpoint-{EPOCH}" / "model.safetensors"))
    assert saved == plain
    assert in_checkpoint - saved == {f"{HEAD_NAME}.dense.weight", f"{HEAD_NAME}.dense.bias"}

    _, report = AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not report["missing_keys"]
    texts = sentences()["sentence1"][:6]
    loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    one, two = (loaded.encode(part, convert_to_tensor=True) for part in (texts[:3], texts[3:]))
    ours = score_pairs(trainer.encoder, {"sentence1": texts[:3], "sentence2": texts[3:]})
    np.testing.assert_allclose(ours, torch.cosine_similarity(one, two).numpy(), atol=1e-5)


def test_the_head_leaves_a_file_that_holds_it(tiny: Path, tmp_path: Path) -> None:
    """As an engine saves that cannot let go of the head (FSDP)."""
    encoder = BiEncoder.from_pretrained(str(tiny))
    encoder.save_pretrained(tmp_path / "plain")
    encoder.model.add_module(HEAD_NAME, ProjectionHead(32))
    encoder.save_pretrained(tmp_path / "with")
    assert any(HEAD_NAME in name for name in load_file(tmp_path / "with" / "model.safetensors"))
    drop_saved_head(tmp_path / "with")
    plain, left = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "with"))
    assert same(plain, left)
    AutoModel.from_pretrained(tmp_path / "with")


# ------------------------------------------------------------ dev set and resuming


def test_the_best_checkpoint_by_dev_is_kept(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny, tmp_path, sentences(), labelled(12), eval_steps=3, mlp_head=True)
    trainer.train()
    curve = curve_of(trainer)
    assert set(curve) == {3, 5, 6, 9, 10}
    best = max(curve, key=lambda step: curve[step])
    kept = load_file(tmp_path / f"checkpoint-{best}" / "model.safetensors")
    assert same(weights(trainer), {name: weight for name, weight in kept.items() if HEAD_NAME not in name})
    labels = np.array(labelled(12)["label"])
    assert trainer.metric(score_pairs(trainer.encoder, labelled(12)), labels) == pytest.approx(curve[best], abs=1e-6)


@pytest.mark.parametrize("values", [{"mlp_head": True}, {"span": 5, "both_views": True}], ids=["simcse", "mirror"])
def test_resuming_within_the_second_epoch_changes_no_bit(values: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    def make(name: str, *callbacks: TrainerCallback) -> Any:
        return trainer_of(
            tiny,
            tmp_path / name,
            sentences(),
            labelled(12),
            eval_steps=4,
            callbacks=list(callbacks),
            base=recording,
            **values,
        )

    whole = make("whole")
    whole.train()
    killed = make("killed", At(9, kill))
    with pytest.raises(Killed):
        killed.train()
    assert not killed.encoder.model._forward_hooks
    last = last_whole_checkpoint(tmp_path / "killed")
    assert last == str(tmp_path / "killed" / "checkpoint-8")
    set_seed(12345)
    resumed = make("killed")
    resumed.train(resume_from_checkpoint=last)
    assert resumed.__dict__["seen"] == whole.__dict__["seen"][8:]
    files = [tmp_path / name / "checkpoint-10" / "model.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert same(weights(resumed), weights(whole))


# ------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("count", "values", "message"),
    [
        (COUNT, {"mlp_head": True}, r"mlp_head: .*\[CLS\].*pooling is mean"),
        (3, {}, "has 3 pairs, and a batch 4; .*per_device_train_batch_size"),
        (COUNT, {"span": 5}, "no mask token"),
        (COUNT, {"span": -1}, "span: -1 is below 0"),
        (COUNT, {"temperature": -0.05}, "temperature: -0.05 is not above 0"),
        (COUNT, {"per_device_train_batch_size": 1}, "alone in its batch"),
        (COUNT, {"loss": "mse", "both_views": True}, "both_views: belongs to the loss info_nce, and loss is mse"),
    ],
)
def test_what_contrastive_training_cannot_do_is_refused(
    count: int, values: dict[str, Any], message: str, tiny: Path, tmp_path: Path
) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny), pooling="mean")
    encoder.tokenizer.mask_token = None
    with pytest.raises(InputError, match=message):
        trainer_of(encoder, tmp_path, sentences(count), **values)
