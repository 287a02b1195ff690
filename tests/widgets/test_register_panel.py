"""The panel Register: a line turns every box to its stain, and what is asked of Work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import GLASS, write_slide
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration import Landmarks

QUICK = RegisterConfig(candidates=1, deformable=False)


@pytest.fixture
def panel(main: Any, tmp_path: Path, wait: Callable[..., None]) -> Any:
    """The panel over a case whose two moving stains are registered."""
    rng = np.random.default_rng(1)
    r, c = np.mgrid[:160, :160] / 160 - 0.5
    inside = gaussian_filter((np.hypot(r * 1.2, c) < 0.35).astype(float), 1)
    strength = inside * np.clip(1 + 2 * gaussian_filter(rng.normal(size=r.shape), 3), 0.2, 2.5)
    entries = []
    for name in ("HE", "PAS", "CK7"):
        rgb = GLASS * 10 ** -(strength[..., None] * np.array([0.2, 0.45, 0.25]))
        path = write_slide(tmp_path / f"{name}.tif", rgb.astype(np.uint8), 8.0)
        entries.append(SlideEntry("block", name, path))
    project = Project.create(tmp_path / "p.pancluster", make_cases(entries))
    run(register(project, QUICK))
    main.open_project(project.root)
    wait(lambda: main.session.stack is not None and not main.jobs.busy)
    return main.register


def test_a_line_turns_every_box_to_its_stain_and_offers_to_register_it_alone(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(panel._work, "register", lambda config, **more: asked.append(more))
    assert not panel._again.isEnabled()
    panel.table.chosen.emit("block", "CK7")
    boxes = (panel.compare, panel.evidence, panel.landmarks, panel.by_hand, panel.versions)
    assert {box.stain.currentText() for box in boxes} == {"CK7"}
    assert panel._again.text() == "Only CK7" and panel._again.isEnabled()
    panel._again.click()
    panel._go.click()
    assert asked == [{"cases": ["block"], "stains": ["CK7"]}, {}]


def test_landmarks_register_their_stain_the_way_they_are_to_be_used(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[RegisterConfig, dict[str, Any]]] = []
    monkeypatch.setattr(
        panel._work, "register", lambda config, **more: asked.append((config, more))
    )
    marks = Landmarks(np.zeros((3, 2)), np.ones((3, 2)))
    panel.landmarks.wanted.emit("PAS", marks, "rigid")
    ((config, more),) = asked
    assert config.landmark_use == "rigid"
    assert more == {"cases": ["block"], "stains": ["PAS"], "landmarks": {"PAS": marks}}


def test_another_project_forgets_the_chosen_line(panel: Any, main: Any) -> None:
    panel.table.chosen.emit("block", "CK7")
    main.session.show_project(None)
    assert panel._chosen == ("", "") and not panel._again.isEnabled()
