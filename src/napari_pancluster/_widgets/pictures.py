"""Arrays as Qt pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QImage, QPixmap


def as_image(pixels: NDArray[np.uint8]) -> QImage:
    """Return a picture (rows, cols, 3) for Qt."""
    rows, cols, _ = pixels.shape
    data = np.ascontiguousarray(pixels)
    # Copied: Qt would otherwise read memory that numpy has given back.
    return QImage(data.tobytes(), cols, rows, 3 * cols, QImage.Format.Format_RGB888).copy()


def picture_icon(pixels: NDArray[np.uint8], width: int, height: int) -> QIcon:
    """Return a picture (rows, cols, 3) as an icon that fits a box."""
    pixmap = QPixmap.fromImage(as_image(pixels))
    return _untinted(
        pixmap.scaled(
            width,
            height,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )


def swatch(colour: str, *, size: int = 14) -> QIcon:
    """Return a small square of a colour."""
    pixmap = QPixmap(size, size)
    pixmap.fill(QColor(colour))
    return _untinted(pixmap)


def _untinted(pixmap: QPixmap) -> QIcon:
    """Return an icon that a lit line does not tint."""
    icon = QIcon()
    for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
        icon.addPixmap(pixmap, mode)
    return icon
