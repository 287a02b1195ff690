"""Many cases: a map goes on where it was stopped, and a cluster makes the same one."""

from __future__ import annotations

import os
import signal
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing import GLASS, texture, write_slide

from napari_pancluster.core import artefacts, cohort
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.checkpoint import Checkpoint, write_checkpoint
from napari_pancluster.core.config import MapConfig, SelectConfig, TrainConfig
from napari_pancluster.core.errors import InputError, PanclusterError
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.pipeline import encoding
from napari_pancluster.core.pipeline.mapping import map_clusters, select_clusters
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project

CASES = 4


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small slides at 2 µm/px: a fine half and a coarse one, on glass."""
    folder, paths = tmp_path_factory.mktemp("cohort"), []
    for n in range(CASES):
        rgb = np.full((320, 420, 3), GLASS, np.uint8)
        rgb[40:280, 40:210] = texture((240, 170), coarse=False, seed=2 * n)
        rgb[40:280, 210:380] = texture((240, 170), coarse=True, seed=2 * n + 1)
        paths.append(write_slide(folder / f"{n}.ome.tif", rgb, 2.0))
    return paths


@pytest.fixture
def project(slides: list[Path], tmp_path: Path) -> Project:
    entries = [SlideEntry(f"case{n}", "HE", path) for n, path in enumerate(slides)]
    made = Project.create(tmp_path / "cohort", make_cases(entries))
    commit_network(made, ("HE",))
    return made


def commit_network(project: Project, stains: tuple[str, ...]) -> None:
    """Commit a network as a run; what it has learnt does not matter here."""
    config = TrainConfig(width=8, latent=16, device="cpu", k_min=2, k_max=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PatchNetwork(len(stains), (2, 3, 30), width=8, latent=16)
    weights = network.state_dict()
    checkpoint = Checkpoint(weights, stains, (2, 3, 30), (2, 3), 3, 2.0, 64, config.model_dump())
    summary = {
        "run": "run-1",
        "k": 3,
        "device": "cpu",
        "patches_per_s": 1.0,
        "epochs": 1,
        "losses": {"reconstruction": [1.0]},
        "seconds": 1.0,
        "stains": list(stains),
        "mpp": 2.0,
        "config": config.model_dump(),
    }
    with project.writing("train/run-1", (), summary, id_="run-1") as folder:
        write_checkpoint(folder, checkpoint)


def latents_in(project: Project) -> np.ndarray[Any, Any]:
    found = project.state.artefacts["latents/run-1"]
    return artefacts.read_latents(project.folder(found))[1].values


def parts_of(project: Project) -> list[Path]:
    return sorted(project.latents_folder().glob("*.npz"))


def test_a_cancelled_map_goes_on_with_the_cases_that_are_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, before = MapConfig(stride_px=8), project.state
    task = map_clusters(project, config)
    for _ in task:
        if parts_of(project):
            break
    began = time.monotonic()
    task.close()
    assert time.monotonic() - began < 1
    assert Project.open(project.root).state == before
    kept = len(parts_of(project))
    assert 1 <= kept < CASES
    # What a power cut left behind is no case.
    parts_of(project)[0].write_bytes(parts_of(project)[0].read_bytes()[:-500])
    encoded: list[str] = []
    original = encoding.encode

    def counting(stack: Any, grid: Any, network: Any) -> Any:
        encoded.append(grid.case)
        return original(stack, grid, network)

    monkeypatch.setattr(encoding, "encode", counting)
    again = Project.open(project.root)
    stages = {p.stage for p in map_clusters(again, config)}
    assert len(encoded) == CASES - kept + 1 and {f"Mapping {c}" for c in encoded} <= stages
    resumed = latents_in(again)
    assert not parts_of(again)
    # The same, never interrupted; and another stride shares nothing with it.
    run(map_clusters(again, MapConfig(stride_px=32)))
    assert len(latents_in(again)) < len(resumed) / 10
    run(map_clusters(again, config))
    assert np.array_equal(latents_in(again), resumed)
    # With all latents there, nothing is encoded again.
    count = len(encoded)
    run(map_clusters(again, MapConfig()))
    run(select_clusters(again, SelectConfig(repeats=1), MapConfig()))
    assert len(encoded) == count


def test_a_registration_or_slide_that_changes_makes_another_part(project: Project) -> None:
    case = project.state.cases[0]
    with project.batch():
        for _ in encoding.latents_of(project, "run-1", 32):
            pass
        part = encoding._order(project, case, "run-1", 32).part
        assert part.exists()
        others = [
            encoding._order(project, case, "run-1", 16).part,
            encoding._order(project, project.state.cases[1], "run-1", 32).part,
        ]
        changed = case.stains[0].model_copy(update={"mpp": 1.0})
        other = case.model_copy(update={"stains": (changed,)})
        others.append(encoding._order(project, other, "run-1", 32).part)
        assert part not in others


def test_strides_that_make_no_map_say_why(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stride, words in (
        (0, "at least 1 px"),
        (-3, "at least 1 px"),
        (400, "larger than the tissue of case case0"),
        (10**9, "larger than the tissue of case case0"),
    ):
        with pytest.raises(InputError, match=words):
            run(map_clusters(project, MapConfig(stride_px=stride)))
    monkeypatch.setattr(encoding, "_MEMORY_SHARE", 1e-9)
    with pytest.raises(InputError, match=r"latents need .* Use --stride-px \d+ or more"):
        run(map_clusters(project, MapConfig(stride_px=1)))


def test_a_failing_case_fails_the_map_with_its_own_words(
    project: Project, slides: list[Path]
) -> None:
    stain = project.state.cases[2].stains[0]
    run(map_clusters(project, MapConfig()))
    gone = stain.path + ".gone"
    project.move_slides({stain.fingerprint: gone})
    with pytest.raises(PanclusterError, match="is gone"):
        run(map_clusters(project, MapConfig(stride_px=16)))


@contextmanager
def local_cluster(workers: int, *, processes: bool = False) -> Iterator[Any]:
    """Start a scheduler and workers on this machine."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(
        n_workers=workers, processes=processes, protocol="tcp", **options
    ) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_that_is_killed_changes_nothing(project: Project) -> None:
    config, killed = MapConfig(stride_px=5), 0
    with local_cluster(2, processes=True) as cluster:
        for progress in map_clusters(project, config, scheduler=cluster.scheduler_address):
            if not killed and progress.done > 256:
                workers = cluster.scheduler.workers.values()
                busy = next(w.address for w in workers if w.processing)
                nannies = cluster.workers.values()
                killed = next(n.pid for n in nannies if n.worker_address == busy)
                os.kill(killed, signal.SIGKILL)
    assert killed
    found = latents_in(project)
    assert not list(project.latents_folder().iterdir())
    run(map_clusters(project, MapConfig(stride_px=32)))
    run(map_clusters(project, config))
    assert np.array_equal(found, latents_in(project))


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_makes_the_same_map_and_stops_when_told(project: Project) -> None:
    before = project.state
    with local_cluster(1) as cluster:
        address = cluster.scheduler_address
        task = map_clusters(project, MapConfig(stride_px=8), scheduler=address)
        assert any("1 worker" in p.stage and p.total for p in task)
        began = time.monotonic()
        task.close()
        assert time.monotonic() - began < 1 and Project.open(project.root).state == before
        kept = len(parts_of(project))
        worker = next(iter(cluster.workers.values()))
        while worker.state.executing_count:
            time.sleep(0.05)
        # The case under work was given up, too.
        assert time.monotonic() - began < 10 and len(parts_of(project)) <= kept + 1
        stages = {p.stage for p in map_clusters(project, MapConfig(), scheduler=address)}
        # Which of the cases are told as done hangs on the moment one looks.
        assert any(stage.startswith("Mapping on 1 worker, ") for stage in stages)
    found = latents_in(project)
    run(map_clusters(project, MapConfig(stride_px=16)))
    run(map_clusters(project, MapConfig(stride_px=32)))
    assert np.array_equal(found, latents_in(project))


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_does_not_answer_or_has_no_workers_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    assert 2 * cohort._ANSWER_S < 15
    monkeypatch.setattr(cohort, "_ANSWER_S", 0.5)
    with socketserver.TCPServer(("127.0.0.1", 0), _Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        other = f"tcp://127.0.0.1:{stranger.server_address[1]}"
        for address in ("tcp://127.0.0.1:9", "nonsense://here", "127.0.0.1:port", other):
            with pytest.raises(InputError, match="does not answer"):
                run(map_clusters(project, MapConfig(), scheduler=address))
        stranger.shutdown()
    with local_cluster(0) as empty, pytest.raises(InputError, match="has no workers"):
        run(map_clusters(project, MapConfig(), scheduler=empty.scheduler_address))


class _Stranger(socketserver.BaseRequestHandler):
    """A server of another kind."""

    def handle(self) -> None:
        """Answer as a web server does."""
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
