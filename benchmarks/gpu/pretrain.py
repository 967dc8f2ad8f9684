"""Pre-train a small BERT on raw text alone: a plain PLM that has seen no label, for measuring the method.

    python benchmarks/gpu/pretrain.py --corpus corpus.txt.xz --output plm --seconds 300        # on one GPU
    python benchmarks/gpu/pretrain.py --corpus corpus.txt.xz --output plm --seconds 30 --tiny  # on a CPU, to see it run

It learns masked tokens (BERT) and the order of two segments: next, previous, from elsewhere (StructBERT). The learning
rate follows the clock, so that a run keeps to its seconds. Writes a folder that `AutoModel` and `AutoTokenizer` load,
in shards of at most 14 MB, and `pretrain.json` with tokens, steps and losses.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import read_sentences
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import BertConfig, BertForPreTraining, PreTrainedTokenizerFast

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
PAD, UNK, CLS, SEP, MASK = range(5)
LENGTH = 128
SEGMENT = LENGTH // 2 - 2  # tokens of one segment, at most
WARM_UP = 0.08


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="a sentence a line, .txt or .txt.xz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300, help="of training; reading and compiling come on top")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=16_000)
    parser.add_argument("--batch", type=int, default=512, help=f"sequences of {LENGTH} tokens")
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--mask", type=float, default=0.2, help="fraction of the tokens that are masked")
    parser.add_argument("--seed", type=int, default=2021)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="two narrow layers, few sentences")
    args = parser.parse_args()
    if args.tiny:
        args.layers, args.hidden, args.vocabulary, args.batch = 2, 64, 2_000, 16
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")

    began = time.monotonic()
    sentences = read_sentences(args.corpus, 20_000 if args.tiny else None)
    tokenizer = learn_vocabulary(sentences, args.vocabulary)
    text = TokenisedText(tokenizer, sentences)
    print(f"{len(sentences):,} sentences, {len(text.tokens):,} tokens in {time.monotonic() - began:.0f} s", flush=True)
    model, training = pretrain(text, tokenizer.get_vocab_size(), args)

    # no dropout in a few passes over the text; what trains the saved model needs it (SimCSE learns from nothing else)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
    model.eval().to("cpu", torch.float16).save_pretrained(args.output, max_shard_size="14MB")
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, model_input_names=inputs, **SPECIAL
    ).save_pretrained(args.output)
    settings = {key: str(value) for key, value in vars(args).items()}
    (args.output / "pretrain.json").write_text(
        json.dumps({"settings": settings, "training": training}, indent=1) + "\n"
    )


def pretrain(text: TokenisedText, vocabulary: int, args: argparse.Namespace) -> tuple[BertForPreTraining, list[Any]]:
    """Train until the seconds are over; give the model and some forty records of the training."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu, rng = device.type == "cuda", np.random.default_rng(args.seed)
    model = BertForPreTraining(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=args.hidden,
            num_hidden_layers=args.layers,
            num_attention_heads=max(1, args.hidden // 64),
            intermediate_size=4 * args.hidden,
            pad_token_id=PAD,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).to(device)
    order_head = nn.Linear(args.hidden, 3).to(device)
    weights = [*model.parameters(), *order_head.parameters()]
    print(f"{sum(weight.numel() for weight in weights) / 1e6:.1f} M parameters on {device}", flush=True)
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": 0.01},
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98), fused=on_gpu)
    encoder = torch.compile(model.bert) if args.compile else model.bert

    model.train()
    began, step, logged, records = time.monotonic(), 0, 0.0, []
    while (spent := time.monotonic() - began) < args.seconds:
        done = spent / args.seconds
        cosine = 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * (done / WARM_UP if done < WARM_UP else cosine)
        batch = (torch.from_numpy(array).to(device, non_blocking=True) for array in text.batch(args.batch, rng))
        ids, types, orders = batch
        masked = (torch.rand(ids.shape, device=device) < args.mask) & (ids > MASK)
        draw = torch.rand(ids.shape, device=device)
        shown = torch.where(masked & (draw < 0.8), MASK, ids)
        shown = torch.where(masked & (draw > 0.9), torch.randint_like(ids, MASK + 1, vocabulary), shown)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=on_gpu):
            output = encoder(input_ids=shown, attention_mask=(ids != PAD).long(), token_type_ids=types)
            logits = model.cls.predictions(output.last_hidden_state[masked])
            token_loss = nn.functional.cross_entropy(logits.float(), ids[masked])
            order_loss = nn.functional.cross_entropy(order_head(output.pooler_output).float(), orders)
        (token_loss + order_loss).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step == 1:  # the compiler's seconds do not belong to the schedule
            print(f"first step after {time.monotonic() - began:.0f} s", flush=True)
            began = time.monotonic()
        if step == 1 or spent - logged > args.seconds / 40:
            logged, losses = spent, {"mlm": round(token_loss.item(), 4), "order": round(order_loss.item(), 4)}
            records.append({"step": step, "seconds": round(spent, 1), "tokens": step * ids.numel(), **losses})
            print(records[-1], flush=True)
    return model, records


def learn_vocabulary(sentences: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(SPECIAL.values()), show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer, length=len(sentences))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


class TokenisedText:
    """All tokens in a row; sentence i is `tokens[starts[i]:ends[i]]`."""

    def __init__(self, tokenizer: Tokenizer, sentences: list[str]) -> None:
        parts = []
        for begin in range(0, len(sentences), 50_000):
            encoded = tokenizer.encode_batch_fast(sentences[begin : begin + 50_000], add_special_tokens=False)
            parts += [np.array(entry.ids[:LENGTH], dtype=np.uint16) for entry in encoded]
        self.tokens = np.concatenate(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        self.starts = self.ends - [len(part) for part in parts]

    def batch(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids and token types of sequences [CLS] A [SEP] B [SEP], int64, shape (size, LENGTH), and orders, (size,).

        An order is 0 where B follows A, 1 where it precedes it, 2 where it is from elsewhere.
        """
        ids, types = np.zeros((2, size, LENGTH), dtype=np.int64)
        orders = rng.integers(0, 3, size)
        # short texts are what is compared later: a third of the sequences is two single sentences
        lengths = np.where(rng.random(size) < 0.33, 1, SEGMENT)
        firsts, others = rng.integers(0, len(self.starts) - 16, (2, size))
        for row in range(size):
            one, next_sentence = self.segment(firsts[row], lengths[row])
            two, _ = self.segment(others[row] if orders[row] == 2 else next_sentence, lengths[row])
            if orders[row] == 1:
                one, two = two, one
            one, two = one[:SEGMENT], two[: SEGMENT + 1]
            middle, end = len(one) + 2, len(one) + len(two) + 3
            ids[row, :end] = [CLS, *one, SEP, *two, SEP]
            types[row, middle:end] = 1
        return ids, types, orders

    def segment(self, first: int, length: int) -> tuple[np.ndarray, int]:
        """Whole sentences, at most eight, until they have so many tokens; and the sentence after them."""
        last = first
        while self.ends[last] - self.starts[first] < length and last - first < 7:
            last += 1
        return self.tokens[self.starts[first] : self.ends[last]], last + 1


if __name__ == "__main__":
    main()
