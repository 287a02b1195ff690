"""What a trained network is: made from what, when, with what, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_pancluster.core.errors import ProjectError

CARD, CARD_TEXT = "model_card.json", "model_card.md"
GALLERY, CURVES = "gallery.png", "k_curves.png"


class StainSeen(BaseModel):
    """A stain as the network saw it in training."""

    model_config = ConfigDict(frozen=True)

    name: str
    modality: Literal["brightfield", "fluorescence"] | None = None
    picked: tuple[int, ...] = Field(default=(), description="channels that were read, from 0")
    slide_mpp: tuple[float, float] | None = Field(
        default=None, description="finest and coarsest pixel size of its slides, µm/px"
    )
    od_mean: tuple[float, ...] = Field(default=(), description="of its three channels, in tissue")
    od_std: tuple[float, ...] = ()


class ModelCard(BaseModel):
    """All that a person should know before using a network on other slides."""

    model_config = ConfigDict(frozen=True)

    format_version: int = 1
    run: str
    trained: str | None = Field(default=None, description="date and time, UTC")
    program: str | None = Field(default=None, description="version of napari-pancluster")
    torch: str | None = None
    device: str | None = None
    seconds: float | None = None
    calibrated: bool = Field(default=True, description="whether mpp are µm/px, not px/px")
    mpp: float
    patch_px: int
    cases: int | None = None
    slides: tuple[str, ...] = Field(default=(), description="file names, without their folders")
    stains: tuple[StainSeen, ...]
    ks: tuple[int, ...]
    k: int | None = Field(default=None, description="asked for in training, or suggested")
    curves: dict[str, Any] | None = Field(default=None, description="as select-k returns them")
    losses: dict[str, list[float | None]] = Field(default_factory=dict)
    config: dict[str, Any]
    clusters: dict[int, list[dict[str, Any]]] = Field(
        default_factory=dict, description="names, colours and merges given by people, by k"
    )

    def stain(self, name: str) -> StainSeen:
        """Return what is known of a stain that the network was trained with."""
        return next(s for s in self.stains if s.name == name)

    def as_text(self, pictures: tuple[str, ...] = ()) -> str:
        """Return the card as Markdown.

        Parameters
        ----------
        pictures
            File names of those that lie beside it.
        """
        parts = [
            "# Model card",
            "Tissue clusters without annotation, by napari-pancluster. Research use only.",
            _lines(self._origin()),
            "## Stains\n\n" + _table(_STAIN_COLUMNS, [_stain_cells(s) for s in self.stains]),
            "Applied to slides that differ much from these, clusters may be misplaced; "
            "`pancluster map --model` warns of it.",
            "## Slides\n\n" + "\n".join(f"- {name}" for name in self.slides),
        ]
        if self.curves:
            parts.append("## Number of clusters\n\n" + _curves(self.curves))
        if self.losses:
            parts.append("## Losses, by epoch\n\n" + _losses(self.losses))
        parts += [f"![{Path(name).stem}]({name})" for name in pictures]
        parts.append("## Configuration\n\n" + _lines(self.config))
        return "\n\n".join(parts) + "\n"

    def _origin(self) -> dict[str, Any]:
        unit = "µm/px" if self.calibrated else "px (not calibrated)"
        return {
            "run": self.run,
            "trained": self.trained,
            "napari-pancluster": self.program,
            "torch": self.torch,
            "device": self.device,
            "seconds": None if self.seconds is None else round(self.seconds),
            "pixel size": f"{self.mpp:g} {unit}",
            "patch": f"{self.patch_px} px",
            "cases": self.cases,
            "numbers of clusters": f"{self.ks[0]} to {self.ks[-1]}",
            "k": self.k,
        }


def write_card(folder: Path, card: ModelCard, pictures: tuple[str, ...] = ()) -> None:
    """Write a card into a folder, for programs and for people."""
    (folder / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")
    (folder / CARD_TEXT).write_text(card.as_text(pictures), encoding="utf-8")


def read_card(folder: Path) -> ModelCard | None:
    """Return the card in a folder; None where there is none.

    Raises
    ------
    ProjectError
        If it is damaged.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ProjectError(
            f"{folder / CARD} cannot be read ({str(error).splitlines()[0]}). "
            "Export the model again."
        ) from error


_STAIN_COLUMNS = ("stain", "kind", "slides, µm/px", "mean density (R, G, B)", "its spread")


def _stain_cells(stain: StainSeen) -> tuple[str, ...]:
    finest, coarsest = stain.slide_mpp or (None, None)
    sizes = "" if finest is None else f"{finest:g}"
    if coarsest is not None and coarsest != finest:
        sizes += f" to {coarsest:g}"
    densities = (", ".join(f"{v:.3f}" for v in part) for part in (stain.od_mean, stain.od_std))
    return (stain.name, stain.modality or "", sizes, *densities)


def _curves(curves: Mapping[str, Any]) -> str:
    indices = curves["indices"]
    columns = ("k", *(f"{name} ({entry['better']} is better)" for name, entry in indices.items()))
    rows = [
        (str(k), *(_with_spread(entry["mean"][i], entry["std"][i]) for entry in indices.values()))
        for i, k in enumerate(curves["k"])
    ]
    return f"Suggested: {curves['suggested_k']}. {curves['why']}\n\n{_table(columns, rows)}"


def _with_spread(mean: float | None, std: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"


def _losses(losses: Mapping[str, list[float | None]]) -> str:
    values = list(zip(*losses.values(), strict=True))
    rows = [
        (str(n), *("" if v is None else f"{v:.4g}" for v in line))
        for n, line in enumerate(values, 1)
    ]
    return _table(("epoch", *losses), rows)


def _lines(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items() if value is not None)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
