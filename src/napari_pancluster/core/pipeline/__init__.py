"""One function a step: what the command line, the widgets and a notebook call.

Every slow one is a `Task`; its result is the JSON object of the command of the same name.
"""

from napari_pancluster.core.pipeline.describe import describe_project, describe_slide, step_states
from napari_pancluster.core.pipeline.everything import run_all
from napari_pancluster.core.pipeline.exporting import FORMATS, export
from napari_pancluster.core.pipeline.mapping import embed_patches, map_clusters, select_clusters
from napari_pancluster.core.pipeline.registering import map_points, register
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.pipeline.viewing import open_results, save_edits

__all__ = [
    "FORMATS",
    "describe_project",
    "describe_slide",
    "embed_patches",
    "export",
    "map_clusters",
    "map_points",
    "open_results",
    "register",
    "run_all",
    "save_edits",
    "select_clusters",
    "step_states",
    "train_network",
]
