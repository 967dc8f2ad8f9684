"""From the command line of scoring to a `ScoreConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from te_trainer.config.names import check_output_name
from te_trainer.config.parsing import DDP_TIMEOUT_KEY, Form, check_ddp_timeout, check_positive, read
from te_trainer.config.schema import Pooling, Precision, ScoreConfig, ScoreDataConfig
from te_trainer.errors import InputError

TOP_K = 10

ENDINGS = (".tsv", ".parquet")


def parse_score(argv: Sequence[str] | None = None) -> ScoreConfig:
    """Parse a command line.

    Raises:
        InputError: an unknown key (with the nearest known one), a value that cannot be, neither or both of pairs and
            sentences, an output of another format, or one that is there already.
    """
    values = read(_form(), argv)
    data = ScoreDataConfig(**values["data"])
    _check(values, data)
    top_k = TOP_K if values["top_k"] is None else values["top_k"]
    taken = {key: value for key, value in values.items() if key not in {"data", "config", "top_k"}}
    return ScoreConfig(**taken, data=data, top_k=top_k)


def _form() -> Form:
    return Form(
        prog="score.py",
        description="Scores of a file of pairs, or the nearest sentences of each sentence of a file.",
        keys=[
            (
                "model",
                str,
                "",
                "A bi-encoder or a cross-encoder: a Hub id (owner/name or owner/name@revision), a local folder, or "
                "package:folder.",
            ),
            (
                "output",
                str,
                "",
                "The file to write: .tsv (tabs and line breaks inside a sentence become spaces) or .parquet.",
            ),
            ("overwrite", bool, False, "Replace an output that is there already."),
            ("top_k", int | None, None, f"Nearest sentences to find, with data.sentences. Default: {TOP_K}."),
            (
                "rerank",
                str | None,
                None,
                "A cross-encoder that scores and orders the sentences found anew, with data.sentences.",
            ),
            (
                "precision",
                Precision,
                "auto",
                "Arithmetic of the encoder; auto takes what the hardware is fast at. Cosines are float32.",
            ),
            (
                "batch_tokens",
                int | None,
                None,
                "Tokens in a batch, padding included. Default: 4096 on a CPU, 32768 elsewhere.",
            ),
            ("pooling", Pooling | None, None, "How token vectors become one. Default: as the checkpoint says."),
            ("max_length", int | None, None, "Tokens beyond this are cut. Default: as the checkpoint says."),
            ("prompt", str | None, None, "Text in front of every sentence. Default: as the checkpoint says."),
            DDP_TIMEOUT_KEY,
        ],
        sections={"data": ScoreDataConfig},
        trainings={},
        never_empty=frozenset({"model", "output"}),
    )


def _check(values: dict[str, Any], data: ScoreDataConfig) -> None:
    """Refuse what each value alone allows and all of them together do not."""
    if not values["model"]:
        raise InputError("model is empty: name a bi-encoder or a cross-encoder, e.g. --model runs/my/bert/bi-encoder")
    if (data.pairs is None) == (data.sentences is None):
        found = "neither is" if data.pairs is None else "both are"
        raise InputError(f"data: {found} given of data.pairs and data.sentences; name one of them")
    if data.pairs is not None:
        searching = {
            "top_k": values["top_k"],
            "rerank": values["rerank"],
            "data.queries": data.queries,
            "data.column": data.column,
        }
        for key, value in searching.items():
            if value is not None:
                raise InputError(f"{key}: belongs to data.sentences, but data.pairs is given; leave it out")
    unknown = set(data.columns) - {"sentence1", "sentence2"}
    if unknown:
        raise InputError(
            f"data.columns: unknown key '{sorted(unknown)[0]}'; it maps sentence1 and sentence2 to column names"
        )
    check_positive({key: values[key] for key in ("top_k", "batch_tokens", "max_length")})
    check_ddp_timeout(values["ddp_timeout"])
    check_output(values["output"], values["overwrite"])


def check_output(output: str, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or is there already.

    Raises:
        InputError: says which.
    """
    path = Path(output)
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"output: '{output}' does not end in {' or '.join(ENDINGS)}; name such a file")
    check_output_name(output, "output")
    if path.is_dir():
        raise InputError(f"output: {output} is a folder; name a file")
    if path.exists() and not overwrite:
        raise InputError(f"output: {output} is there already; name another file, or set --overwrite true")
