"""``python -m napari_pancluster`` is ``pancluster``; torchrun starts it by this name."""

from __future__ import annotations

import sys

from napari_pancluster.cli import main

sys.exit(main())
