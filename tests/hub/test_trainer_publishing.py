"""A trainer's card, and what of its folder goes to a Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients import online, python
from huggingface_hub import ModelCard
from server import HubServer
from test_publishing import TOKENS

from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments
from te_trainer.trainers.publishing import base_model

# Runs as a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.
PUSHING = """
import contextlib, io, json, re, sys
from pathlib import Path
from te_trainer.runs.quiet import quiet_libraries
quiet_libraries()
from huggingface_hub import hf_hub_download
from sentence_transformers import CrossEncoder, SentenceTransformer
from te_trainer.trainers import *

model, root = sys.argv[1:]
texts = [f"{number} tickets" for number in range(8)]
pairs = [{"sentence1": text, "sentence2": text[::-1], "label": row / 8} for row, text in enumerate(texts)]
printed = io.StringIO()
for kind, trainer_class, arguments in (
    ("bi", BiEncoderTrainer, BiEncoderTrainingArguments),
    ("cross", CrossEncoderTrainer, CrossEncoderTrainingArguments),
):
    output = Path(root, kind)
    args = arguments(
        str(output), num_train_epochs=1, eval_steps=1, per_device_train_batch_size=4, hub_model_id=f"owner/{kind}",
        disable_tqdm=True,
    )
    trainer = trainer_class(model, args, pairs, pairs)
    trainer.train()
    trainer.create_model_card(language="en", license="mit", tags="tickets", dataset="eight tickets")
    trainer.save_model()
    (output / ".env").write_text("SECRET=1")
    (output / "notes.txt").write_text("a note")
    (output / "runs").mkdir()
    trainer.push_to_hub(license="mit", tags=["tickets"])
    card = Path(hf_hub_download(f"owner/{kind}", "README.md")).read_text(encoding="utf-8")
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):
            exec(block, {})

# while it trains
args = BiEncoderTrainingArguments(
    str(Path(root, "during")), max_steps=2, save_steps=1, save_strategy="steps", push_to_hub=True, hub_always_push=True,
    hub_model_id="owner/during", loss="info_nce", mlp_head=True, per_device_train_batch_size=4, disable_tqdm=True,
)
trainer = BiEncoderTrainer(model, args, pairs)
trainer.train()
SentenceTransformer("owner/during")
print(json.dumps([float(line) for line in printed.getvalue().split()]))
"""
BI = {
    ".gitattributes",
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.mark.slow
def test_a_trainer_publishes_its_encoder_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    with HubServer(tmp_path / "hub") as hub:
        hub.shelf.accounts |= TOKENS
        done = python(
            "-c", PUSHING, str(tiny), str(tmp_path / "runs"), **online(hub.url, tmp_path / "home", "hf_write")
        )
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout.splitlines()[-1])) == 2, "each card's code prints a score"
        files = {
            kind: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for kind in ("bi", "cross", "during")
            for folder in [tmp_path / "hub" / "models" / "owner" / kind]
        }
        commits = [name for name in hub.shelf.commits if "during" in str(name)]
    assert files["bi"] - {".gitattributes"} <= BI
    assert files["bi"] >= {"model.safetensors", "modules.json", "README.md"}
    assert files["during"] - {".gitattributes"} <= BI
    assert files["cross"] <= BI - {"modules.json"}
    assert len(commits) >= 2
    card = ModelCard.load(tmp_path / "runs" / "bi" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert (card.data.language, card.data.license) == ("en", "mit")
    assert {"sentence-transformers", "sentence-similarity", "tickets"} <= set(card.data.tags)
    assert "It was trained on 8 sentence pairs (eight tickets) for 2 steps, with the loss `mse`" in card.text
    assert "| eval_spearman | " in card.text
    assert "| eval_loss | " in card.text
    assert "| learning_rate | 5e-05 |" in card.text
    assert str(tmp_path) not in card.text
    cross = ModelCard.load(tmp_path / "hub" / "models" / "owner" / "cross" / "README.md")
    assert cross.data.pipeline_tag == "text-ranking"
    assert "on 8 sentence pairs for 4 steps, with the loss `bce`" in cross.text


def test_the_base_model_is_the_hubs_name_of_it(tiny: Path, tmp_path: Path) -> None:
    trainer = BiEncoderTrainer(tiny, BiEncoderTrainingArguments(str(tmp_path)))
    names = {
        "google-bert/bert-base-uncased": ("google-bert/bert-base-uncased", None),
        "bert-base-uncased": ("bert-base-uncased", None),
        str(tiny): (None, None),
        "/home/me/hub/models--owner--some-model/snapshots/0123abc": ("owner/some-model", "0123abc"),
        "/home/me/hub/models--some-model/snapshots/0123abc": ("some-model", "0123abc"),
    }
    for name, expected in names.items():
        trainer.model.name_or_path = name
        assert base_model(trainer.model) == expected
    trainer.create_model_card()
    text = "It started from [some-model](https://huggingface.co/some-model) at revision `0123abc`."
    assert text in ModelCard.load(tmp_path / "README.md").text
    trainer.model.name_or_path = "owner/start"
    trainer.create_model_card(model_name="my\nmodel")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "owner/start" and "at revision" not in card.text
    assert "\n# my model\n" in card.text
    assert "None" not in str(card)
