"""A process that asks a Hub: HF_ENDPOINT is read when huggingface_hub is imported, so each Hub needs one of its own.

    python calls.py '{"KEY": ["FUNCTION", ARGUMENT, ...]}'

It prints what each call gives, or the exception that it raises. `GET /mark/KEY` goes before each call. The clients ask
a Hub that is away again and again; here they do not pause in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import constants
from transformers import AutoModel, AutoTokenizer

from te_trainer.config.schema import (
    ContrastiveConfig,
    ContrastiveDataConfig,
    ContrastiveTrainingConfig,
    DataConfig,
    EvaluationConfig,
    EvaluationDataConfig,
)
from te_trainer.contrastive.plan import make_plan
from te_trainer.contrastive.preparation import check_run
from te_trainer.data import PoolManifest, build_pool, load_gold
from te_trainer.evaluation.models import resolve_models
from te_trainer.models import BiEncoder, CrossEncoder, resolve_checkpoint
from te_trainer.models.model_names import commit_of, locate, pin
from te_trainer.runs.commits import hub_commits, pin_begun, pin_commits
from te_trainer.runs.manifest import RunManifest, read_manifest
from te_trainer.runs.quiet import quiet_libraries

SENTENCES = ["TV can't see any wifi networks", "How do I hide my wifi network's name from the neighbours?"]


def token(value: str) -> None:
    """What the calls behind it are made with."""
    os.environ["HF_TOKEN"] = value


def check_bi(name: str) -> None:
    BiEncoder.check(name)


def bi(name: str, **arguments: Any) -> dict[str, Any]:
    encoder = BiEncoder.from_pretrained(name, **arguments)
    batch = encoder.tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = encoder.embed(batch["input_ids"], batch["attention_mask"])
    weight = encoder.model.get_input_embeddings().weight.sum().item()
    start = encoder.model.name_or_path
    return {"pooling": encoder.pooling, "weight": weight, "start": start, "vectors": vectors.tolist()}


def cross(name: str) -> dict[str, Any]:
    encoder = CrossEncoder.from_pretrained(name)
    with torch.no_grad():
        logits = encoder.logits(**encoder.tokenizer(*SENTENCES, return_tensors="pt"))
    return {"activation": encoder.activation, "logits": logits.tolist()}


def fingerprint(name: str) -> str:
    return resolve_checkpoint(name).fingerprint


def files(name: str) -> list[str]:
    folder = Path(locate(name))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def pinned(name: str, commit: str) -> str | None:
    pin({name: commit})
    return commit_of(name)


def fill(name: str, library: str) -> None:
    if library == "transformers":
        AutoModel.from_pretrained(name)
        AutoTokenizer.from_pretrained(name)
    else:
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(name)


def contrastive(name: str, root: str) -> str | None:
    """Continue a run, as far as its model is resolved."""
    data = ContrastiveDataConfig(sentences=["sentences.txt"])
    pin_begun(read_manifest(Path(root)))
    section = ContrastiveTrainingConfig(mlp_head=False)
    config = ContrastiveConfig(name, data, contrastive=section, output_dir=root, seed=0, ddp_timeout=60)
    check_run(RunManifest(Path(root), config, make_plan=make_plan))
    return commit_of(name)


def evaluation(name: str, root: str) -> str | None:
    """Continue an evaluation, as far as its model is resolved."""
    pin_begun(read_manifest(Path(root)))
    resolve_models(EvaluationConfig([name], [], EvaluationDataConfig(), output_dir=root, seed=0, ddp_timeout=60))
    return commit_of(name)


def pool(name: str, columns: dict[str, str] | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        counts = build_pool(DataConfig(pool=[name], columns=columns), Path(folder, "pool"))
        pairs = PoolManifest.load(Path(folder, "pool"))[1]
        rows = list(zip(pairs["sentence1"], pairs["sentence2"], strict=True))
    source = counts.sources[0]
    return {"rows": source.rows, "empty": source.empty, "duplicates": counts.duplicates, "pairs": rows}


def gold(name: str, role: str, columns: dict[str, str] | None = None) -> dict[str, Any]:
    found = load_gold(name, role, columns or {})  # type: ignore[arg-type]
    pairs = list(zip(found.sentence1, found.sentence2, strict=True))
    return {"name": found.name, "pairs": pairs, "scores": found.scores.tolist()}


def begin(root: str, names: list[str]) -> dict[str, str]:
    """Begin or continue a run on data sets: gives their commits."""
    run_file, sources = Path(root, "run.yaml"), [(name, None) for name in names]
    if run_file.exists():
        pin_begun(yaml.safe_load(run_file.read_text()))
    pin_commits(sources=sources)
    commits = hub_commits(sources=sources)
    run_file.parent.mkdir(exist_ok=True)
    run_file.write_text(yaml.safe_dump({"config": {}, "versions": {}, **commits}))
    return commits["data_commits"]


def main() -> None:
    quiet_libraries()
    time.sleep = lambda seconds: None
    answers = {}
    for key, (function, *arguments) in json.loads(sys.argv[1]).items():
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f"{constants.ENDPOINT}/mark/{key.replace(' ', '-')}")
        named = arguments.pop() if function == "bi" and isinstance(arguments[-1], dict) else {}
        try:
            answers[key] = globals()[function](*arguments, **named)
        except Exception as error:
            answers[key] = f"{type(error).__name__}: {error}"
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
