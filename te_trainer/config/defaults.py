"""Every default that is the paper's (Trans-Encoder, Table 16), of its code where the table is silent, or of step 0."""

from __future__ import annotations

from typing import Any

CYCLES = {"sts": 3, "binary": 5}
# Where health chooses. From given pairs both kinds of encoders of the second were better than those of the first, and a
# third made bi-encoders worse again; from pairs that were all mined the second made both worse (docs/selection.md).
CYCLES_WITHOUT_GOLD = 2
CYCLES_OF_MINED_PAIRS = 1

# Seconds that processes wait for one that works alone: twelve hours. The longest such work is tokenising a pool of ten
# million pairs in both orders. One core of an x86 server takes 35 minutes with a tokenizer in Rust (MiniLM's, 11 words
# a sentence); tokenizers in Python take about ten times as long. Torch's own limits are 10 minutes on GPUs, 30 on CPUs.
DDP_TIMEOUT = 43_200

# Where our trainers differ from transformers, whatever the task.
TRAINER_DEFAULTS: dict[str, Any] = {
    "eval_steps": 200,  # the official code evaluates every 200 steps
    "per_device_eval_batch_size": 128,
    "logging_steps": 50,
    # The trainers watch the loss themselves; this filter would hide what they look for.
    "logging_nan_inf_filter": False,
}


def paper_arguments(kind: str, task: str, size: str = "base") -> dict[str, Any]:
    """Training arguments of one half-cycle as the paper has them.

    Batch sizes are global ones. Warm-up and weight decay are the official code's (sentence-transformers 2.0): the
    cross-encoder warms up over a tenth of its steps, the bi-encoder not at all.
    """
    is_cross = kind == "cross-encoder"
    epochs = {"sts": (10, 1), "binary": (15, 3)}
    return {
        "learning_rate": 2e-5 if is_cross else 5e-5,
        "per_device_train_batch_size": 32 if is_cross else 128 if size == "base" else 64,
        "num_train_epochs": epochs[task][is_cross],
        "warmup_steps": 0.1 if is_cross else 0,
        "weight_decay": 0.01,
    }


# A smaller model wants larger steps, and a small pool larger and more of them, or a cross-encoder learns little: see
# docs/method.md. At the sizes of the paper's main tables all functions give the paper's values; the recipes of its
# smaller pools name them.
PAPER_HIDDEN_SIZE, PAPER_LAYERS = 768, 12  # of BERT-base
LARGEST_LEARNING_RATE = 1e-4
LEAST_STEPS, MOST_EPOCHS = 200, 5
# Of MRPC's 5,801 pairs in both orders, 3 epochs, batches of 32: the shortest training of the paper's main tables.
# SICK-R alone and the smallest pool of its Fig. 5 make some 620 steps, with the same learning rate.
ENOUGH_STEPS = 1089
RAISED_LEARNING_RATE = 5e-5  # the most to which few steps raise it; larger ones were tried with these layers alone
FEW_LAYERS = 6


def fitted_learning_rate(paper: float, hidden_size: int) -> float:
    """The cross-encoder's learning rate for a model of this hidden size."""
    factor = max(1.0, (PAPER_HIDDEN_SIZE / hidden_size) ** 2)
    return max(paper, min(paper * factor, LARGEST_LEARNING_RATE))


def raised_learning_rate(rate: float, hidden_size: int, layers: int, steps: float) -> float:
    """The cross-encoder's learning rate where so few steps are too few for `rate`, but not of large models."""
    if hidden_size > PAPER_HIDDEN_SIZE:
        return rate
    most = LARGEST_LEARNING_RATE if layers <= FEW_LAYERS else RAISED_LEARNING_RATE
    return max(rate, min(rate * ENOUGH_STEPS / steps, most))


def fitted_epochs(paper: float, pairs: int, batch_size: int) -> float:
    """The cross-encoder's epochs for a pool.

    Args:
        paper: Epochs for the paper's pools.
        pairs: Pairs that an epoch goes through, both orders counted.
        batch_size: Pairs in a batch of all processes.
    """
    return max(paper, min(-(-LEAST_STEPS * batch_size // pairs), MOST_EPOCHS))


# Training arguments of step 0 as the methods' authors have them. Batch sizes are global ones.
#
# SimCSE (Gao et al. 2021, unsupervised, BERT-base): batch size and learning rate from the table "Hyperparameters" of
# the README of princeton-nlp/SimCSE, the rest from its run_unsup_example.sh (a million sentences of Wikipedia, one
# epoch, no warm-up, no weight decay). Values for other PLMs are in recipes/contrastive.
#
# Mirror-BERT (Liu et al. 2021, sentences): mirror_scripts/mirror_sentence_roberta.sh and train.py of
# cambridgeltl/mirror-bert: 10,000 sentences, one epoch, a constant learning rate, both views as anchors (NT-Xent),
# five characters masked. Its drophead variant is not among these.
_BOTH = {"num_train_epochs": 1, "warmup_steps": 0, "eval_steps": 125}
_SIMCSE = {"learning_rate": 3e-5, "per_device_train_batch_size": 64, "weight_decay": 0.0}
_MIRROR = {"learning_rate": 2e-5, "per_device_train_batch_size": 200, "weight_decay": 0.01}
CONTRASTIVE_ARGUMENTS: dict[str, dict[str, Any]] = {
    "simcse": _BOTH | _SIMCSE | {"lr_scheduler_type": "linear"},
    "mirror_bert": _BOTH | _MIRROR | {"lr_scheduler_type": "constant"},
}
# Keys of a section `contrastive` that have another default with `method: mirror_bert`.
MIRROR_BERT = {"temperature": 0.04, "span": 5, "mlp_head": False, "both_views": True, "max_length": 50}
