"""Landmarks on the tissue: a points layer a slide, and what the user does there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Layer, Shapes
from napari.layers import Points as PointsLayer
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_pancluster import _layers
from napari_pancluster._evidence_layers import landmarks_layer, residuals_layer
from napari_pancluster._session import Session
from napari_pancluster._widgets.landmark_frames import Frames
from napari_pancluster._widgets.own_layers import remove_layers, tagged
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.pipeline.marking import OTHER, SIDES, Marks, Side
from napari_pancluster.core.registration.landmark_fits import fit_affine
from napari_pancluster.core.registration.landmarks import LEAST, Landmarks, Points
from napari_pancluster.core.transform import Transform

# On the screen: what counts as on a point, and from where on a press is a drag, as in napari.
_NEAR_PX, _DRAG_PX = 12.0, 5.0
_MARGIN = 0.95
_BESIDE = "That is beside the slide. Set landmarks on the tissue."


class LandmarkLayers(QObject):
    """The napari side of landmarks: a points layer a slide, and what is clicked there.

    Parameters
    ----------
    viewer, session
        Where they are set, and what is looked at.
    """

    # What the user made of the marks, the pair that was clicked, another slide or layer in sight,
    # Ctrl+Z on the tissue, a layer that the user took away, and what went wrong.
    edited = Signal(object)
    chosen = Signal(int)
    looked = Signal()
    undone = Signal()
    lost = Signal()
    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self._marks = Marks()
        self._frames: Frames | None = None
        self.side: Side = "fixed"
        self._points: dict[Side, PointsLayer] = {}
        self._residuals: Any = None
        self._shown: dict[Side, Points] = {}
        self._before: list[tuple[Layer, bool]] = []
        self._views: dict[Side, tuple[Any, float]] = {}
        self._painting = False

    # Beginning and ending

    @property
    def open(self) -> bool:
        """Whether landmarks are being set."""
        return bool(self._points)

    @property
    def paused(self) -> bool:
        """Whether clicks set nothing, because the user took another layer."""
        return self._viewer.layers.selection.active not in self._points.values()

    @property
    def selected(self) -> set[int]:
        """Numbers of the points that are chosen on the slide that is looked at."""
        return {int(n) for n in self._points[self.side].selected_data} if self.open else set()

    @property
    def turn_to(self) -> str:
        """The stain that `turn` shows."""
        return self._frames.name(self._turn_side) if self._frames is not None else ""

    @property
    def next_step(self) -> str:
        """What the next click does, in words."""
        if self._frames is None:
            return ""
        here, there = (self._frames.name(s) for s in (self.side, OTHER[self.side]))
        number, waiting = len(self._marks.fixed) + 1, self._marks.waiting
        if self.paused:
            return f"Paused: another layer is chosen. Press Show {here} to go on."
        if waiting is None:
            spot = f"Click a spot on {here} that you know again on {there}."
            return f"{spot} It gets number {number}."
        if waiting[0] == self.side:
            return f"Point {number} waits for its partner on {there}; a click here moves it."
        return f"Click the same spot {number} on {here}."

    def start(self, frames: Frames, case: str) -> None:
        """Add the layers, and take clicks on the tissue."""
        viewer, unit = self._viewer, self._session.unit
        remove_layers(viewer, tagged(viewer, _layers.LANDMARKS, _layers.RESIDUALS))
        self._frames, self.side = frames, "fixed"
        self._views = {"fixed": (tuple(viewer.scene.camera.center), viewer.scene.camera.zoom)}
        # A Shapes layer must not be hidden in napari 0.9.2.
        own = [x for x in viewer.layers if "pancluster" in x.metadata and not isinstance(x, Shapes)]
        self._before = [(x, bool(x.visible)) for x in own]
        for layer in own:
            layer.visible = layer.visible and layer.metadata["pancluster"] == _layers.SLIDE
        data = residuals_layer(frames.slides[0], name="Landmark errors", unit=unit, case=case)
        self._residuals = viewer.add_layer(Layer.create(*data))
        self._points = {side: self._add(frames, side, case) for side in SIDES}
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)

    def _add(self, frames: Frames, side: Side, case: str) -> PointsLayer:
        slide = self._slide_layer(side)
        data = landmarks_layer(
            frames.slide(side),
            side,
            name=f"Landmarks on {frames.name(side)}",
            units=slide.units if slide is not None else (self._session.unit,) * 2,
            case=case,
        )
        layer: PointsLayer = self._viewer.add_layer(Layer.create(*data))
        self._shown[side] = np.zeros((0, 2))
        layer.events.data.connect(self._on_data)
        layer.mouse_drag_callbacks.append(self._on_press)
        layer.bind_key("Control-Z", lambda _: self.undone.emit(), overwrite=True)
        return layer

    def leave(self) -> list[Layer]:
        """Stop listening, show again what was hidden, and return the layers, which stay."""
        if not self.open:
            return []
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._viewer.layers.selection.events.active.disconnect(self._on_active)
        for layer in self._points.values():
            layer.events.data.disconnect(self._on_data)
            layer.mouse_drag_callbacks.remove(self._on_press)
            layer.bind_key("Control-Z", None, overwrite=True)
            layer.mode = "pan_zoom"
        mine = [*self._points.values(), self._residuals]
        self._points, self._residuals, self._frames = {}, None, None
        for layer, visible in self._before:
            if layer in self._viewer.layers:
                layer.visible = visible
        self._before, self._views = [], {}
        return [x for x in mine if x in self._viewer.layers]

    def stop(self) -> None:
        """Take the layers away."""
        remove_layers(self._viewer, self.leave())

    def _on_removed(self, event: Any) -> None:
        if event.value in (*self._points.values(), self._residuals):
            # Not inside napari's own event.
            QTimer.singleShot(0, self._on_lost)

    def _on_lost(self) -> None:
        if self.open:
            self.lost.emit()

    # Showing

    def follow(self, frames: Frames) -> None:
        """Show the same points in other frames: the registration has changed."""
        if self.open:
            self._frames = frames
            self._views.clear()

    def paint(self, marks: Marks, worst: int | None) -> None:
        """Draw marks, numbered, in place of what the layers show."""
        self._marks = marks
        if self._frames is None:
            return
        self._painting = True
        for side, layer in self._points.items():
            places = self._frames.shown(side, marks.points(side))
            numbers = [f"{n + 1} !" if n == worst else f"{n + 1}" for n in range(len(places))]
            layer.selected_data = set()
            layer.data = places
            layer.features = {"number": np.array(numbers, dtype=object)}
            self._shown[side] = places.copy()
        starts, ends = (self._shown[s][: len(marks.fixed)] for s in SIDES)
        self._residuals.data = np.stack([starts, ends - starts], axis=1)
        self._painting = False

    @property
    def _turn_side(self) -> Side:
        return self.side if self.paused else OTHER[self.side]

    def turn(self) -> None:
        """Look at the other slide, or after a pause at the same one."""
        self.show_side(self._turn_side)

    def show_side(self, side: Side) -> None:
        """Look at a slide and take clicks on it, if landmarks are being set."""
        if self._frames is None:
            return
        camera, before = self._viewer.scene.camera, self.side
        if before != side:
            self._views[before] = (tuple(camera.center), float(camera.zoom))
        self.side = side
        slide, apart = self._slide_layer(side), self._frames.apart
        for layer in tagged(self._viewer, _layers.SLIDE):
            _show(layer, on=layer == slide)
        _show(self._residuals, on=not apart)
        layers, points = self._viewer.layers, list(self._points.values())
        for other, layer in self._points.items():
            _show(layer, on=not apart or other == side)
        if list(layers)[-len(points) :] != points:
            for layer in points:
                layers.move(layers.index(layer), len(layers))
        layers.selection.active = self._points[side]
        self._points[side].mode = "add"
        # A click sets a point; dragging the tissue still moves it.
        self._points[side].mouse_pan = True
        if apart and (before != side or side not in self._views):
            self._aim(self._frames, side)
        self.looked.emit()

    def show_next(self) -> None:
        """Look at the slide where a partner is missing, or at the same one."""
        waiting = self._marks.waiting
        self.show_side(OTHER[waiting[0]] if waiting is not None else self.side)

    def fly_to(self, row: int) -> None:
        """Bring a point of the slide that is looked at into the middle of the window."""
        places = self._shown.get(self.side)
        if self.open and places is not None and row < len(places):
            self._look_at(places[row])
            self._points[self.side].selected_data = {row}

    def _look_at(self, place: Points) -> None:
        self._viewer.scene.camera.center = (0.0, *(float(v) for v in place))

    def _slide_layer(self, side: Side) -> Any:
        name = self._frames.name(side) if self._frames is not None else ""
        slides = tagged(self._viewer, _layers.SLIDE)
        return next((x for x in slides if x.metadata.get("stain") == name), None)

    def _aim(self, frames: Frames, side: Side) -> None:
        """Look at where the partner must be, or where one looked before: frames are apart."""
        camera, waiting = self._viewer.scene.camera, self._marks.waiting
        if side in self._views:
            camera.center, camera.zoom = self._views[side]
        else:
            extent = frames.slide(side).extent
            sides = np.array([extent.height, extent.width])
            self._look_at(sides / 2)
            camera.zoom = _MARGIN * float((np.array(self._viewer.canvas.size) / sides).min())
        if waiting is not None and waiting[0] != side and len(self._marks.fixed) >= LEAST:
            partner = _partner(self._marks.landmarks, waiting[1], side)
            if partner is not None:
                self._look_at(frames.shown(side, partner[None])[0])

    # What the user does on the tissue

    def _side_of(self, layer: Any) -> Side | None:
        # Equal, not the same: napari hands plugins proxies of its layers.
        return next((s for s, x in self._points.items() if x == layer), None)

    def _on_active(self, event: Any) -> None:
        side = self._side_of(event.value)
        if side is not None and side != self.side:
            self.show_side(side)
        else:
            self.looked.emit()

    def _on_press(self, layer: PointsLayer, event: Any) -> Iterator[None]:
        """Drag a point that is pressed; elsewhere the tissue is dragged."""
        side = self._side_of(layer)
        row = self._near(side, event.position) if side is not None else None
        if side is None or row is None or event.button != 1 or str(layer.mode) != "add":
            return
        pressed, dragged = np.array(event.pos), False
        layer.mouse_pan = False
        yield
        while event.type == "mouse_move":
            dragged = dragged or float(np.linalg.norm(pressed - event.pos)) >= _DRAG_PX
            if dragged and self.open:
                self._preview(side, row, event.position)
            yield
        layer.mouse_pan = True
        if dragged:
            self._take(side, "changed", np.array(layer.data, np.float64), (row,))

    def _preview(self, side: Side, row: int, world: Any) -> None:
        places = self._shown[side].copy()
        places[row] = np.asarray(world, np.float64)[-2:]
        self._painting = True
        self._points[side].data = places
        self._painting = False

    def _near(self, side: Side, world: Any) -> int | None:
        """Return the number of the point that a place of the world is on, or None."""
        places = self._shown[side]
        if not len(places):
            return None
        away = np.linalg.norm(places - np.asarray(world, np.float64)[-2:], axis=1)
        row = int(np.argmin(away))
        return row if away[row] * self._viewer.scene.camera.zoom <= _NEAR_PX else None

    def _on_data(self, event: Any) -> None:
        side, action = self._side_of(event.source), str(event.action)
        if self._painting or side is None or action not in ("added", "removed", "changed"):
            return
        places = np.array(event.source.data, np.float64)
        indices = tuple(int(n) for n in event.data_indices)
        # Not inside napari's own event: the layer is still busy with the point.
        QTimer.singleShot(0, partial(self._take, side, action, places, indices))

    def _take(self, side: Side, action: str, places: Points, indices: Collection[int]) -> None:
        """Make the marks what the user made of a layer; what makes no sense is put back."""
        if not self.open:
            return
        marks, before = self._marks, self._shown[side]
        if action == "added" and len(places) == len(before) + 1:
            self._click(side, places[-1])
            return
        if action == "removed":
            marks = marks.without(indices)
        elif action == "changed" and len(places) == len(before):
            for row in np.flatnonzero((places != before).any(axis=1)):
                point = self._checked(side, places[row])
                marks = marks if point is None else marks.moved(side, int(row), point)
        self.edited.emit(marks)
        self.show_side(self.side)

    def _click(self, side: Side, place: Points) -> None:
        row, point = self._near(side, place), None
        if row is None:
            point = self._checked(side, place)
        if point is not None:
            self.edited.emit(self._marks.put(side, point))
            self.show_side(OTHER[side])
            return
        self.edited.emit(self._marks)
        if row is not None:
            self._points[side].selected_data = {row}
            self.chosen.emit(row)

    def _checked(self, side: Side, place: Points) -> Points | None:
        """Return the place of the slide that is meant; None, told, beside the slide."""
        assert self._frames is not None
        point = self._frames.meant(side, place[None])
        if self._frames.inside(side, point):
            return np.asarray(point[0])
        self.complained.emit(_BESIDE)
        return None


def _show(layer: Layer, *, on: bool) -> None:
    # napari draws anew whatever is set, changed or not.
    if layer.visible != on:
        layer.visible = on


def _partner(landmarks: Landmarks, point: Points, side: Side) -> Points | None:
    """Return where the pairs so far put the partner (2,) of a point, if they tell."""
    try:
        way = Transform("", "", fit_affine(landmarks))
    except PanclusterError:
        return None
    return (way.to_moving if side == "moving" else way.to_fixed)(point[None])[0]
