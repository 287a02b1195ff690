"""A first look at an untrusted file in a process of its own, which may crash instead of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from napari_pancluster.core.errors import SlideError

_LIMIT_S = 30.0
_LIMIT_BYTES = 4 << 30
# The limits that the system knows; Windows has none of them, the timeout holds everywhere.
_LIMITS = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_LIMIT_BYTES}, {_LIMIT_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
"""


def probe(path: Path, code: str, *, limit_s: float = _LIMIT_S) -> None:
    """Run Python code on a file in another process, with limits on time and memory.

    Parameters
    ----------
    code
        Finds the path in ``sys.argv[1]``.

    Raises
    ------
    SlideError
        If the process fails, crashes or takes too long.
    """
    # In a frozen application this would start the application itself.
    if getattr(sys, "frozen", False):
        return
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIMITS + code, str(path)],
            capture_output=True,
            timeout=limit_s,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlideError(
            f"{path} takes over {limit_s:.0f} s to open. The file may be damaged; copy it again."
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        what = lines[-1] if lines and done.returncode > 0 else "its decoder crashed"
        raise SlideError(
            f"{path} cannot be read: {what}. The file may be damaged; copy or export it again."
        )
