"""Waiting for a condition, with a limit that says what was waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(what: str, condition: Callable[[], T], within: float = 30.0, every: float = 0.02) -> T:
    """The first true value of `condition`. `what` completes "waited for ..." when it never comes; seconds."""
    end = time.monotonic() + within
    error: Exception | None = None
    while True:
        try:
            value = condition()
            error = None
            if value:
                return value
        except (OSError, AssertionError, KeyError, ValueError) as e:
            error = e
        if time.monotonic() > end:
            raise AssertionError(f"waited {within:.0f} s for: {what}" + (f"; the last error: {error!r}" if error else ""))
        time.sleep(every)
