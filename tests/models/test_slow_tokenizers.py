"""Tokenizers in Python, of which each class writes and reads files of its own."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, build_tokenizer, labelled, sample_pairs
from transformers import AutoConfig, AutoModel, AutoTokenizer, set_seed

from te_trainer.errors import InputError
from te_trainer.labelling import score_pairs
from te_trainer.models import BiEncoder, CrossEncoder, check_encoder, load_encoder
from te_trainer.trainers import BiEncoderTrainer, CrossEncoderTrainer

REFUSED = (
    r"its tokenizer, a BertweetTokenizer, cannot be saved and read back the same \(ids of texts differ\); start from"
)


def save_slow(folder: Path, family: str, tokenizer: str, files: dict[str, str], words: int) -> str:
    set_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    values = {"vocab_size": words, "max_position_embeddings": 130, "type_vocab_size": 1, "pad_token_id": 1}
    AutoModel.from_config(AutoConfig.for_model(family, **sizes, **values)).save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    more = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"} if "Japanese" in tokenizer else {}
    content = {"tokenizer_class": tokenizer, "model_max_length": 128, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return str(folder)


def save_merging(folder: Path, tokenizer: str) -> str:
    """A RoBERTa whose tokenizer merges letters, as those of tweets and of Vietnamese do."""
    tokens = [*(f"{letter}@@" for letter in string.ascii_lowercase), *string.ascii_lowercase, "th@@", "he"]
    merges = "#version: 0.2\nt h 3\nh e</w> 2\n"
    files = {"vocab.txt": "".join(f"{token} 1\n" for token in tokens), "bpe.codes": merges}
    return save_slow(folder, "roberta", tokenizer, files, len(tokens) + 5)


@pytest.fixture(scope="module")
def bertweet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """transformers writes the merges of its tokenizer without the column that it leaves out when it reads them."""
    return save_merging(tmp_path_factory.mktemp("slow") / "bertweet", "BertweetTokenizer")


def load(kind: Any, name: str) -> Any:
    return (BiEncoder if kind is BiEncoderTrainer else CrossEncoder).from_pretrained(name)


@pytest.mark.parametrize("kind", [BiEncoderTrainer, CrossEncoderTrainer])
def test_a_tokenizer_that_is_another_once_it_is_saved_trains_nothing(bertweet: str, kind: Any) -> None:
    for given in (bertweet, load(kind, bertweet)):
        with pytest.raises(InputError, match=f"^model .*: {REFUSED}") as error:
            kind(given, None, labelled(4))
        assert "\n" not in str(error.value)
    model, tokenizer = load(kind, bertweet).model, AutoTokenizer.from_pretrained(bertweet)
    with pytest.raises(InputError, match=REFUSED):
        kind(model, None, labelled(4), processing_class=tokenizer)


@pytest.mark.parametrize("job", ["distil", "contrastive"])
def test_such_a_tokenizer_is_refused_before_a_run_begins(bertweet: str, tmp_path: Path, job: str, run_job: Run) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{one}||{two}\n" for one, two in sample_pairs(40)), encoding="utf-8")
    given = ["--models", bertweet, "--data.pool", pairs] if job == "distil" else ["--model", bertweet]
    given += ["--data.sentences", pairs] if job == "contrastive" else []
    outcome = run_job(job, *given, "--output_dir", tmp_path / "run")
    assert outcome.status == 2 and "a BertweetTokenizer, cannot be saved and read back the same" in outcome.err
    assert "Traceback" not in outcome.err and not (tmp_path / "run" / "run.yaml").exists()


def test_such_a_tokenizer_may_score(bertweet: str) -> None:
    """Nothing is saved then."""
    assert check_encoder(bertweet) == "bi-encoder"
    pairs = {"sentence1": ["the cat"], "sentence2": ["a dog"]}
    assert np.isfinite(score_pairs(load_encoder(bertweet), pairs)).all()


@pytest.mark.parametrize("tokenizer", ["PhobertTokenizer", "BertJapaneseTokenizer"])
def test_tokenizers_in_python_that_are_saved_whole_are_taken(tmp_path: Path, tokenizer: str) -> None:
    if tokenizer == "PhobertTokenizer":
        start = save_merging(tmp_path / "start", tokenizer)
    else:
        words = list(dict(sorted(build_tokenizer().get_vocab().items(), key=lambda entry: entry[1])))
        start = save_slow(tmp_path / "start", "bert", tokenizer, {"vocab.txt": "\n".join(words)}, len(words))
    for trainer in (BiEncoderTrainer, CrossEncoderTrainer):
        encoder = trainer(start, None, labelled(4)).encoder
        assert not encoder.tokenizer.is_fast
        encoder.save_pretrained(tmp_path / encoder.kind)
        again = AutoTokenizer.from_pretrained(tmp_path / encoder.kind)
        texts = labelled(8)["sentence1"][:]
        assert again(texts)["input_ids"] == encoder.tokenizer(texts)["input_ids"]
