"""Rows of tokens in flat arrays are the rows that went in."""

from __future__ import annotations

import numpy as np
import pytest

from te_trainer.models.tokens import Tokens, spans

ROWS = {
    "input_ids": [[2, 7, 3], [], [2, 3], [2, 8, 9, 3]],
    "token_type_ids": [[0, 0, 1], [], [0, 1], [0, 0, 1, 1]],
}


def test_rows_come_back() -> None:
    tokens = Tokens.of_rows(ROWS)
    assert len(tokens) == 4
    assert tokens.lengths.tolist() == [3, 0, 2, 4]
    assert {name: values.dtype for name, values in tokens.columns.items()} == dict.fromkeys(ROWS, np.int32)
    assert tokens.rows() == ROWS


def test_a_mask_is_none_of_the_columns() -> None:
    assert Tokens.of_rows({**ROWS, "attention_mask": [[1] * len(row) for row in ROWS["input_ids"]]}).rows() == ROWS


@pytest.mark.parametrize("rows", [[3, 0], [1], [0, 0, 2], [2, 1, 3], []])
def test_rows_are_taken_in_any_order(rows: list[int]) -> None:
    taken = Tokens.of_rows(ROWS).take(np.array(rows, dtype=np.int64))
    assert taken.rows() == {name: [values[row] for row in rows] for name, values in ROWS.items()}
    assert taken.lengths.tolist() == [len(ROWS["input_ids"][row]) for row in rows]


def test_parts_follow_one_another() -> None:
    parts = [Tokens.of_rows({name: values[rows] for name, values in ROWS.items()}) for rows in (slice(1), slice(1, 4))]
    assert Tokens.concatenate(parts).rows() == ROWS
    assert Tokens.concatenate(parts[:1]).rows() == {name: values[:1] for name, values in ROWS.items()}


def test_spans_count_up_from_each_start() -> None:
    assert spans(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
