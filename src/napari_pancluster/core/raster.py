"""Points drawn into a picture: fast enough to redraw a million of them while the mouse moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.06
_LEAST_SPAN = 1e-6


@dataclass(frozen=True)
class Frame:
    """Which part of the plane a picture shows.

    Attributes
    ----------
    centre
        (x, y) of the plane in the middle of the picture.
    scale
        Pixels a unit.
    shape
        (rows, cols) of the picture.
    """

    centre: tuple[float, float]
    scale: float
    shape: tuple[int, int]

    @classmethod
    def around(cls, coords: NDArray[np.floating], shape: tuple[int, int]) -> Frame:
        """Return the frame that shows all points (N, 2) with a margin."""
        if len(coords) == 0:
            return cls((0.0, 0.0), 1.0, shape)
        low, high = coords.min(0).astype(float), coords.max(0).astype(float)
        span = np.maximum(high - low, _LEAST_SPAN)
        room = np.array([shape[1], shape[0]]) * (1 - 2 * _MARGIN)
        middle = (low + high) / 2
        return cls((float(middle[0]), float(middle[1])), float((room / span).min()), shape)

    def to_pixels(self, coords: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map points (N, 2) of the plane to picture x, y; the plane's y points up."""
        rows, cols = self.shape
        x = (coords[:, 0] - self.centre[0]) * self.scale + cols / 2
        y = rows / 2 - (coords[:, 1] - self.centre[1]) * self.scale
        return np.stack([x, y], axis=1)

    def to_plane(self, pixels: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map picture x, y (N, 2) to points of the plane."""
        rows, cols = self.shape
        x = (pixels[:, 0] - cols / 2) / self.scale + self.centre[0]
        y = (rows / 2 - pixels[:, 1]) / self.scale + self.centre[1]
        return np.stack([x, y], axis=1)

    def panned(self, dx: float, dy: float) -> Frame:
        """Return the frame after the picture was dragged by that many pixels."""
        x, y = self.centre
        return Frame((x - dx / self.scale, y + dy / self.scale), self.scale, self.shape)

    def zoomed(self, factor: float, at: tuple[float, float]) -> Frame:
        """Return the frame magnified about a pixel (x, y), which stays where it is."""
        before = self.to_plane(np.array([at], np.float64))[0]
        new = Frame(self.centre, self.scale * factor, self.shape)
        moved = new.to_plane(np.array([at], np.float64))[0] - before
        x, y = self.centre
        return Frame((x - float(moved[0]), y - float(moved[1])), new.scale, self.shape)

    def resized(self, shape: tuple[int, int]) -> Frame:
        """Return the frame for a picture of another size, at the same scale."""
        return Frame(self.centre, self.scale, shape)


@dataclass(frozen=True)
class Places:
    """Where points fall in a picture; computed once a frame, used for every recolouring.

    Attributes
    ----------
    rows
        (M,) points inside the frame.
    flat
        (M,) their pixel, row by row.
    shape
        (rows, cols) of the picture.
    """

    rows: NDArray[np.int32]
    flat: NDArray[np.int32]
    shape: tuple[int, int]


def place(coords: NDArray[np.float32], frame: Frame) -> Places:
    """Return where points (N, 2) fall."""
    rows, cols = frame.shape
    x = (coords[:, 0] - np.float32(frame.centre[0])) * np.float32(frame.scale)
    y = (coords[:, 1] - np.float32(frame.centre[1])) * np.float32(-frame.scale)
    half_x, half_y = np.float32(cols / 2), np.float32(rows / 2)
    # Compared as floats: a point far outside must not wrap around as an integer.
    shown = np.flatnonzero((np.abs(x) < half_x) & (np.abs(y) < half_y)).astype(np.int32)
    column = (x[shown] + half_x).astype(np.int32)
    line = (y[shown] + half_y).astype(np.int32)
    return Places(
        shown, np.minimum(line, rows - 1) * cols + np.minimum(column, cols - 1), (rows, cols)
    )


def draw(
    places: Places, values: NDArray[np.uint8], on_top: NDArray[np.bool_], radius: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw points as discs.

    Parameters
    ----------
    places
        Where the points fall.
    values
        (N,) what to draw for each; 0 is not drawn.
    on_top
        (N,) points that are drawn above the others.
    radius
        Of a disc, in pixels; 0 draws single pixels.

    Returns
    -------
    picture
        (rows, cols) values, 0 where there is no point.
    lit
        (rows, cols) whether the pixel shows a point that is on top.
    """
    value = values[places.rows]
    shown = value > 0
    top = on_top[places.rows] & shown
    below = shown & ~top
    lower = _spread(_splat(places.flat[below], value[below], places.shape), radius)
    if not top.any():
        return lower, np.zeros(places.shape, np.bool_)
    upper = _spread(_splat(places.flat[top], value[top], places.shape), radius)
    lit = upper > 0
    return np.where(lit, upper, lower), lit


def disc_radius(count: int, scale: float) -> int:
    """Return a radius in pixels at which this many points stay apart; larger when zoomed in.

    Parameters
    ----------
    count
        Points in the picture.
    scale
        How much the picture is magnified against the view of everything.
    """
    base = 3.0 if count < 3_000 else 2.0 if count < 30_000 else 1.0 if count < 300_000 else 0.0
    return min(5, round(base + max(0.0, float(np.log2(max(scale, 1.0))))))


def nearest(places: Places, at: tuple[float, float], reach: int) -> int | None:
    """Return the row of the point nearest to a pixel (x, y), or None beyond `reach` pixels."""
    cols = places.shape[1]
    # Only the lines within reach are looked at; a full distance to a million points is not needed.
    line = places.flat // cols
    close = np.flatnonzero(np.abs(line - at[1]) <= reach)
    if len(close) == 0:
        return None
    dx, dy = places.flat[close] % cols + 0.5 - at[0], line[close] + 0.5 - at[1]
    distance = dx * dx + dy * dy
    best = int(np.argmin(distance))
    return int(places.rows[close[best]]) if distance[best] <= reach**2 else None


def _splat(
    flat: NDArray[np.int32], values: NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    picture = np.zeros(shape[0] * shape[1], np.uint8)
    picture[flat] = values
    return picture.reshape(shape)


def _spread(picture: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Grow every drawn pixel into a disc; what is drawn already stays."""
    rows, cols = picture.shape
    out = picture.copy()
    offsets = [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if 0 < dy * dy + dx * dx <= (radius + 0.4) ** 2
    ]
    for dy, dx in sorted(offsets, key=lambda o: o[0] ** 2 + o[1] ** 2):
        to = out[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : cols + min(dx, 0)]
        source = picture[max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : cols + min(-dx, 0)]
        np.copyto(to, source, where=to == 0)
    return out
