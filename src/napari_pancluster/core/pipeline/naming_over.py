"""Names and colours that carry over from an earlier map of a project to a new one."""

from __future__ import annotations

from typing import Any

from napari_pancluster.core import artefacts
from napari_pancluster.core.checkpoint import read_checkpoint
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.counterparts import NamedMap, counterparts, inherited
from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.patches import PatchTable
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import ArtefactRecord


def carry_names(
    project: Project, run: str, table: PatchTable, clustering: Clustering
) -> dict[str, Any] | None:
    """Give the clusters of a new map the names and colours of those they overlap best with.

    The clusters that a person named or coloured last are the model, whatever their run and k;
    what was made from slides that were registered anew since then still counts. They become
    ordinary edits, and nothing happens where there are edits of these clusters already.

    Parameters
    ----------
    table, clustering
        The new map.

    Returns
    -------
    dict or None
        The keys `names` of the command `map`; None where there was nothing to carry over.
    """
    # It imports the step that maps, which calls this.
    from napari_pancluster.core.pipeline.viewing import edits_key, save_edits

    own = edits_key(run, clustering.k)
    if project.artefact(own) is not None:
        return None
    new = NamedMap(table, clustering.labels, ClusterEdits(clustering.k))
    for key, record in _newest_edits(project):
        _, old_run, old_k = key.split("/")
        edits = _edits(project, record)
        if not edits.given:
            continue
        old = _map_of(project, old_run, edits)
        pairs = counterparts(old, new) if old is not None else ()
        operations = inherited(edits, pairs)
        if operations:
            save_edits(project, run, new.edits.extend(operations))
        kept = [p for p in pairs if p.old in edits.given]
        return {
            "run": old_run,
            "k": int(old_k),
            "carried": [
                {
                    "label": p.new,
                    "name": edits.given_name(p.old) or None,
                    "color": edits.given_colour(p.old) or None,
                    "from": p.old,
                    "overlap": round(p.overlap, 4),
                }
                for p in kept
            ],
            "new": sorted(set(new.edits.labels) - {p.new for p in pairs}),
            "left": [edits.name(n) for n in sorted(edits.given - {p.old for p in kept})],
        }
    return None


def name_map(project: Project, run: str) -> dict[str, Any] | None:
    """Do `carry_names` for the map that a run has, with another k than it was first mapped with."""
    encoded, mapped = (project.artefact(f"{step}/{run}") for step in ("latents", "map"))
    if encoded is None or mapped is None or not _newest_edits(project):
        return None
    table, _ = artefacts.read_latents(project.folder(encoded))
    return carry_names(project, run, table, artefacts.read_clustering(project.folder(mapped)))


def _newest_edits(project: Project) -> list[tuple[str, ArtefactRecord]]:
    """Return the keys and records of all edits, the last that were made first."""
    found = [(k, a) for k, a in project.state.artefacts.items() if k.startswith("edits/")]
    return sorted(found, key=lambda item: item[1].created, reverse=True)


def _edits(project: Project, record: ArtefactRecord) -> ClusterEdits:
    try:
        return artefacts.read_edits(project.folder(record))
    # Names are a comfort: what cannot be read must not keep the tissue from being mapped.
    except ProjectError:
        return ClusterEdits(0)


def _map_of(project: Project, run: str, edits: ClusterEdits) -> NamedMap | None:
    """Return what a run made of the tissue with the k of its edits; None where it cannot be read.

    A map of that k is there, or the network gives it.
    """
    trained, encoded, mapped = (
        project.artefact(f"{step}/{run}") for step in ("train", "latents", "map")
    )
    if encoded is None:
        return None
    try:
        table, latents = artefacts.read_latents(project.folder(encoded))
        if mapped is not None and encoded.id in mapped.inputs and mapped.summary["k"] == edits.k:
            labels = artefacts.read_clustering(project.folder(mapped)).labels
        elif trained is not None:
            labels = cluster(latents, read_checkpoint(project.folder(trained)), edits.k).labels
        else:
            return None
    except (ProjectError, InputError):
        return None
    return NamedMap(table, edits.lookup[labels], edits)
