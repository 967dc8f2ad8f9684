"""Dotted keys of nested configurations."""

from __future__ import annotations

from typing import Any


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys."""
    if isinstance(values, dict):
        parts: Any = values.items()
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        parts = enumerate(values)
    else:
        return {prefix: values}
    result: dict[str, Any] = {}
    for key, value in parts:
        result.update(flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return result
