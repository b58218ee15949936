"""Pieces of work that are no good for their processes; these import them from here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic, sleep


def die_once(name: str) -> str:
    """Kills its own process the first time that it is called with a name that is a path."""
    marker = Path(name)
    if marker.suffix == ".dies" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if marker.suffix == ".always":
        os.kill(os.getpid(), signal.SIGKILL)
    return name.upper()


def meet(name: str) -> int:
    """Waits until the other of two pieces has begun as well."""
    own = Path(name)
    own.touch()
    end = monotonic() + 60
    while len(list(own.parent.iterdir())) < 2:
        assert monotonic() < end
        sleep(0.05)
    return os.getpid()


def raise_bug(name: str) -> str:
    raise ValueError("no bug of the user")
