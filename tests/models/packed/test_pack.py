"""A packed batch gives what the padded one gives, forward and backward; and dropout in attention is dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import sample_pairs
from torch import Tensor

from te_trainer.models import BiEncoder
from te_trainer.models.packed import use_backend
from te_trainer.models.packed.batches import ROW_MULTIPLE
from te_trainer.models.packed.dropout import cpu_dropout
from te_trainer.models.packed.pack import is_packing
from te_trainer.models.packed.packing import Packing
from te_trainer.models.packed.when_to_pack import PACKED
from te_trainer.models.precision import autocast

LENGTH = 100
MODELS = ["Bert", "DistilBert", "Roberta", "XLMRoberta", "Camembert", "Electra"]


def config(name: str, dropout: float = 0.0) -> Any:
    distilbert = {"hidden_dim": 64, "dropout": 0.0, "attention_dropout": dropout, "seq_classif_dropout": 0.0}
    return getattr(transformers, f"{name}Config")(
        **(distilbert if name == "DistilBert" else {}),
        vocab_size=100,
        hidden_size=32,
        embedding_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=2,
        num_labels=1,
        initializer_range=0.3,  # attention that looks at something
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=dropout,
    )


Two = Callable[..., tuple[Any, Any]]


@pytest.fixture
def two_of() -> Iterator[Two]:
    """The same weights twice: plain, and packed."""
    with ExitStack() as stack:

        def make(name: str, dropout: float = 0.0) -> tuple[Any, Any]:
            auto = getattr(transformers, f"{name}ForSequenceClassification")
            torch.manual_seed(0)
            plain = auto._from_config(config(name, dropout), attn_implementation="eager")
            packed = auto._from_config(config(name, dropout))
            packed.load_state_dict(plain.state_dict())
            stack.enter_context(use_backend(packed, PACKED))
            return plain, packed

        yield make


def batch(name: str, sentences: int, left: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sentences)
    lengths = torch.randint(1, LENGTH + 1, (sentences,), generator=generator)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    mask = mask.flip(1) if left else mask
    ids = torch.randint(5, 100, mask.shape, generator=generator)
    return {"input_ids": ids.where(mask == 1, torch.tensor(config(name).pad_token_id)), "attention_mask": mask}


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(
    ("name", "types"),
    [(name, types) for name in MODELS for types in (False, True) if not (types and name == "DistilBert")],
)
def test_outputs_and_gradients_are_those_of_the_padded_batch(two_of: Two, name: str, types: bool, left: bool) -> None:
    plain, packed = two_of(name)
    inputs = batch(name, 37, left)
    if left and name in {"Bert", "DistilBert", "Electra"}:
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    if types:
        inputs["token_type_ids"] = torch.arange(LENGTH).expand(37, -1) % 2
    for model in (plain, packed):
        model.train()
    if not left:  # a classifier reads the first column
        torch.testing.assert_close(packed(**inputs).logits, plain(**inputs).logits, atol=1e-5, rtol=1e-5)
    real = inputs["attention_mask"].unsqueeze(-1)
    weights = torch.randn(37, LENGTH, 32)
    hidden, found = {}, {}
    for model in (packed, plain):
        hidden[model] = model.base_model(**inputs).last_hidden_state * real
        (hidden[model] * weights).sum().backward()
        found[model] = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    torch.testing.assert_close(hidden[packed], hidden[plain], atol=1e-5, rtol=1e-5)
    assert len(found[packed]) > 30
    assert found[packed].keys() == found[plain].keys()
    # some are sums of what cancels out
    scale = max(float(value.abs().max()) for value in found[plain].values())
    for key, value in found[plain].items():
        torch.testing.assert_close(found[packed][key], value, atol=1e-6 * scale, rtol=1e-4, msg=key)


def test_a_batch_without_a_mask_and_one_of_a_single_token(two_of: Two) -> None:
    plain, packed = two_of("Bert")
    for ids in (torch.randint(5, 100, (3, 7)), torch.tensor([[5]])):
        torch.testing.assert_close(packed(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)


def test_arguments_may_come_by_position(two_of: Two) -> None:
    plain, packed = two_of("Roberta")
    inputs = batch("Roberta", 9)
    inputs["input_ids"][2, 0] = 1  # a text may hold what padding is made of
    found, expected = (model.base_model(*inputs.values()).last_hidden_state for model in (packed, plain))
    real = inputs["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(found * real, expected * real, atol=1e-5, rtol=1e-5)


def test_who_asks_for_more_gets_what_a_padded_batch_gives(two_of: Two) -> None:
    plain, packed = two_of("Bert")
    plain.set_attn_implementation("sdpa")
    inputs = batch("Bert", 9)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    words = plain.get_input_embeddings()(ids)
    asked: list[dict[str, Any]] = [
        {**inputs, "output_hidden_states": True},
        {"inputs_embeds": words, "attention_mask": mask},
        {"inputs_embeds": words},
        {"input_ids": ids, "attention_mask": (mask[:, None] * mask[:, :, None])[:, None].bool()},
    ]
    real = mask.unsqueeze(-1)
    for each in asked:
        found, expected = (model(**each) for model in (packed, plain))
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
        if "output_hidden_states" in each:
            assert len(found.hidden_states) == 3
            for one, two in zip(found.hidden_states, expected.hidden_states, strict=True):
                torch.testing.assert_close(one * real, two * real, atol=1e-5, rtol=1e-5)


def test_a_model_with_the_same_configuration_object_is_computed_as_ever(two_of: Two) -> None:
    _, packed = two_of("Bert")
    other = type(packed)(packed.config)
    expected = deepcopy(other)
    expected.set_attn_implementation("eager")
    inputs = batch("Bert", 9)
    torch.testing.assert_close(other(**inputs).logits, expected(**inputs).logits, atol=1e-5, rtol=1e-5)
    assert not is_packing(other)


def test_layers_that_are_computed_again_give_the_same_gradients(two_of: Two) -> None:
    _, packed = two_of("Bert", dropout=0.2)
    for module in packed.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.2
    packed.train()
    found, passes = [], []
    packed.bert.encoder.layer[0].attention.self.register_forward_hook(lambda *_: passes.append(1))
    for again in (False, True):
        if again:
            packed.gradient_checkpointing_enable()
        packed.zero_grad()
        torch.manual_seed(1)
        with cpu_dropout(packed):
            packed(**batch("Bert", 6)).logits.sum().backward()
        found.append(packed.bert.encoder.layer[0].attention.self.value.weight.grad)
    assert len(passes) == 3
    assert float(found[0].abs().max()) > 0
    torch.testing.assert_close(*found)


def test_no_sentence_sees_another(two_of: Two) -> None:
    _, packed = two_of("Bert")
    packed.eval()
    inputs = batch("Bert", 12)
    before = packed(**inputs).logits
    inputs["input_ids"][3] = 7
    after = packed(**inputs).logits
    changed = (before != after).flatten()
    assert changed.tolist() == [row == 3 for row in range(12)]


def test_padding_is_not_computed(two_of: Two) -> None:
    _, packed = two_of("Bert")
    seen: list[int] = []
    packed.bert.encoder.layer[1].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    inputs = batch("Bert", 37)
    packed(**inputs)
    real = int(inputs["attention_mask"].sum())
    assert real < seen[0] <= real + ROW_MULTIPLE < inputs["input_ids"].numel()


def test_rows_have_few_sizes() -> None:
    """Every size is compiled on its own, and what was compiled is kept."""
    masks = [batch("Bert", sentences)["attention_mask"] for sentences in range(1, 200)]
    sizes = {Packing(mask).row_length for mask in masks if mask.sum() < 1000}
    assert sizes <= set(range(ROW_MULTIPLE, 1000 + ROW_MULTIPLE, ROW_MULTIPLE))


def test_bfloat16_is_as_near_to_float32_as_the_plain_attention(two_of: Two) -> None:
    plain, packed = two_of("Bert")
    inputs = batch("Bert", 37)
    exact = plain(**inputs).logits
    with autocast(torch.device("cpu"), "bfloat16"):
        far = (plain(**inputs).logits - exact).abs().mean()
        near = (packed(**inputs).logits - exact).abs().mean()
    assert 0 < near <= 1.2 * far


def test_under_autocast_query_key_and_value_share_one_copy(two_of: Two) -> None:
    _, packed = two_of("Bert")
    attention = packed.base_model.encoder.layer[0].attention.self
    seen: list[Tensor] = []
    for part in (attention.query, attention.key, attention.value):
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with autocast(torch.device("cpu"), "bfloat16"):
        packed(**batch("Bert", 9))
    assert seen[0].dtype == torch.bfloat16
    assert seen[1] is seen[0] and seen[2] is seen[0]


def test_dropout_in_attention_keeps_the_expectation_and_follows_the_generator(two_of: Two) -> None:
    _, packed = two_of("Bert", dropout=0.5)
    inputs = {name: value[:, :12] for name, value in batch("Bert", 4).items()}
    inputs["attention_mask"][:] = 1
    layer: list[Tensor] = []
    packed.bert.encoder.layer[0].attention.self.register_forward_hook(
        lambda module, args, output: layer.append(output[0])
    )
    packed.eval()
    packed(**inputs)
    packed.train()
    for seed in (*range(500), 0):
        torch.manual_seed(seed)
        packed(**inputs)
    whole, dropped = layer[0][0, :48], torch.stack(layer[1:])[:, 0, :48]
    assert torch.equal(dropped[0], dropped[-1])
    assert not torch.equal(dropped[0], dropped[1])
    spread = dropped.std(0)
    assert float(spread.mean()) > 0.1
    # the mean of 500 draws lies within five of its standard errors
    assert bool(((dropped[:-1].mean(0) - whole).abs() <= 5 * spread / 500**0.5 + 1e-6).all())


def test_gradients_under_dropout_are_those_of_the_masks_that_were_drawn(two_of: Two) -> None:
    """Against finite differences in float64, with the same masks."""
    _, packed = two_of("Bert", dropout=0.3)
    packed.double().train()
    inputs = batch("Bert", 5)
    weight = packed.bert.encoder.layer[0].attention.self.query.weight

    def loss() -> Tensor:
        torch.manual_seed(3)
        return packed(**inputs).logits.sum()

    loss().backward()
    slope = float(weight.grad[2, 5])
    moved = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            weight[2, 5] += step
            moved.append(float(loss()))
    assert slope == pytest.approx((moved[0] - moved[1]) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_vectors_are_those_of_the_padded_batch(tiny: Path, pooling: Any) -> None:
    encoder = BiEncoder.from_pretrained(str(tiny), pooling=pooling)
    encoder.model.eval()
    texts = [text for pair in sample_pairs(20) for text in pair]
    inputs = encoder.tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    padded = encoder.embed(inputs["input_ids"], inputs["attention_mask"])
    with use_backend(encoder.model, PACKED):
        packed = encoder.embed(inputs["input_ids"], inputs["attention_mask"])
    torch.testing.assert_close(packed, padded, atol=1e-5, rtol=1e-5)


def test_a_batch_of_a_packed_row_is_no_view_of_it() -> None:
    """FSDP2 warns of views that a module returns, as if gradients were wrong."""
    row = torch.randn(1, Packing(torch.ones(2, 3)).row_length, 4, requires_grad=True)
    batch = Packing(torch.ones(2, 3)).unpack(row)
    assert batch.shape == (2, 3, 4) and not batch._is_view()
