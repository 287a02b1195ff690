"""A file that is replaced as a whole, or stays as it was."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_pancluster.core.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to; it takes the place of `path` when the block ends well.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}). Choose another file."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
