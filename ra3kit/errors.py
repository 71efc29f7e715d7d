"""Named exceptions: each says which key or record, the value given, what is allowed, the nearest match, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RA3Error(Exception):
    """Base of every error the kit raises on purpose. The command line prints it without traceback and exits with 2."""


class RecipeError(RA3Error):
    """A recipe, an override or a resolved configuration that cannot be used."""


class DataError(RA3Error):
    """A corpus, a file, a record or a store that cannot be used."""


class AbsentData(DataError):
    """A data set that is not on this machine."""


class TokenizerError(RA3Error):
    """A tokenizer that cannot carry exact lines and latents (no end token, a lossy round trip, no `#` token)."""


class ModelError(RA3Error):
    """A model that cannot be loaded, or does not fit its tokenizer, context or role."""


class RolloutError(RA3Error):
    """A request to the rollout engine that cannot be served (a line longer than a slot, an empty batch)."""


class RunError(RA3Error):
    """A run that cannot start, continue or finish (folder exists, not a finite number, collapse)."""


class ConformanceError(RA3Error, AssertionError):
    """A component that breaks a clause of its contract (`ra3kit.testing`). Also an AssertionError: a failed test."""


class DivergenceError(RunError):
    """A loss or a gradient that is not finite: the step was not taken."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A suffix " Did you mean 'x'?" for the closest allowed name, or "" when nothing is close.

    >>> nearest("postrior", ["prior", "posterior"])
    " Did you mean 'posterior'?"
    >>> nearest("zzz", ["prior"])
    ''
    """
    match = difflib.get_close_matches(str(name), list(map(str, allowed)), n=1)  # YAML keys may be numbers
    return f" Did you mean {match[0]!r}?" if match else ""
