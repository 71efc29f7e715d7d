"""JSON files of a study: whole or not there, and without NaN, which JSON does not know."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all; numbers that are not finite become null."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(finite(value), indent=1, allow_nan=False), encoding="utf-8")
    temporary.replace(path)


def finite(value: Any) -> Any:
    """The same with None in place of NaN and infinity, and text as keys.

    >>> finite({1: [0.5, float("nan")]})
    {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
