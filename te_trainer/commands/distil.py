"""From unlabelled pairs or sentences to a bi-encoder and a cross-encoder (Trans-Encoder, Liu et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

from te_trainer.config.schema import RunConfig
from te_trainer.data import PoolManifest, SentenceManifest
from te_trainer.distillation.costs import describe_time, describe_trainings, estimate_seconds
from te_trainer.distillation.cycle import run_cycles
from te_trainer.distillation.mining import mine_pool
from te_trainer.distillation.plan import DistillationPlan, make_plan
from te_trainer.distillation.preparation import (
    check_models,
    count_run_truncation,
    prepare_texts,
    refuse_changed_finished,
)
from te_trainer.distillation.results import collect_results, count_gold_in_pool
from te_trainer.distillation.stages import DistillationStages
from te_trainer.distillation.trainings import Trainings
from te_trainer.distillation.work import expected_pairs, total_work
from te_trainer.distributed import RestartNeeded, ask_main_process, process_state, was_restarted
from te_trainer.files.records import read_json, write_json
from te_trainer.hub.publish import check_hub, publish
from te_trainer.metrics import TASK_METRICS
from te_trainer.report.page import write_page
from te_trainer.report.run_tables import result_table
from te_trainer.report.summary import write_curves, write_report
from te_trainer.runs.checks import check_loggers, check_space, describe_gold, load_gold_sets
from te_trainer.runs.folder import run_in_output_dir
from te_trainer.runs.layout import EncoderKey
from te_trainer.runs.manifest import RunManifest
from te_trainer.runs.progress import RunProgress
from te_trainer.runs.saved import refuse_missing_encoders
from te_trainer.runs.scoring import Scorer
from te_trainer.runs.store import RunStore
from te_trainer.runs.training_arguments import check_arguments
from te_trainer.runs.truncation import describe_run_truncation, read_truncations


def main(config: RunConfig) -> None:
    run(config, distil)


def run(config: RunConfig, work: Callable[[RunManifest[RunConfig]], None]) -> None:
    """Do the work in the run's folder, and publish what it has made where the configuration says so."""
    is_main_process = run_in_output_dir(config, work, make_plan)
    # The process group has ended, because an upload may take longer than the ranks wait for one another.
    if is_main_process and config.hub.repo_id is not None:
        for address in publish(Path(config.output_dir), config.hub):
            print(f"Published: {address}")


def distil(manifest: RunManifest[RunConfig]) -> None:
    config, root, layout = manifest.config, manifest.root, manifest.layout
    state = process_state()
    metric = TASK_METRICS[config.distillation.task][0]
    if ask_main_process(layout.results.exists):
        if state.is_main_process:
            results = read_json(layout.results, "start", "cycles", "final")
            refuse_changed_finished(manifest)
            refuse_missing_encoders(layout, results)
            result_table(results, metric.__name__).show()
            print(f"The run in {root} is finished; there is nothing to do.")
            if not layout.curves.exists():
                write_curves(layout.curves, results, metric.__name__)
            if not layout.report.exists():
                pool, _ = PoolManifest.load(layout.pool)
                write_report(root, results, config.distillation, pool.describe(), metric.__name__)
            if not layout.page.exists():
                write_page(root)
        return

    # ------------------------------------------------------------ models, gold scores, texts
    plan: DistillationPlan = manifest.plan
    check_loggers(config.report_to)
    for model in plan.models.values():
        for kind, encoder in model.encoders.items():
            check_arguments(kind, encoder.section, encoder.training, config.ddp_timeout)
        if model.step0 is not None:
            check_arguments("bi-encoder", "contrastive", model.step0.training, config.ddp_timeout)
    gold = load_gold_sets(config.data, config.distillation.task)
    if state.is_main_process:
        begins = manifest.begun is None
        needed = check_models(plan)
        check_hub(config.hub, list(plan.models), plan.kinds, ask=begins)
        if begins:
            check_space(root, needed)
        prepare_texts(manifest, gold)
    state.wait_for_everyone()
    progress = RunProgress(enabled=state.is_main_process)
    scorer = Scorer(gold, metric, config.distillation.batch_tokens, layout.gold_scratch)
    store = RunStore(layout, plan.cycles, trains_start=config.step0 is not None, precision=plan.precision)

    def end_stage() -> None:
        if config.distillation.isolate_stages:
            raise RestartNeeded

    with progress:
        # ------------------------------------------------------------ what it will take
        expected = expected_pairs(plan, layout)
        fitted = plan.fit(expected, manifest.processes)
        progress.total = total_work(fitted, layout)
        says = not was_restarted()
        read, texts = SentenceManifest.load(layout.mining) if config.mines else PoolManifest.load(layout.pool)
        if says:
            described = [plan.describe_unused(), manifest.other_versions(), read.describe(), describe_gold(gold)]
            if config.step0 is not None:
                described.append(SentenceManifest.load(layout.sentences)[0].describe("step 0"))
            for line in chain(*described, describe_trainings(fitted, layout)):
                progress.say(line)
            first = EncoderKey.start(next(iter(plan.models)))
            if not ask_main_process(lambda: store.has_labels(first)):
                progress.say(describe_time(estimate_seconds(fitted, store, texts, scorer), config.mines))

        # ------------------------------------------------------------ the pool, given or mined with the starts
        if config.mines:
            Trainings(plan, store, scorer, progress).train_starts(end_stage)
            says |= mine_pool(plan, store, progress)
        pool, pairs = PoolManifest.load(layout.pool)
        store = replace(store, pairs=pool.num_rows, pool=pool.fingerprint)
        plan = manifest.plan = plan.fit(pool.num_rows, manifest.processes)
        if state.is_main_process:
            manifest.add(pool={"pairs": pool.num_rows})
            count_run_truncation(plan, layout)
        state.wait_for_everyone()
        truncations = read_truncations(layout.pool)
        if says:
            fewer = plan.describe(pool.num_rows, manifest.processes) if pool.num_rows != expected else []
            mined = pool.describe() if config.mines else []
            for line in chain(mined, fewer, describe_run_truncation(truncations)):
                progress.say(line)

        # ------------------------------------------------------------ cycles
        if not config.mines:
            Trainings(plan, store, scorer, progress).train_starts(end_stage)
        stages = DistillationStages(plan, store, pairs, scorer, progress, end_stage)
        stages.selection.cycles_learnt = run_cycles(stages)
        store.remove_token_caches()

    # ------------------------------------------------------------ results
    stages.keep_best_encoders()
    stages.compare_neighbours()
    if state.is_main_process:
        results = collect_results(stages.selection, scorer)
        results["truncation"] = truncations
        results["overlap"] = count_gold_in_pool(pairs, gold)
    stages.remove_cycle_encoders()
    if state.is_main_process:
        write_json(layout.results, results)
        # the run is finished now, whatever becomes of its report; the same command writes what is missing
        write_curves(layout.curves, results, metric.__name__)
        write_report(root, results, config.distillation, pool.describe(), metric.__name__)
        write_page(root)
        result_table(results, metric.__name__).show()
        kinds = sorted({kind for kept in results["final"].values() for kind in kept})
        folders = " and ".join(str(layout.kept_encoder("NAME", kind)) for kind in kinds)
        print(f"{layout.page} tells more; the encoders are in {folders}.")
