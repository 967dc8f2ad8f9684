"""Checks of what has to work on a GPU. Each gets a folder of its own, and prints its figures by `note`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from machine import (
    DEVICE,
    ON_GPU,
    ROOT,
    SAMPLE,
    SINGLE,
    base_model,
    dev_pairs,
    launch,
    note,
    random_pairs,
    require,
    run,
    small_model,
)

RECIPES = ROOT / "recipes"

# ---------------------------------------------------------------- short runs of the main job


def short_run(output: Path, *more: Any, pairs: int = 200) -> list[Any]:
    """The recipe and the arguments of one cycle on the sample."""
    settings = {
        "models": f"[{{name: m, bi_encoder: '{small_model()}', pooling: mean}}]",
        "data.pool": SAMPLE / "pool.tsv",
        "data.max_pairs": pairs if ON_GPU else 48,
        "data.dev": SAMPLE / "dev.tsv",
        "data.test": SAMPLE / "test.tsv",
        "distillation.cycles": 1,
        "distillation.selection": "dev",
        "cross_encoder.num_train_epochs": 1,
        "bi_encoder.num_train_epochs": 2,
        "bi_encoder.per_device_train_batch_size": 16,
        "cross_encoder.learning_rate": "1e-4",
        "output_dir": output,
    }
    return [
        RECIPES / "trans_encoder.py",
        *(word for key, value in settings.items() for word in (f"--{key}", value)),
        *more,
    ]


def check_run(output: Path) -> dict[str, Any]:
    """Note what a finished run came to; require its device, and that sentence-transformers gives the same scores."""
    import numpy as np
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from te_trainer.labelling import score_pairs
    from te_trainer.models import load_encoder

    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    environment = results["environment"]
    require(environment["device"].startswith(DEVICE), f"the run was on {DEVICE}, not on {environment['device']}")
    [(name, kinds)] = results["final"].items()
    scores = ", ".join(f"{kind} dev {100 * entry['dev']:.2f}" for kind, entry in kinds.items() if "dev" in entry)
    seconds = " ".join(f"{stage} {value:.1f}" for stage, value in results["seconds"].items())
    note(f"{environment['precision']}; {scores}; seconds: {seconds}")

    rows = dev_pairs(100).select_columns(["sentence1", "sentence2"])
    one, two = rows["sentence1"][:], rows["sentence2"][:]
    model = SentenceTransformer(str(output / name / "bi-encoder"), device=DEVICE)
    cosines = model.similarity_pairwise(*(model.encode(side, convert_to_tensor=True) for side in (one, two)))
    logits = CrossEncoder(str(output / name / "cross-encoder"), device=DEVICE).predict(list(zip(one, two, strict=True)))
    for kind, theirs in (("bi-encoder", cosines.float().cpu().numpy()), ("cross-encoder", logits)):
        ours = score_pairs(load_encoder(str(output / name / kind)), rows)
        difference = float(np.abs(theirs - ours).max())
        note(f"{kind} differs from sentence-transformers by {difference:.1e}")
        require(difference < 2e-5, "the difference is below 2e-5")
    return results


def run_with(output: Path, *more: Any, config: str = SINGLE, processes: int | None = None, pairs: int = 200) -> None:
    run(*launch(config, *short_run(output, *more, pairs=pairs), processes=processes))
    check_run(output)


def check_fp16(folder: Path) -> None:
    run_with(folder, "--distillation.precision", "float16" if ON_GPU else "bfloat16")


def check_float32(folder: Path) -> None:
    run_with(folder, "--distillation.precision", "float32")


def check_lora(folder: Path) -> None:
    run_with(folder, "--lora.rank", 8)


def check_checkpointing(folder: Path) -> None:
    run_with(folder, *(f"--{kind}.gradient_checkpointing=true" for kind in ("bi_encoder", "cross_encoder")))


def check_compile(folder: Path) -> None:
    run_with(folder, *(f"--{kind}.torch_compile=true" for kind in ("bi_encoder", "cross_encoder")))


def check_isolate(folder: Path) -> None:
    run_with(folder, "--distillation.isolate_stages", "true")


def check_step0(folder: Path) -> None:
    plm = ["--models", f"[{{name: m, bi_encoder: '{small_model()}'}}]", "--bi_encoder.pooling", "cls"]
    run_with(folder, *plm, "--distillation.step0", RECIPES / "contrastive" / "simcse_on_pool.yaml", pairs=400)


def check_cpu_yaml(folder: Path) -> None:
    """The quickstart's configuration keeps a run on the CPU, also where there is a GPU."""
    run(*launch("cpu.yaml", *short_run(folder, "--distillation.precision", "float32", pairs=64)))
    device = json.loads((folder / "results.json").read_text(encoding="utf-8"))["environment"]["device"]
    note(f"device {device}")
    require(device.startswith("cpu"), "the run was on the CPU")


# ---------------------------------------------------------------- engines: one process on a GPU, two on a CPU


def run_engine(folder: Path, config: str, cpu_config: str, engine: str = "") -> None:
    """Run the main job by a configuration; require the engine (the class around a trained model) and its bfloat16."""
    config, processes = (config, 1) if ON_GPU else (cpu_config, 2)
    run_with(folder, config=config, processes=processes)
    record = next(folder.glob("cycle-1/m/*.training.json")).read_text(encoding="utf-8")
    require(engine in ("", json.loads(record)["engine"]), f"the engine is {engine}, not {json.loads(record)['engine']}")
    probe = Path(__file__).with_name("precision_probe.py")
    run(*launch(config, probe, small_model(), folder / "probe", processes=processes))


def check_zero2(folder: Path) -> None:
    run_engine(folder, "deepspeed_zero2.yaml", "cpu_deepspeed_zero2.yaml", "DeepSpeedEngine")


def check_zero3(folder: Path) -> None:
    run_engine(folder, "deepspeed_zero3.yaml", "cpu_deepspeed_zero3.yaml", "DeepSpeedEngine")


def check_fsdp2(folder: Path) -> None:
    run_engine(folder, "fsdp2.yaml", "cpu_ddp.yaml")


def check_ddp(folder: Path) -> None:
    run_engine(folder, "multi_gpu.yaml", "cpu_ddp.yaml")


# ---------------------------------------------------------------- labels, interruption


def check_parity(folder: Path) -> None:
    """Labels equal those that the model alone gives on the CPU, pair by pair, in float32; bfloat16 ranks alike."""
    import numpy as np
    import torch
    from scipy.stats import spearmanr

    from te_trainer import BiEncoder, CrossEncoder, score_pairs

    rows = dev_pairs(300).select_columns(["sentence1", "sentence2"])
    for kind in (BiEncoder, CrossEncoder):
        torch.manual_seed(0)
        encoder = kind.from_pretrained(small_model())
        labels = score_pairs(encoder, rows)
        half = score_pairs(encoder, rows, precision="bfloat16")
        encoder.model.to("cpu")
        difference = float(np.abs(labels - scores_pair_by_pair(encoder, rows)).max())
        note(f"{kind.__name__}: {difference:.1e} from the CPU, Spearman of bfloat16 {spearmanr(half, labels)[0]:.4f}")
        require(difference < 1e-5, "labels are equal to 1e-5")


def scores_pair_by_pair(encoder: Any, rows: Any) -> Any:
    """Scores on the CPU without batches, padding or anything else of `score_pairs`."""
    import numpy as np
    import torch

    def tokenise(*texts: str) -> Any:
        return encoder.tokenizer(*([text] for text in texts), truncation=True, max_length=limit, return_tensors="pt")

    limit, scores = encoder.max_length, []
    with torch.no_grad():
        for one, two in zip(rows["sentence1"][:], rows["sentence2"][:], strict=True):
            if encoder.kind == "bi-encoder":
                sides = [tokenise(text) for text in (one, two)]
                vectors = [encoder.embed(side["input_ids"], side["attention_mask"])[0] for side in sides]
                scores.append(float(torch.cosine_similarity(*vectors, dim=0)))
            else:
                scores.append(float(torch.sigmoid(encoder.model(**tokenise(one, two)).logits[0, 0])))
    return np.array(scores)


def check_resume(folder: Path) -> None:
    """A run that is killed after a checkpoint of each training ends with the weights of one that is not.

    One that may be killed writes a full checkpoint at each step, and not once in a minute.
    """
    command = [str(word) for word in launch(SINGLE)]
    more = ["--cross_encoder.eval_steps", 5, "--bi_encoder.eval_steps", 5]
    whole, killed = folder / "whole", folder / "killed"
    run(*command, *short_run(whole, *more, pairs=400))
    recipe, *arguments = map(str, short_run(killed, *more, pairs=400))
    script = folder / "often.py"
    script.write_text(
        "import runpy\n"
        "from te_trainer.runs import checkpoint_clock\n"
        "checkpoint_clock.FULL_CHECKPOINT_SECONDS = checkpoint_clock.TIMES_WHAT_SAVING_TOOK = 0\n"
        f"runpy.run_path({recipe!r}, run_name='__main__')\n"
    )
    kills, status = 0, None
    while status != 0 and kills < 3:
        process = subprocess.Popen([*command, str(script), *arguments], cwd=ROOT, start_new_session=True)
        marks = "cycle-1/m/.training-*/checkpoint-*/checkpoint-is-whole"
        before = set(killed.glob(marks))
        while process.poll() is None and (kills == 2 or not set(killed.glob(marks)) - before):
            time.sleep(0.005)
        if process.poll() is None:
            time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)  # the session of this process alone
            kills += 1
        status = process.wait()
        require(status in (0, -signal.SIGKILL), f"the continued run ends well (status {status})")
    require(status == 0 and kills > 0, "the run was killed, and ended well in the end")
    differences = weight_differences(whole, killed)
    note(f"killed {kills} times; weights differ by {differences}")
    if any(differences.values()):
        again = folder / "again"
        run(*command, *short_run(again, *more, pairs=400))
        note(f"two runs that were not killed differ by {weight_differences(whole, again)}")
        require(False, "weights are equal")


def weight_differences(one: Path, two: Path) -> dict[str, float]:
    """The largest difference of a weight, for both encoders of two runs."""
    from safetensors.torch import load_file

    differences = {}
    for kind in ("cross-encoder", "bi-encoder"):
        weights = [load_file(folder / "m" / kind / "model.safetensors") for folder in (one, two)]
        differences[kind] = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
    return differences


# ---------------------------------------------------------------- other commands, scripts, tests


def check_contrastive(folder: Path) -> None:
    sentences = folder.with_name("contrastive.txt")
    sentences.write_text("\n".join(random_pairs(2000 if ON_GPU else 140)["sentence1"][:]) + "\n", encoding="utf-8")
    recipe = [RECIPES / "contrastive.py", "--config", RECIPES / "contrastive" / "simcse_bert_base.yaml"]
    sets = ["--data.sentences", sentences, "--data.dev", SAMPLE / "dev.tsv", "--data.test", f"[{SAMPLE / 'test.tsv'}]"]
    run(*launch(SINGLE, *recipe, "--model", base_model(), *sets, "--output_dir", folder))
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    scores = [100 * results[part]["bi-encoder"]["dev"] for part in ("start", "final")]
    note(f"dev {scores[0]:.2f} to {scores[1]:.2f}; seconds {results['seconds']}")


def check_score(folder: Path) -> None:
    """Scores of a file, and nearest sentences."""
    folder.mkdir(parents=True)
    command = [*launch(SINGLE, RECIPES / "score.py", "--model", small_model())]
    run(*command, "--data.pairs", SAMPLE / "pool.tsv", "--output", folder / "scores.tsv")
    sentences = folder / "sentences.txt"
    sentences.write_text("\n".join(dict.fromkeys(dev_pairs(200)["sentence1"][:])) + "\n", encoding="utf-8")
    run(*command, "--data.sentences", sentences, "--top_k", 3, "--output", folder / "nearest.tsv")
    note(
        ", ".join(f"{len(file.read_text().splitlines())} lines of {file.name}" for file in sorted(folder.glob("*.tsv")))
    )


def check_evaluate(folder: Path) -> None:
    models, tasks = f"['{small_model()}']", f"['{SAMPLE / 'dev.tsv'}']"
    command = launch(SINGLE, RECIPES / "evaluate_sts.py", "--models", models, "--tasks", tasks)
    run(*command, "--output_dir", folder)
    note((folder / "table.md").read_text(encoding="utf-8").splitlines()[-1])


def check_alone(folder: Path) -> None:
    """The trainers in a script that nothing launches."""
    from datasets import Dataset

    from te_trainer import BiEncoder, BiEncoderTrainer, CrossEncoderTrainer, score_pairs
    from te_trainer.models.model_names import locate

    folder.mkdir(parents=True)
    os.chdir(folder)
    pairs = Dataset.from_dict({"sentence1": ["A plane takes off."] * 40, "sentence2": ["An aeroplane departs."] * 40})
    teacher = BiEncoder.from_pretrained(small_model(), pooling="cls")
    labelled = pairs.add_column("label", score_pairs(teacher, pairs))
    student = CrossEncoderTrainer(locate(small_model()), train_dataset=labelled)
    student.train()
    student.save_model("cross-encoder")
    require(Path("cross-encoder", "model.safetensors").exists(), "the cross-encoder is saved")
    dev = pairs.select(range(3)).add_column("label", [0.1, 0.2, 0.3])
    trainer = BiEncoderTrainer(teacher, train_dataset=labelled, eval_dataset=dev)
    for args in (student.args, trainer.args):
        require(args.device.type == DEVICE, f"a trainer computes on {DEVICE}, not on {args.device}")
    note(f"{student.args.device}, bf16 {student.args.bf16}")


def check_tests(folder: Path) -> None:
    """The project's tests for a GPU; on a CPU two files of others."""
    chosen = ["tests/test_gpu.py", "-m", "gpu"] if ON_GPU else ["tests/test_losses.py", "tests/test_distributed.py"]
    options = ["-q", "-p", "no:cacheprovider", "--tb", "short", "--numprocesses", "5" if ON_GPU else "2"]
    command = [sys.executable, "-m", "pytest", *chosen, *options]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(finished.stdout[-60_000:])
    note(finished.stdout.strip().splitlines()[-1])
    sys.exit(finished.returncode)
