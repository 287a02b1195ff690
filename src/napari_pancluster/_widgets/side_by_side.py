"""The reference left and a registered stain right, with one camera and one cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari.layers import Layer, Shapes
from napari.viewer import Viewer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_pancluster import _layers
from napari_pancluster._widgets.own_layers import remove_layers

_CELLS = (1, 2)
_GAP_PX = 4
_MARGIN = 1.05


@dataclass(frozen=True)
class Sight:
    """Which layers are in sight, and which are selected.

    Attributes
    ----------
    visible
        Whether a layer is shown. Shapes are left alone: napari 0.9.2 may crash where they are
        hidden.
    selected, active
        Layers of the list.
    """

    visible: Mapping[Layer, bool]
    selected: frozenset[Layer]
    active: Layer | None

    @classmethod
    def of(cls, viewer: Viewer) -> Sight:
        """Return what is in sight now."""
        selection = viewer.layers.selection
        visible = {x: x.visible for x in viewer.layers if not isinstance(x, Shapes)}
        return cls(visible, frozenset(selection), selection.active)

    def only(self, *wanted: Layer) -> None:
        """Show these layers and hide the others."""
        for layer in self.visible:
            layer.visible = layer in wanted

    def restore(self, viewer: Viewer) -> None:
        """Bring it back, as far as the layers are still there."""
        for layer, visible in self.visible.items():
            if layer in viewer.layers:
                layer.visible = visible
        there = [x for x in self.selected if x in viewer.layers]
        viewer.layers.selection = there
        if self.active in there:
            viewer.layers.selection.active = self.active


class SideBySide(QObject):
    """Two slides in the cells of napari's grid.

    Its one camera links them. A visible layer has its cell by its place in the list: what lies
    above the registered stain is left, the registered stain and what lies below it right.

    Parameters
    ----------
    viewer
        Where it is shown.
    """

    # Not by `end`: the user turned the grid off, or took one of the layers away.
    ended = Signal()

    def __init__(self, viewer: Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._sight: Sight | None = None
        self._pair: tuple[Layer, ...] = ()
        self._cursors: tuple[Layer, ...] = ()
        self._grid_before: dict[str, Any] = {}
        self._names_before: tuple[bool, ...] = ()
        self._at: tuple[float, float] = (0.0, 0.0)
        self._shrunk = 1.0
        # Layers come and go several at a time: what that means is seen to once they have.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._lay_out)

    @property
    def active(self) -> bool:
        """Whether it is shown."""
        return self._sight is not None

    def start(self, reference: Layer, moving: Layer, *, unit: str) -> None:
        """Show two layers beside each other, and nothing else."""
        self.end()
        viewer, grid = self._viewer, self._viewer.canvas.grid
        self._sight = Sight.of(viewer)
        self._sight.only(reference, moving)
        self._pair = (reference, moving)
        self._cursors = tuple(
            viewer.add_layer(Layer.create(*_layers.cursor_layer(f"Cursor {side}", unit=unit)))
            for side in ("left", "right")
        )
        viewer.layers.selection.active = reference
        self._grid_before = {name: getattr(grid, name) for name in ("stride", "shape", "spacing")}
        self._names_before = tuple(x.name_overlay.visible for x in self._pair)
        for layer in self._pair:
            layer.name_overlay.box = True
            layer.name_overlay.visible = True
        self._lay_out()
        grid.shape, grid.spacing, grid.enabled = _CELLS, _GAP_PX, True
        self._shrunk = self._fitting(reference)
        viewer.scene.camera.zoom *= self._shrunk
        self._point(tuple(viewer.scene.camera.center[-2:]))
        self._listen()

    def end(self) -> None:
        """Show one picture again, and what was in sight before."""
        sight, self._sight = self._sight, None
        if sight is None:
            return
        viewer, grid = self._viewer, self._viewer.canvas.grid
        self._later.stop()
        self._forget()
        grid.enabled = False
        for name, value in self._grid_before.items():
            setattr(grid, name, value)
        viewer.scene.camera.zoom /= self._shrunk
        for layer, visible in zip(self._pair, self._names_before, strict=True):
            layer.name_overlay.visible = visible
        remove_layers(viewer, self._cursors)
        sight.restore(viewer)
        self._pair = self._cursors = ()

    def _give_up(self) -> None:
        """End, because the user took away what it needs."""
        self.end()
        self.ended.emit()

    def _fitting(self, reference: Layer) -> float:
        """Return how much smaller it must be shown: what was in sight across stays in sight."""
        camera, width = self._viewer.scene.camera, self._viewer.canvas.size[1]
        half = width / camera.zoom / 2
        low, high = (float(v) for v in reference.extent.world[:, -1])
        across = min(high, camera.center[-1] + half) - max(low, camera.center[-1] - half)
        if across <= 0:
            return 1.0
        return min(1.0, width / _CELLS[1] / (_MARGIN * across * camera.zoom))

    def _listen(self) -> None:
        viewer = self._viewer
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        viewer.canvas.grid.events.enabled.connect(self._on_grid)
        for event in self._list_events():
            event.connect(self._on_layers)

    def _forget(self) -> None:
        viewer = self._viewer
        viewer.mouse_move_callbacks.remove(self._on_move)
        viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
        viewer.canvas.grid.events.enabled.disconnect(self._on_grid)
        for event in self._list_events():
            event.disconnect(self._on_layers)

    def _list_events(self) -> tuple[Any, ...]:
        events = self._viewer.layers.events
        return events.inserted, events.removed, events.reordered

    def _lay_out(self) -> None:
        """Give the layers their cells; end where the user took one of them away."""
        layers = self._viewer.layers
        reference, moving = self._pair
        left, right = self._cursors
        if any(x not in layers for x in (*self._pair, *self._cursors)):
            self._give_up()
            return
        if layers.index(reference) < layers.index(moving):
            layers.move(layers.index(reference), len(layers))
        if layers.index(right) != layers.index(moving) + 1:
            layers.move(layers.index(right), layers.index(moving) + 1)
        if layers.index(left) != len(layers) - 1:
            layers.move(layers.index(left), len(layers))
        # Counted from the top: the first cell takes all above the right cursor.
        self._viewer.canvas.grid.stride = -(len(layers) - 1 - layers.index(right))

    def _on_layers(self, event: Any) -> None:
        self._later.start()

    def _on_grid(self, event: Any) -> None:
        if not self._viewer.canvas.grid.enabled:
            self._give_up()

    def _on_move(self, viewer: Viewer, event: Any) -> None:
        self._point(event.position[-2:])

    def _on_zoom(self, event: Any) -> None:
        self._point(self._at)

    def _point(self, world: Any) -> None:
        """Put the cursors on a place of the tissue."""
        self._at = world
        affine = _layers.cursor_affine(world, self._viewer.scene.camera.zoom)
        for cursor in self._cursors:
            cursor.affine = affine
