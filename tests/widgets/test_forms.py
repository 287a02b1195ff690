"""Forms show a config's fields, keep to its ranges, and give back what it takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from qtpy.QtWidgets import QLabel

from napari_pancluster._widgets.forms import Form
from napari_pancluster.core.config import (
    EmbedConfig,
    MapConfig,
    RegisterConfig,
    SelectConfig,
    TrainConfig,
)


@pytest.mark.parametrize(
    "model", [EmbedConfig, MapConfig, RegisterConfig, SelectConfig, TrainConfig]
)
def test_an_untouched_form_is_the_config_s_defaults(qtbot: Any, model: type[BaseModel]) -> None:
    form = Form(model, tuple(model.model_fields))
    assert model(**form.given) == model()


def test_labels_tooltips_and_ranges_are_the_config_s(qtbot: Any) -> None:
    form = Form(TrainConfig, ("patch_px", "k", "pretraining", "batch"))
    field = TrainConfig.model_fields["k"]
    label = next(w for w in form.native.findChildren(QLabel) if w.text() == field.title)
    assert label.buddy() is form["k"].native and form["k"].tooltip == field.description
    assert form["patch_px"].choices == (64, 128, "both")
    assert (form["pretraining"].min, form["pretraining"].max) == (0, 1)
    assert form["batch"].min == 4 and form["k"].max == 50


def test_automatic_is_shown_in_words_and_means_the_default(qtbot: Any) -> None:
    form = Form(TrainConfig, ("k", "mpp"), {"k": 14})
    assert form.given == {"k": 14, "mpp": None}
    assert form["mpp"].native.text() == "automatic"
    form["k"].value = form["k"].min
    form["mpp"].value = 0.5
    assert form.given == {"k": "auto", "mpp": 0.5}
    assert form["k"].native.text() == "automatic"
    TrainConfig(**form.given)
