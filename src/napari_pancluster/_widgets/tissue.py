"""The napari side of the session: layers over the tissue, and what is clicked there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.own_layers import newest, remove_layers, tagged
from napari_pancluster.core.gallery import density
from napari_pancluster.core.selection import Combine

_CLEAR = (0.0, 0.0, 0.0, 0.0)
# Selected tissue keeps its colours; all other tissue goes dark, as in the scatter.
_VEIL = (0.0, 0.0, 0.0, 0.68)
# A flight to a patch shows this many patches across the window.
_PATCHES_ACROSS = 12
_DOCKING_S = 3.0


class TissueView:
    """Keeps napari's layers and the session in step.

    Parameters
    ----------
    viewer
        Where the layers live.
    session
        What they show.
    cache_mb
        Memory a registered stain may keep.
    """

    def __init__(self, viewer: Viewer, session: Session, *, cache_mb: int) -> None:
        self._viewer = viewer
        self._session = session
        self._cache_mb = cache_mb
        self._fitted_case: str | None = None
        self._outlines: Shapes | None = None
        session.stack_changed.connect(self._on_stack)
        session.results_changed.connect(self._on_results)
        session.case_changed.connect(self._on_case)
        session.clusters_changed.connect(self._on_clusters)
        session.selection_changed.connect(self._on_selection)
        self._fit_until = 0.0
        viewer.canvas.events.size.connect(self._on_canvas_size)
        viewer.mouse_move_callbacks.append(self._on_move)
        viewer.mouse_drag_callbacks.append(self._on_press)

    def close(self) -> None:
        """Leave the viewer; its layers stay."""
        session = self._session
        session.stack_changed.disconnect(self._on_stack)
        session.results_changed.disconnect(self._on_results)
        session.case_changed.disconnect(self._on_case)
        session.clusters_changed.disconnect(self._on_clusters)
        session.selection_changed.disconnect(self._on_selection)
        self._viewer.canvas.events.size.disconnect(self._on_canvas_size)
        self._viewer.mouse_move_callbacks.remove(self._on_move)
        self._viewer.mouse_drag_callbacks.remove(self._on_press)

    # What others ask for

    @property
    def map(self) -> Labels | None:
        """The layer of the clusters, if it is there."""
        return self._layer(_layers.MAP)

    @property
    def selected(self) -> Labels | None:
        """The layer of the selection, if it is there."""
        return self._layer(_layers.SELECTION)

    def toggle_map(self) -> None:
        """Hide the clusters, or show them again."""
        if self.map is None:
            self._on_results()
        else:
            self.map.visible = not self.map.visible

    def set_outline(self, *, outline: bool) -> None:
        """Draw clusters as outlines or filled."""
        if self.map is not None:
            self.map.contour = 1 if outline else 0

    def set_opacity(self, opacity: float) -> None:
        """Draw clusters with this opacity, 0 … 1."""
        if self.map is not None:
            self.map.opacity = opacity

    def fly_to(self, row: int) -> None:
        """Bring a patch into the middle of the window, with the tissue around it."""
        self._fit_until = 0.0
        results = self._session.results
        if results is None:
            return
        number, position = results.position(row)
        grid = results.table.grids[number]
        self._session.show_case(grid.case)
        reference = results.stacks[grid.case].stain(results.stacks[grid.case].reference).slide
        world = _layers.to_world(grid.centres[position], reference)
        camera = self._viewer.scene.camera
        height = max(1, self._viewer.canvas.size[0])
        camera.center = (0.0, float(world[0]), float(world[1]))
        camera.zoom = height / (_PATCHES_ACROSS * grid.patch_px * grid.mpp)
        self._session.point_at(row)

    def fit_while_docking(self) -> None:
        """Show the tissue whole, also after the docks have taken their room from it."""
        self._fit_until = time.monotonic() + _DOCKING_S

    def refresh_slides(self) -> None:
        """Draw slides anew whose coarse levels have grown."""
        for layer in self._tagged(_layers.SLIDE):
            if layer.visible:
                layer.refresh(thumbnail=True, highlight=False, extent=False)

    def start_outlining(self) -> None:
        """Make ready for the user to draw around tissue."""
        layer = self._layer(_layers.OUTLINES)
        if layer is None:
            layer = self._add(_layers.outlines_layer(self._session.unit))
        if layer is not self._outlines:
            layer.events.data.connect(self._on_outline)
            self._outlines = layer
        self._viewer.layers.selection.active = layer
        layer.mode = "add_polygon_lasso"

    def show_density(self, label: int) -> None:
        """Add a layer with the density of a cluster, or renew it."""
        session = self._session
        if session.grid is None:
            return
        name = f"Density of {session.edits.name(label)}"
        image = density(session.label_image(), label)
        self._put(
            _layers.density_layer(
                image, session.grid, self._reference(), label=label, name=name, unit=session.unit
            ),
            "label",
        )

    # The session changed

    def _on_stack(self) -> None:
        stack = self._session.stack
        if stack is None:
            self._remove(self._tagged(_layers.SLIDE))
            self._fitted_case = None
            return
        unit = self._session.unit
        wanted = _layers.stack_layers(stack, unit=unit, cache_mb=self._cache_mb)
        names = {options["metadata"]["stain"] for _, options, _ in wanted}
        shown = self._tagged(_layers.SLIDE)
        self._remove([x for x in shown if x.metadata.get("stain") not in names])
        for data in wanted:
            self._put(data, "stain")
        self._arrange()
        self._activate_reference()
        if stack.case != self._fitted_case:
            self._fitted_case = stack.case
            self._viewer.reset_view()

    def _on_case(self) -> None:
        self._remove(self._tagged(_layers.DENSITY))
        self._on_results()

    def _on_results(self) -> None:
        session, grid = self._session, self._session.grid
        if grid is None:
            self._remove(self._tagged(_layers.MAP, _layers.SELECTION, _layers.DENSITY))
            return
        image, reference, unit = session.label_image(), self._reference(), session.unit
        smoothed = session.results is not None and session.results.smoothed
        name = "Clusters (smoothed)" if smoothed else "Clusters"
        self._put(_layers.map_layer(image, grid, reference, name=name, unit=unit))
        image = session.selection_image()
        veil = self._put(_layers.selection_layer(image, grid, reference, unit=unit))
        colours = {None: _CLEAR, 0: _CLEAR, _layers.SELECTED: _CLEAR, _layers.VEILED: _VEIL}
        veil.colormap = DirectLabelColormap(color_dict=colours)
        for layer in self._tagged(_layers.MAP, _layers.SELECTION):
            layer.editable = False
        self._on_clusters()
        self._arrange()

    def _on_clusters(self) -> None:
        layer, edits = self.map, self._session.edits
        if layer is None or self._session.grid is None:
            return
        _paint(layer, self._session.label_image())
        colours: dict[int | None, Any] = {None: _CLEAR, 0: _CLEAR}
        colours |= {n: _CLEAR if n in edits.hidden else edits.colour(n) for n in edits.labels}
        # A new one: napari does not see changes inside a colormap.
        layer.colormap = DirectLabelColormap(color_dict=colours)
        self._remove(self._tagged(_layers.DENSITY))

    def _on_selection(self) -> None:
        layer = self.selected
        if layer is not None and self._session.grid is not None:
            _paint(layer, self._session.selection_image())

    # The user did something on the tissue

    def _on_canvas_size(self, event: Any) -> None:
        if time.monotonic() < self._fit_until and self._viewer.layers:
            self._viewer.reset_view()

    def _on_move(self, viewer: Viewer, event: Any) -> None:
        self._session.point_at(self._row_under(event.position))

    def _on_press(self, viewer: Viewer, event: Any) -> Iterator[None]:
        if not self._free_to_pick(event):
            return
        yield
        while event.type == "mouse_move":
            if np.abs(np.subtract(event.pos, self._pressed)).max() > 3:
                return
            yield
        row = self._row_under(event.position)
        how = combination(event.modifiers, self._session.how)
        if row is not None:
            self._session.pick(row, how)
        elif how is Combine.REPLACE and self._session.results is not None:
            self._session.select_none()

    def _free_to_pick(self, event: Any) -> bool:
        active = self._viewer.layers.selection.active
        mode = str(getattr(active, "mode", "pan_zoom"))
        self._pressed = event.pos
        return event.button == 1 and mode == "pan_zoom" and self._session.results is not None

    def _on_outline(self, event: Any) -> None:
        layer = self._layer(_layers.OUTLINES)
        if layer is None or str(event.action) != "added" or not len(layer.data):
            return
        outline = _outline(layer)
        # Not inside napari's own event: the layer is still busy with the new shape.
        QTimer.singleShot(0, lambda: self._take_outline(outline))

    def _take_outline(self, outline: NDArray[np.float64]) -> None:
        layer = self._layer(_layers.OUTLINES)
        if layer is not None:
            with layer.events.data.blocker(self._on_outline):
                layer.data = []
            # Back to moving and clicking: another outline is another press of the button.
            layer.mode = "pan_zoom"
            self._activate_reference()
        if self._session.results is not None:
            reference = self._reference()
            half = reference.um_per_px / 2
            self._session.select_outlined(outline + half, self._session.how)

    def _activate_reference(self) -> None:
        """Make the reference the active layer: its controls are short, and a click is a click."""
        slides = self._tagged(_layers.SLIDE)
        if slides:
            self._viewer.layers.selection.active = slides[-1]

    # Layers by what they are, whatever the user calls them

    def _row_under(self, world: Any) -> int | None:
        cells = self._session.map
        if cells is None:
            return None
        cell = _layers.cell_at(world, cells.grid, self._reference())
        return None if cell is None else cells.row_at(cell)

    def _reference(self) -> Any:
        results = self._session.results
        assert results is not None
        stack = results.stacks[self._session.case]
        return stack.stain(stack.reference).slide

    def _put(self, data: _layers.LayerData, key: str | None = None) -> Any:
        """Show data in the layer that had its place, so that the user's settings stay, or add one.

        Parameters
        ----------
        key
            Entry of the metadata that tells layers of a kind apart.
        """
        pixels, options, _ = data
        facts = options["metadata"]
        for layer in self._tagged(facts["pancluster"]):
            if key is None or layer.metadata.get(key) == facts[key]:
                layer.data = pixels
                for name in ("units", "scale", "translate", "name", "metadata"):
                    setattr(layer, name, options[name])
                return layer
        return self._add(data)

    def _add(self, data: _layers.LayerData) -> Any:
        active = self._viewer.layers.selection.active
        layer = self._viewer.add_layer(Layer.create(*data))
        if active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        return layer

    def _tagged(self, *tags: str) -> list[Layer]:
        return tagged(self._viewer, *tags)

    def _layer(self, tag: str) -> Any:
        return newest(self._viewer, tag)

    def _remove(self, gone: list[Layer]) -> None:
        remove_layers(self._viewer, gone)

    def _arrange(self) -> None:
        """Bring slides, reference last, under the maps, and outlines on top."""
        layers, stack = self._viewer.layers, self._session.stack
        reference = stack.reference if stack is not None else None
        slides = self._tagged(_layers.SLIDE)
        order = [x for x in slides if x.metadata.get("stain") != reference]
        order += [x for x in slides if x.metadata.get("stain") == reference]
        for tag in (_layers.MAP, _layers.DENSITY, _layers.SELECTION, _layers.OUTLINES):
            order += self._tagged(tag)
        if [x for x in layers if x in order] != order:
            for layer in order:
                layers.move(layers.index(layer), len(layers))


def combination(modifiers: Any, otherwise: Combine) -> Combine:
    """Return what Shift (add) and Control (subtract) mean, or else what is set."""
    names = {str(getattr(m, "name", m)) for m in modifiers}
    if "Shift" in names:
        return Combine.ADD
    if names & {"Control", "Meta"}:
        return Combine.SUBTRACT
    return otherwise


def _paint(layer: Labels | Image, image: NDArray[np.uint8]) -> None:
    """Change a layer's pixels in place, without what napari would compute for other purposes."""
    layer.data[...] = image
    layer.refresh(thumbnail=False, highlight=False, extent=False)


def _outline(layer: Shapes) -> NDArray[np.float64]:
    """Return the corners (V, 2) of the newest shape in world units; of an ellipse, many."""
    corners = np.asarray(layer.data[-1], np.float64)[:, -2:]
    if layer.shape_type[-1] != "ellipse":
        return corners
    centre = corners.mean(0)
    a, b = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(turn) * a + np.sin(turn) * b)
