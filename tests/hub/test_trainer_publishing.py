"""A trainer's card, and what of its folder goes to a Hub."""

from __future__ import annotations

import json
import shutil
import socket
from itertools import repeat
from pathlib import Path

import pytest
from clients import online, python
from conftest import save_tiny
from huggingface_hub import ModelCard
from server import HubServer, Repository
from test_publishing import FAULT, TOKENS

from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments
from te_trainer.trainers.publishing import base_model

# Runs as a process of its own: HF_ENDPOINT is read when huggingface_hub is imported.
PUSHING = """
import contextlib, io, json, re, sys
from pathlib import Path
from te_trainer.runs.quiet import quiet_libraries
quiet_libraries()
import torch
from huggingface_hub import hf_hub_download
from peft import LoraConfig
from sentence_transformers import CrossEncoder, SentenceTransformer
from te_trainer.models import BiEncoder
from te_trainer.trainers import *

model, root = sys.argv[1:]
texts = [f"{number} tickets" for number in range(8)]
pairs = [{"sentence1": text, "sentence2": text[::-1], "label": row / 8} for row, text in enumerate(texts)]
printed = io.StringIO()

def use(name):
    # what the code in a card prints
    card = Path(hf_hub_download(name, "README.md")).read_text(encoding="utf-8")
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\\n(.*?)```", card, re.DOTALL):
            exec(block, {})

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
    use(f"owner/{kind}")

# an adapter, and then a whole model in its place
expected = []
for kind, trainer_class, arguments in (
    ("bi", BiEncoderTrainer, BiEncoderTrainingArguments),
    ("cross", CrossEncoderTrainer, CrossEncoderTrainingArguments),
):
    for adapters in (LoraConfig(r=2, task_type="FEATURE_EXTRACTION" if kind == "bi" else "SEQ_CLS"), None):
        args = arguments(
            str(Path(root, f"{kind}-replaced")), max_steps=2, learning_rate=1e-2, hub_model_id=f"owner/{kind}-replaced",
            disable_tqdm=True, warmup_steps=0,
        )
        encoder = BiEncoder.from_pretrained("owner/start@v1", pooling="mean") if kind == "bi" else "owner/start@v1"
        trainer = trainer_class(encoder, args, pairs, peft_config=adapters)
        trainer.train()
        trainer.save_model(f"{root}/{kind}-{'adapter' if adapters else 'whole'}")
        trainer.push_to_hub()
        pair = {"sentence1": "A plane takes off.", "sentence2": "An aeroplane departs.", "label": 0.5}
        score = torch.tensor(trainer.predict([pair]).predictions[0])
        expected.append((score if kind == "bi" else score.sigmoid()).item())
        use(f"owner/{kind}-replaced")

# while it trains
copied = set()

class Copying(BiEncoderTrainer):
    def finish_saved(self, folder):
        if not folder.is_relative_to(root):
            copied.update(path.name for path in folder.rglob("*"))
        super().finish_saved(folder)

for name in ("during", "refused"):
    args = BiEncoderTrainingArguments(
        str(Path(root, name)), max_steps=2, save_steps=1, save_strategy="steps", push_to_hub=True, hub_always_push=True,
        hub_model_id=f"owner/{name}", loss="info_nce", mlp_head=True, per_device_train_batch_size=4, disable_tqdm=True,
    )
    Copying(model, args, pairs).train()
SentenceTransformer("owner/during")
print(json.dumps([[float(line) for line in printed.getvalue().split()], expected, sorted(copied)]))
"""
# Two processes, made before huggingface_hub is imported.
RANKS = """
import os, sys

model, root, port = sys.argv[1:]
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
child = os.fork()
rank = "1" if child == 0 else "0"
os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true"}

from te_trainer.trainers import BiEncoderTrainer, BiEncoderTrainingArguments

pairs = [{"sentence1": f"{number} tickets", "sentence2": "tickets", "label": number / 8} for number in range(8)]
args = BiEncoderTrainingArguments(
    root, max_steps=2, save_steps=1, save_strategy="steps", push_to_hub=True, hub_always_push=True,
    hub_model_id="owner/ranks", disable_tqdm=True,
)
trainer = BiEncoderTrainer(model, args, pairs)
trainer.train()
assert (trainer.push_to_hub() is None) == (rank == "1")
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
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
    owner = tmp_path / "hub" / "models" / "owner"
    shutil.copytree(tiny, owner / "start")
    stale, foreign = "model-00001-of-00002.safetensors", "other/model.safetensors"
    for kind in ("bi", "cross"):
        for name in (stale, foreign):
            path = owner / f"{kind}-replaced" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("of before", encoding="utf-8")
    with HubServer(tmp_path / "hub") as hub:
        v1 = Repository("owner/start", save_tiny(hub.branch("owner/start", "v1"), "bert", seed=7)).commit
        hub.shelf.accounts |= TOKENS
        hub.refusals = {"POST /api/models/owner/refused/commit": repeat(FAULT)}
        done = python(
            "-c", PUSHING, str(tiny), str(tmp_path / "runs"), **online(hub.url, tmp_path / "home", "hf_write")
        )
        assert done.returncode == 0, done.stderr
        files = {
            folder.name: {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            for folder in owner.iterdir()
        }
        commits = [name for name in hub.shelf.commits if "during" in str(name)]
    printed, expected, copied = json.loads(done.stdout.splitlines()[-1])
    # of an adapter as of whole weights, though the adapter's base model is a branch
    assert len(printed) == 6 and printed[2:] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected[:2]}) == len({round(score, 3) for score in expected[2:]}) == 2
    for kind in ("bi", "cross"):
        # the adapter's files went as those before it did; what others put into folders of their own stays
        card = ModelCard.load(owner / f"{kind}-replaced" / "README.md")
        assert f"from [owner/start](https://huggingface.co/owner/start) at revision `{v1}`." in card.text
        assert files[f"{kind}-replaced"] == files[kind] - {".gitattributes"} | {foreign}
    saved = tmp_path / "runs" / "bi-adapter" / "adapter_config.json"
    assert json.loads(saved.read_text(encoding="utf-8"))["revision"] == v1
    failure = (
        "a checkpoint was not uploaded to owner/refused: the Hub has a fault of its own (503); try again later; the"
    )
    assert done.stderr.count(failure) == 1
    assert files["refused"] == {".gitattributes"}
    assert "model.safetensors" in copied and "optimizer.pt" not in copied
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


@pytest.mark.slow
def test_the_first_of_two_ranks_publishes(tiny: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with HubServer(tmp_path / "hub") as hub:
        hub.shelf.accounts |= TOKENS
        done = python("-c", RANKS, str(tiny), str(tmp_path / "runs"), port, **online(hub.url, tmp_path, "hf_write"))
        assert done.returncode == 0, done.stderr
        assert hub.shelf.commits == ["owner/ranks@main"] * 2
    assert (tmp_path / "hub/models/owner/ranks/model.safetensors").is_file()


def test_the_base_model_is_the_hubs_name_of_it(tiny: Path, tmp_path: Path) -> None:
    trainer = BiEncoderTrainer(tiny, BiEncoderTrainingArguments(str(tmp_path)))
    names = {
        "google-bert/bert-base-uncased": ("google-bert/bert-base-uncased", None),
        "bert-base-uncased": ("bert-base-uncased", None),
        str(tiny): (None, None),
        "/hub/models--owner--some-model/snapshots/0123abc": ("owner/some-model", "0123abc"),
        "/hub/models--some-model/snapshots/0123abc": ("some-model", "0123abc"),
    }
    for name, expected in names.items():
        trainer.model.name_or_path = name
        assert base_model(trainer.encoder) == expected
    trainer.create_model_card()
    text = "It started from [some-model](https://huggingface.co/some-model) at revision `0123abc`."
    assert text in ModelCard.load(tmp_path / "README.md").text
    trainer.model.name_or_path = "owner/start"
    trainer.create_model_card(model_name="my\nmodel")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "owner/start" and "at revision" not in card.text
    assert "\n# my model\n" in card.text
    assert "None" not in str(card)
