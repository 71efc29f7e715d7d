"""Progress of long work outside the trainer: a bar on a terminal, plain lines seconds apart elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

PLAIN_SECONDS = 10.0


@contextmanager
def track(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Yield a function to call once for each of `total` items done.

    >>> with track(2, "counting") as advance:
    ...     advance(); advance()
    counting: 2/2, ...

    Nothing is shown where there is nothing to do.
    """
    if not total:
        yield lambda: None
        return
    if sys.stdout.isatty():
        with tqdm(total=total, desc=what, leave=True, file=sys.stdout) as bar:
            yield lambda: bar.update(1) and None
        return
    started = last = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            left = (now - started) / done * (total - done)
            print(f"{what}: {done}/{total}, {now - started:.0f} s, about {left:.0f} s left", flush=True)

    yield advance
    print(f"{what}: {done}/{total}, {time.monotonic() - started:.0f} s", flush=True)
