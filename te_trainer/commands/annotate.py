"""Choose pairs of a finished run's pool to score by hand: those that tell most about its start against its result."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np

from te_trainer.config.commands import check_output
from te_trainer.config.schema import AnnotateConfig
from te_trainer.data import PoolManifest
from te_trainer.errors import InputError
from te_trainer.evaluation.annotation import (
    MOST_SCORED,
    annotation_file,
    compared_encoder,
    start_for_comparison,
    telling_rows,
)
from te_trainer.files.atomic import write_text
from te_trainer.files.disk_errors import disk_errors_as_input_error
from te_trainer.files.locks import lock_output_file
from te_trainer.labelling import score_pairs
from te_trainer.models import load_encoder
from te_trainer.models.precision import resolve_precision
from te_trainer.runs.finished import FinishedRun
from te_trainer.runs.quiet import quiet_libraries
from te_trainer.runs.saved import read_labels


def main(config: AnnotateConfig) -> None:
    quiet_libraries()
    output = Path(config.output)
    with disk_errors_as_input_error(output.parent, key="output"), lock_output_file(output):
        # another process may have written it since the command line was read
        check_output(config.output, config.overwrite, formats=(".tsv",))
        annotate(config)


def annotate(config: AnnotateConfig) -> None:
    run = FinishedRun.load(Path(config.run))
    name = config.model or run.names[0]
    if name not in run.names:
        raise InputError(f"model: the run has no model '{name}', only {', '.join(run.names)}")
    if config.model is None and len(run.names) > 1:
        raise InputError(f"model: the run has several models; name one of {', '.join(run.names)} (--model)")
    kind = compared_encoder(run, name)
    _, pool = PoolManifest.load(run.layout.pool)
    labels = read_labels(run.layout.labels(1, name, "bi-encoder"), {}, len(pool), delete="the run", then="run it again")
    seed = run.manifest["config"]["seed"]
    rows = np.sort(np.random.default_rng(seed).permutation(len(pool))[:MOST_SCORED])
    pairs = pool.select(rows)
    encoder = load_encoder(str(run.encoder(name, kind, None)))
    chosen = telling_rows(
        labels[rows], score_pairs(encoder, pairs, precision=resolve_precision(config.precision)), config.pairs, seed
    )
    write_text(Path(config.output), annotation_file(pairs.select(chosen), run.distillation.task))
    amount = "1 pair is" if len(chosen) == 1 else f"{len(chosen)} pairs are"
    print(f"{amount} in {config.output}; its first lines say how to score them.")
    if 1 < len(chosen) < len(pairs):
        print(
            "Half of them are those that both encoders disagree on most; scores are likely lower than on other pairs."
        )
    start, more = start_for_comparison(run, name)
    is_lost = start == run.model(name)["bi_encoder"] and ":" not in start and not Path(start).is_absolute()
    hint = f", with the path from here to the folder {start}, which is as it was where the run was started" * is_lost
    print(f"Then compare{hint}:")
    models, tasks = (
        shlex.quote(json.dumps(names, ensure_ascii=False))
        for names in ([start, str(run.layout.kept_encoder(name, kind))], [config.output])
    )
    output = shlex.quote(f"{config.run.rstrip('/')}-evaluation")
    print(f"  te-trainer evaluate --models {models}{more} --tasks {tasks} --output_dir {output}")
