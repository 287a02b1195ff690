"""One configuration a step: the form, the command line's help and the saved JSON."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LARGEST_K = 50


class TissueConfig(BaseModel):
    """How tissue is told from glass."""

    model_config = ConfigDict(frozen=True)

    mpp: float = Field(
        8.0,
        title="Pixel size of the mask (µm/px)",
        gt=0,
        description="Finer keeps thinner strands.",
    )
    sensitivity: float = Field(
        1.0,
        title="Sensitivity",
        ge=0.25,
        le=4,
        description="Higher keeps paler tissue, and more smears with it.",
    )
    close_um: float = Field(
        50.0, title="Close gaps up to (µm)", ge=0, description="Keeps fat cells and small lumina."
    )
    smallest_mm2: float = Field(
        0.02, title="Smallest piece (mm²)", ge=0, description="Smaller pieces count as dust."
    )
    leave_out_marks: bool = Field(
        True,
        title="Leave out pen marks",
        description="Also leaves out long thin lines, as the edge of a coverslip draws them.",
    )


class TrainConfig(BaseModel):
    """How the network is trained."""

    model_config = ConfigDict(frozen=True)

    recipe: Literal["default", "published", "baseline"] = Field(
        "default",
        title="Recipe",
        description="default: what a tissue is does not depend on its orientation, the strength of "
        "its staining or a small shift; published: autoencoder, then information maximisation with "
        "adversarial smoothing, then both together; baseline: plain features and k-means in "
        "seconds, without a network.",
    )
    patch_px: Literal[64, 128, "both"] = Field(
        64,
        title="Patch size (px)",
        description="Side of a square patch in working pixels; both: a patch of 64 px and the 128 "
        "px around it are one place.",
    )
    mpp: float | None = Field(
        None, title="Pixel size (µm/px)", gt=0, description="Default: that of the coarsest stain."
    )
    k: Annotated[int, Field(ge=2, le=LARGEST_K)] | Literal["auto"] = Field(
        "auto",
        title="Clusters",
        description="Number of clusters, or auto to let the indices choose.",
    )
    epochs: int = Field(40, title="Epochs", ge=1, description="Passes over the training patches.")
    seed: int = Field(
        0, title="Seed", ge=0, description="Same seed, same machine, same threads: same clusters."
    )
    threads: int | None = Field(
        None,
        title="CPU threads",
        ge=1,
        description="Default: all or one, whichever is faster at the moment; the same number gives "
        "the same clusters to the last bit.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        title="Device",
        description="Where the network runs; auto takes a GPU if there is one.",
    )
    k_min: int = Field(2, title="Fewest clusters", ge=2, description="Smallest k the run holds.")
    k_max: int = Field(
        20, title="Most clusters", le=LARGEST_K, description="Largest k the run holds."
    )
    patches: int = Field(
        4096, title="Training patches", ge=16, description="Random places that are learnt from."
    )
    store_mb: int = Field(
        1024,
        title="Patch store (MB)",
        ge=16,
        description="Disk space the training patches may take.",
    )
    batch: int = Field(128, title="Batch", ge=4, description="Patches a training step.")
    learning_rate: float = Field(
        1e-3, title="Learning rate", gt=0, description="Of the optimiser Adam."
    )
    pretraining: float = Field(
        0.2,
        title="Share of pre-training",
        ge=0,
        le=1,
        description="Share of the epochs that train the autoencoder alone; with 1 the clusters are "
        "k-means on its latents.",
    )
    shift_share: float = Field(
        0.75,
        title="Shift (patches)",
        ge=0,
        le=1,
        description="How far apart two views of the same tissue may lie.",
    )
    stain_jitter: float = Field(
        0.2,
        title="Stain variation",
        ge=0,
        le=1,
        description="How much the density of a stain may vary without meaning anything.",
    )
    balance: float = Field(
        2.0, title="Balance", gt=0, description="Higher values ask for clusters of more equal size."
    )
    stain_dropout: float = Field(
        0.1,
        title="Stains left out",
        ge=0,
        le=0.9,
        description="Share of the views that do without one of the stains, so that a case that "
        "lacks one can be mapped.",
    )
    least_confidence: float = Field(
        0.2,
        title="Least confidence",
        ge=0,
        le=1,
        description="Where a stain with a doubtful registration lies on the reference less surely "
        "than this, it counts as missing; 0 takes it everywhere.",
    )
    reconstruction: float = Field(
        0.1,
        title="Reconstruction weight",
        ge=0,
        description="Weight of the autoencoder while the clusters are learnt.",
    )
    redundancy: float = Field(
        1.0,
        title="Redundancy weight",
        ge=0,
        description="Weight against latents that repeat each other.",
    )
    width: int = Field(32, title="Network width", ge=8, description="Channels of the first layer.")
    latent: int = Field(64, title="Latents", ge=8, description="Numbers that describe a patch.")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is larger than k_max {self.k_max}")
        return self

    @property
    def ks(self) -> tuple[int, ...]:
        """Every number of clusters the run will hold."""
        asked = {self.k} if isinstance(self.k, int) else set()
        return tuple(sorted(set(range(self.k_min, self.k_max + 1)) | asked))

    @property
    def window_px(self) -> int:
        """Side of what is cut out at a place, in working pixels."""
        return 128 if self.patch_px == "both" else self.patch_px

    @property
    def shift_px(self) -> int:
        """Farthest shift of a view, in working pixels."""
        return round(self.window_px * self.shift_share)


class MapConfig(BaseModel):
    """How densely the tissue is mapped."""

    model_config = ConfigDict(frozen=True)

    stride_px: int | None = Field(
        None, title="Stride (px)", description="Side of a cell of the map; default: half the patch."
    )
    smooth: bool = Field(
        False,
        title="Smooth over neighbours",
        description="Average each cell's probabilities with those of its eight neighbours; the map "
        "says that it is smoothed.",
    )


class SelectConfig(BaseModel):
    """How the number of clusters is judged."""

    model_config = ConfigDict(frozen=True)

    patches: int = Field(
        20_000, title="Patches judged", ge=100, description="Drawn evenly over the cases."
    )
    repeats: int = Field(
        3,
        title="Repeats",
        ge=1,
        le=20,
        description="Random subsets that give each index its spread.",
    )
    seed: int = Field(0, title="Seed", ge=0, description="Draws the patches.")


class EmbedConfig(BaseModel):
    """How the scatter is laid out."""

    model_config = ConfigDict(frozen=True)

    neighbors: int = Field(
        15, title="Neighbours", ge=2, le=200, description="Fewer show detail, more show the whole."
    )
    min_dist: float = Field(
        0.1, title="Least distance", ge=0, le=1, description="How tightly points may be packed."
    )
    fitted: int = Field(
        50_000,
        title="Patches fitted",
        ge=100,
        description="The rest is placed by its nearest latents.",
    )
    seed: int = Field(0, title="Seed", ge=0, description="Same seed: same picture.")


class SynthConfig(BaseModel):
    """What to draw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(
        default=4000,
        title="Size",
        description="Side of the reference slide, in pixels.",
        ge=512,
        le=8000,
    )
    stains: int = Field(
        default=5,
        title="Stains",
        description="How many slides: HE, then CK19, CD31, Ki67 and SMA.",
        ge=1,
        le=5,
    )
    tissues: int = Field(
        default=14,
        title="Tissue types",
        description="How many types of tissue there are.",
        ge=2,
        le=20,
    )
    seed: int = Field(
        default=0, title="Seed", description="The same seed draws the same section.", ge=0
    )
    mpp: float = Field(
        default=0.5,
        title="Pixel size",
        description="µm/px written to the slides; what is drawn does not depend on it.",
        gt=0,
        le=100,
    )
    format: Literal["ome-tiff", "ome-zarr"] = Field(
        default="ome-tiff", title="Format", description="File format of the slides."
    )
    deform: bool = Field(
        default=True,
        title="Deform",
        description="Rotate, mirror and bend the other sections against the first.",
    )


class RegisterConfig(BaseModel):
    """How sections are brought into one frame."""

    model_config = ConfigDict(frozen=True)

    mpp: float = Field(
        default=4.0,
        title="Working pixel size (µm/px)",
        description="Pictures are compared at this size; small sections are read finer.",
        gt=0,
        le=200,
    )
    deformable: bool = Field(
        default=True,
        title="Follow deformations",
        description="Bend the section after turning, moving and shearing it.",
    )
    deformation: Literal["elastic", "demons"] = Field(
        default="elastic",
        title="Kind of deformation",
        description="elastic follows local correlation; demons is SimpleITK's fast symmetric "
        "forces method, less exact on landmarks and kept for comparison.",
    )
    stiffness: float = Field(
        default=1.0,
        title="Stiffness",
        description="Higher keeps the bending smoother; 1 suits serial sections.",
        ge=0.2,
        le=5.0,
    )
    strategy: Literal["auto", "reference", "order"] = Field(
        default="auto",
        title="Way to the reference",
        description="reference lays every stain straight on it; order goes from section to "
        "section, as they are listed; auto goes straight, and along the order where that is not ok "
        "and the order fits better.",
    )
    landmark_use: Literal["pull", "start", "rigid", "affine", "spline"] = Field(
        default="pull",
        title="Landmarks",
        description="start: they take the place of the search; pull: from ten pairs on they draw "
        "the deformation, too; rigid, affine and spline: they alone decide.",
    )
    candidates: int = Field(
        default=6,
        title="Starting positions",
        description="How many of the best rotations are tried out in full.",
        ge=1,
        le=30,
    )
