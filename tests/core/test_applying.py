"""A network trained elsewhere: what it says of itself, what comes with it, and its warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, TINY, texture, write_slide

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import MapConfig, SelectConfig
from napari_pancluster.core.edits import ClusterEdits, Rename
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.model_card import read_card
from napari_pancluster.core.pipeline.describe import steps_in_words
from napari_pancluster.core.pipeline.encoding import checkpoint_of
from napari_pancluster.core.pipeline.exporting import export
from napari_pancluster.core.pipeline.mapping import map_clusters, select_clusters
from napari_pancluster.core.pipeline.models import export_model
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.pipeline.viewing import edits_of, open_results, save_edits
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project


def section(path: Path, *, seed: int, density: float = 1.0, mpp: float = 2.0) -> Path:
    """Draw a fine half beside a coarse one, more or less densely stained."""
    halves = [texture((320, 210), coarse=c, seed=seed + c) for c in (False, True)]
    rgb = np.concatenate(halves, axis=1)
    od = -np.log10((rgb + 1.0) / (GLASS + 1)) * density
    return write_slide(path, ((GLASS + 1) * 10**-od - 1).clip(0, 255).astype(np.uint8), mpp)


def project_of(folder: Path, name: str, **slides: Path) -> Project:
    entries = [SlideEntry("block", stain, path) for stain, path in slides.items()]
    return Project.create(folder / name, make_cases(entries))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a network, a map, judged k and a cluster that has a name."""
    folder = tmp_path_factory.mktemp("trained")
    project = project_of(folder, "source", **{"H&E": section(folder / "secret.ome.tif", seed=0)})
    run_id = run(train_network(project, {**TINY, "epochs": 4, "k": 2}))["run"]
    run(select_clusters(project, SelectConfig(repeats=2), MapConfig()))
    run(map_clusters(project, MapConfig()))
    save_edits(project, run_id, ClusterEdits(2).then(Rename(label=1, name="Fine grain")))
    return project


@pytest.fixture(scope="module")
def model(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "grain"
    run(export_model(trained, out))
    return out


def test_a_model_card_says_what_the_network_is_and_no_paths(trained: Project, model: Path) -> None:
    names = {f.name for f in model.iterdir()}
    assert names == {
        "model.safetensors",
        "model.json",
        "model_card.json",
        "model_card.md",
        "gallery.png",
        "k_curves.png",
    }
    card = read_card(model)
    assert card is not None and card.run == trained.runs()[-1]
    assert card.trained is not None and card.trained.startswith("20")
    assert (card.mpp, card.patch_px, card.cases, card.k) == (2.0, 64, 1, 2)
    assert card.slides == ("secret.ome.tif",) and card.ks == (2, 3, 4)
    (stain,) = card.stains
    assert (stain.name, stain.modality, stain.slide_mpp) == ("H&E", "brightfield", (2.0, 2.0))
    assert len(stain.od_mean) == len(stain.od_std) == 3 and min(stain.od_mean) > 0
    assert card.curves is not None and card.curves["k"] == [2, 3, 4]
    assert len(card.losses["reconstruction"]) == 4
    text = (model / "model_card.md").read_text()
    assert "H&E" in text and "gallery.png" in text and "Suggested: " in text
    for file in ("model.json", "model_card.json", "model_card.md"):
        assert str(trained.root.parent) not in (model / file).read_text()
    with pytest.raises(InputError, match="holds a model already"):
        run(export_model(trained, model))


def test_an_applied_model_is_a_run_like_any_other(
    model: Path, trained: Project, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    target = project_of(tmp_path, "target", he=section(tmp_path / "new.ome.tif", seed=10))
    mapped = run(map_clusters(target, MapConfig(), model=str(model)))
    assert mapped["warnings"] == [] and not recwarn.list
    assert target.runs() == [mapped["run"]] and mapped["k"] == 2
    assert checkpoint_of(target, mapped["run"]).stains == ("he",)
    assert steps_in_words(target)["train"][1].startswith("Not trained here: grain, applied")
    assert edits_of(target, mapped["run"], 2).name(1) == "Fine grain"
    # The same tissues at the same places of another section have the same labels.
    own, theirs = run(open_results(trained)), run(open_results(target))
    assert np.array_equal(own.table.grids[0].index, theirs.table.grids[0].index)
    assert np.mean(own.assignments[2] == theirs.assignments[2]) > 0.85
    assert 0.1 < np.mean(own.assignments[2]) < 0.9
    # Again is the same run; what follows works, and the card travels on.
    again = run(map_clusters(target, MapConfig(stride_px=16), model=str(model), k=3))
    assert again["run"] == mapped["run"] and again["k"] == 3
    assert run(select_clusters(target, SelectConfig(repeats=1), MapConfig()))["k"] == [2, 3, 4]
    assert run(export(target, tmp_path / "out", ["csv"]))["files"]
    run(export_model(target, tmp_path / "passed on"))
    assert read_card(tmp_path / "passed on") == read_card(model)
    assert (tmp_path / "passed on" / "gallery.png").exists()
    with pytest.raises(InputError, match="holds k = 2 to 4, not 9"):
        run(map_clusters(target, MapConfig(), model=str(model), k=9))


def test_a_project_can_be_the_model_and_a_cancelled_map_takes_nothing_in(
    trained: Project, tmp_path: Path
) -> None:
    target = project_of(tmp_path, "target", HE=section(tmp_path / "new.ome.tif", seed=10))
    before = target.state
    source = f"{trained.root}:{trained.runs()[0]}"
    task = map_clusters(target, MapConfig(stride_px=8), model=source)
    next(p for p in task if p.stage == "Mapping block" and p.done)
    task.close()
    assert Project.open(target.root).state == before
    assert not list((target.root / "artefacts").glob("train/*"))
    mapped = run(map_clusters(target, MapConfig(), model=str(trained.root)))
    assert target.runs() == [mapped["run"]]


def test_what_differs_from_training_is_said_in_words(
    trained: Project, model: Path, tmp_path: Path
) -> None:
    def warnings_of(name: str, **slides: Path) -> list[str]:
        target = project_of(tmp_path, name, **slides)
        with pytest.warns(UserWarning) as caught:
            found = run(map_clusters(target, MapConfig(), model=str(model)))["warnings"]
        assert {str(w.message) for w in caught} == set(found)
        assert target.state.artefacts[f"map/{target.runs()[0]}"].summary["warnings"] == found
        return list(found)

    pale = section(tmp_path / "pale.ome.tif", seed=10, density=0.5)
    (told,) = warnings_of("pale", HE=pale)
    assert "HE of case block is paler than in the slides of the model" in told
    dense = section(tmp_path / "dense.ome.tif", seed=10, density=1.9)
    (told,) = warnings_of("dense", HE=dense)
    assert "is denser than" in told
    finer = section(tmp_path / "finer.ome.tif", seed=10, mpp=1.0)
    (told,) = (t for t in warnings_of("finer", HE=finer) if "scanned" in t)
    assert "HE was scanned at 1 µm/px" in told and "at 2:" in told
    fine = section(tmp_path / "fine.ome.tif", seed=10)
    told = " ".join(warnings_of("more", HE=fine, PAS=fine))
    assert "PAS is not looked at" in told


def test_models_that_do_not_fit_are_refused(trained: Project, model: Path, tmp_path: Path) -> None:
    slide = section(tmp_path / "a.ome.tif", seed=10)

    def refused(target: Project, source: object, words: str) -> None:
        with pytest.raises(InputError, match=words):
            run(map_clusters(target, MapConfig(), model=str(source)))
        assert not target.runs()

    refused(project_of(tmp_path, "pas", PAS=slide), model, r"trained on H&E; pas.*has PAS")
    coarse = section(tmp_path / "coarse.ome.tif", seed=10, mpp=4.0)
    refused(project_of(tmp_path, "coarse", HE=coarse), model, "finer than HE .* which has 4")
    plain = project_of(tmp_path, "plain", HE=slide)
    refused(
        plain, tmp_path / "nothing", "neither a folder made by 'pancluster model' nor a project"
    )
    cases = make_cases([SlideEntry("block", "HE", slide)], uncalibrated=True)
    refused(Project.create(tmp_path / "px", cases), model, "not calibrated")
    with pytest.raises(InputError, match="Both --run and --model"):
        run(map_clusters(plain, MapConfig(), model=str(model), run="x"))
