"""Training: losses, repeatability, resuming, and refusing what cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_pancluster.core.training as training
from napari_pancluster.core import checkpoint as checkpoints
from napari_pancluster.core.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.consensus import agreed
from napari_pancluster.core.dataset import PatchStore, ViewConfig, Views, view
from napari_pancluster.core.devices import choose_device, mixed_precision
from napari_pancluster.core.errors import InputError, ProjectError, TrainingError
from napari_pancluster.core.latents import Latents
from napari_pancluster.core.losses import (
    adversarial_loss,
    mutual_information_loss,
    one_way,
    reconstruction_loss,
    redundancy_loss,
)
from napari_pancluster.core.middles import middle_latents
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import run
from napari_pancluster.core.recipes import Invariant, Losses
from napari_pancluster.core.training import train


@pytest.fixture
def store() -> PatchStore:
    """96 crops of two stains: noise, of two grain sizes."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 90, (48, 6, 96, 96))
    coarse = rng.integers(0, 90, (48, 6, 12, 12)).repeat(8, 2).repeat(8, 3)
    codes = np.concatenate([fine, coarse]).astype(np.uint8)
    return PatchStore(codes, np.ones((96, 2), bool), 64)


def config(tiny: dict[str, Any], **more: Any) -> TrainConfig:
    return TrainConfig(**{**tiny, "epochs": 3, "shift_share": 0.25, **more})


def finish(store: PatchStore, options: TrainConfig, folder: Path) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    return run(train(store, options, stains=("HE", "PAS"), mpp=0.5, folder=folder))


# As many stains in either view of 32 patches.
SHOWN = torch.full((2, 32), 5.0)


def test_confident_balanced_agreeing_clusters_are_the_optimum() -> None:
    sure = 20 * torch.eye(4).repeat(8, 1)
    best = mutual_information_loss(sure, sure, SHOWN, balance=2.0)
    assert best.item() == pytest.approx(-2.0, abs=1e-3)
    one_cluster = torch.zeros(32, 4).index_fill_(1, torch.tensor([0]), 20.0)
    assert mutual_information_loss(one_cluster, one_cluster, SHOWN, balance=2.0) > best + 1.9
    undecided = torch.zeros(32, 4)
    assert mutual_information_loss(undecided, undecided, SHOWN, balance=2.0) > best + 0.9
    assert mutual_information_loss(sure, sure.roll(1, 1), SHOWN, balance=2.0) > best + 5


def test_a_view_without_a_stain_learns_from_the_whole_one_and_does_not_teach() -> None:
    shown = torch.tensor([[5.0, 5.0, 4.0], [5.0, 4.0, 5.0]])
    logits = torch.randn((2, 3, 4), generator=torch.Generator().manual_seed(0))
    first, second = logits[0].clone().requires_grad_(), logits[1].clone().requires_grad_()
    one, other = one_way(first, second, shown)
    assert torch.equal(one, first) and torch.equal(other, second)
    (one - other).square().sum().backward()
    assert first.grad is not None and second.grad is not None
    assert first.grad.any(1).tolist() == [True, False, True]
    assert second.grad.any(1).tolist() == [True, True, False]


def test_latents_that_repeat_each_other_cost_more_than_agreeing_different_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(512, 8, generator=generator)
    different = redundancy_loss(z, z)
    repeated = redundancy_loss(z[:, :1].expand(-1, 8), z[:, :1].expand(-1, 8))
    assert different.item() == pytest.approx(0.0, abs=0.01)
    assert repeated.item() == pytest.approx(0.7, abs=0.01)  # 0.1 for each of 7 other latents
    assert redundancy_loss(z, z.roll(1, 0)).item() > 0.7  # views that do not agree


def test_a_missing_stain_costs_nothing() -> None:
    target = torch.randn(2, 6, 8, 8)
    wrong = target.clone()
    wrong[:, 3:] += 100
    present = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert reconstruction_loss(wrong, target, present).item() == 0
    assert reconstruction_loss(wrong, target, torch.ones(2, 2)).item() == pytest.approx(5000)


def test_network_shapes_and_masking() -> None:
    network = PatchNetwork(2, (2, 5), width=8, latent=16).eval()
    for side in (64, 128):
        od, present = torch.rand(3, 6, side, side), torch.tensor([[1.0, 0.0]] * 3)
        x = network.normalise(od, present)
        assert (x[:, 3:] == 0).all() and (x[:, :3] != 0).any()
        z, latents = network.encode(x)
        assert z.shape == (3, 16, side // 16, side // 16) and latents.shape == (3, 16)
        assert network.decode(z).shape == od.shape
        assert [tuple(p.shape) for p in network.logits(latents)] == [(3, 2), (3, 5)]


def test_views_are_windows_of_their_own_crop(store: PatchStore) -> None:
    marked = np.zeros_like(store.codes[:8])
    marked += np.arange(1, 9, dtype=np.uint8)[:, None, None, None] * 20
    small = PatchStore(marked, np.ones((8, 2), bool), 64)
    rng = np.random.default_rng(0)
    seen = view(small, np.arange(8), ViewConfig(16, 0.0), rng)
    assert seen.od.shape == (8, 6, 64, 64) and (seen.present == 1).all()
    expected = np.arange(1, 9) * 20 / 127.5
    assert np.allclose(seen.od.mean((1, 2, 3)), expected, atol=1e-4)
    first = np.array([0])
    shifted = {view(store, first, ViewConfig(16, 0.0), rng).od.numpy().tobytes() for _ in range(6)}
    assert len(shifted) == 6
    still = {view(store, first, ViewConfig(0, 0.0), rng).od.numpy().sum() for _ in range(6)}
    assert max(still) == pytest.approx(min(still), rel=1e-5)
    plain = ViewConfig(0, 0.0, turned=False)
    whole = {view(store, first, plain, rng).od.numpy().tobytes() for _ in range(6)}
    assert len(whole) == 1


def test_large_patches_are_learnt_on_small_ones_first(
    store: PatchStore, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    large = PatchStore(store.codes.repeat(2, 2).repeat(2, 3)[:40], store.present[:40], 128)
    sides: list[int] = []
    step = training._step

    def noted(state: Any, views: Any, *rest: Any) -> dict[str, float]:
        sides.append(views.od.shape[-1])
        return step(state, views, *rest)

    monkeypatch.setattr(training, "_step", noted)
    few = {"epochs": 7, "patches": 32, "k_max": 3, "batch": 16, "patch_px": "both"}
    checkpoint = finish(large, config(tiny, **few), tmp_path / "run")
    assert sides == [64] * 12 + [128] * 2
    assert checkpoint.patch_px == 128 and checkpoint.network().pooling == "both"


def test_views_may_lack_a_stain_but_never_all(store: PatchStore) -> None:
    present = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    three = PatchStore(np.zeros((4, 9, 64, 64), np.uint8), present, 64)
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(4), 500)
    shown = view(three, rows, ViewConfig(0, 0.0, stain_dropout=0.4), rng).present.numpy()
    shown = shown.reshape(4, 500, 3)
    assert (shown <= present[:, None]).all()
    missing = present.sum(1)[:, None] - shown.sum(2)
    assert set(np.unique(missing[:2])) == {0, 1} and (missing[2:] == 0).all()
    assert missing[:2].mean(1) == pytest.approx(0.4, abs=0.07)
    # Each of the stains there is left out about as often.
    assert (1 - shown[0].mean(0)) == pytest.approx(0.4 / 3, abs=0.05)


def test_views_are_split_pair_by_pair() -> None:
    od = torch.arange(6.0)[:, None, None, None].expand(6, 3, 2, 2)
    # Three patches, two views of each: 0 and 3 are the same patch.
    halves = Views(od, torch.ones(6, 1)).halves(2)
    assert [h.od[:, 0, 0, 0].tolist() for h in halves] == [[0, 3], [1, 2, 4, 5]]


def grain_found(checkpoint: Checkpoint, store: PatchStore) -> float:
    """Return the share of patches whose cluster, of two, is their grain."""
    network = checkpoint.network()
    with torch.inference_mode():
        od = torch.from_numpy(store.codes[:, :, 16:80, 16:80] / np.float32(127.5))
        _, latents = network.encode(network.normalise(od, torch.ones(96, 2)))
    found = cluster(Latents(latents.numpy()), checkpoint, 2).assignments
    truth = np.repeat([0, 1], 48)
    return float(max((found == truth).mean(), (found != truth).mean()))


def test_training_learns_the_grain(store: PatchStore, tiny: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = finish(store, config(tiny, k=2, epochs=8), tmp_path / "run")
    assert grain_found(checkpoint, store) > 0.95
    stages = [entry.get("clustering") for entry in checkpoint.history]
    assert stages[0] is None and stages[-1] < -0.8


def test_same_seed_same_weights_and_other_seed_other_weights(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    one = finish(store, config(tiny), tmp_path / "a")
    two = finish(store, config(tiny), tmp_path / "b")
    other = finish(store, config(tiny, seed=1), tmp_path / "c")
    assert all(torch.equal(one.weights[n], two.weights[n]) for n in one.weights)
    assert not torch.equal(one.weights["heads.0.weight"], other.weights["heads.0.weight"])


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    straight = finish(store, config(tiny), tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    task = train(store, config(tiny), stains=("HE", "PAS"), mpp=0.5, folder=folder)
    for progress in task:
        if progress.done == 9:  # in the middle of the second epoch of six steps
            break
    task.close()
    assert (folder / "state.safetensors").exists()
    resumed = finish(store, config(tiny), folder)
    assert all(torch.equal(straight.weights[n], resumed.weights[n]) for n in straight.weights)
    assert resumed.history == straight.history


def test_the_callers_random_numbers_are_left_alone(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    finish(store, config(tiny, epochs=1), tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_survives_the_disk_and_a_cut_one_is_refused(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    checkpoint = finish(store, config(tiny, epochs=1, k=3), tmp_path / "run")
    write_checkpoint(tmp_path, checkpoint)
    read = read_checkpoint(tmp_path)
    assert (read.stains, read.heads, read.ks, read.k) == (
        ("HE", "PAS"),
        (2, 3, 4, 30, 60),
        (2, 3, 4),
        3,
    )
    assert all(torch.equal(checkpoint.weights[n], read.weights[n]) for n in read.weights)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ProjectError, match="Train again"):
        read_checkpoint(tmp_path)


def test_what_cannot_be_trained_is_refused(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    few = PatchStore(store.codes[:16], store.present[:16], 64)
    with pytest.raises(TrainingError, match="16 training patches are fewer than 20 clusters"):
        finish(few, config(tiny, k_max=20), tmp_path / "a")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cuda is not available"):
            choose_device("cuda")


def failing(
    monkeypatch: pytest.MonkeyPatch, error: Exception, when: Callable[[int, int], bool]
) -> list[int]:
    """Let a training step raise, given its number and its patches; return the sizes of the rest."""
    step, calls, sizes = training._step, [0], list[int]()

    def maybe(state: Any, views: Any, options: Any, recipe: Any, done: float) -> dict[str, float]:
        calls[0] += 1
        patches = len(views) // recipe.copies
        if when(calls[0], patches):
            raise error
        sizes.append(patches)
        return step(state, views, options, recipe, done)

    monkeypatch.setattr(training, "_step", maybe)
    return sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_says_so_and_goes_on(
    store: PatchStore,
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    sizes = failing(monkeypatch, error, lambda call, batch: call > 3 and batch > 8)
    with pytest.warns(UserWarning, match="not enough memory on CPU for a batch of") as told:
        checkpoint = finish(store, config(tiny, epochs=2), tmp_path / "run")
    # 6 steps of 32 an epoch: all patches are seen, however many steps it takes.
    assert sizes == [32] * 3 + [8] * 36 and len(told) == 2
    assert "goes on with 16" in str(told[0].message) and "with 8" in str(told[1].message)
    assert len(checkpoint.history) == 2 and checkpoint.history[-1]["reconstruction"] > 0


def test_a_resumed_run_keeps_the_batch_that_fitted(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA out of memory")
    with monkeypatch.context() as patched:
        failing(patched, error, lambda call, batch: batch > 16)
        task = train(store, config(tiny), stains=("HE", "PAS"), mpp=0.5, folder=tmp_path)
        with pytest.warns(UserWarning, match="goes on with 16"):
            while next(task).done < 9:
                pass
        task.close()
    sizes = failing(monkeypatch, error, lambda call, batch: False)
    finish(store, config(tiny), tmp_path)
    assert set(sizes) == {16}


def test_a_batch_that_cannot_be_smaller_is_told(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, MemoryError(), lambda call, batch: True)
    with (
        pytest.warns(UserWarning, match="goes on with") as told,
        pytest.raises(TrainingError, match="batch of 4. Close other programs, then resume"),
    ):
        finish(store, config(tiny), tmp_path)
    assert str(told[-1].message).endswith("goes on with 4.")


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch is older than 2.8")
def test_a_device_that_vanishes_is_told_and_the_run_ends_as_if_it_had_not(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = finish(store, config(tiny), tmp_path / "a")
    (tmp_path / "b").mkdir()
    with monkeypatch.context() as patched:
        error = torch.AcceleratorError("CUDA error: device unavailable\nCompile with DSA")
        failing(patched, error, lambda call, batch: call == 15)
        words = r"stopped working \(CUDA error: device unavailable\) in epoch 3.*--device cpu"
        with pytest.raises(TrainingError, match=words):
            finish(store, config(tiny), tmp_path / "b")
    resumed = finish(store, config(tiny), tmp_path / "b")
    assert all(torch.equal(straight.weights[n], resumed.weights[n]) for n in straight.weights)


def test_a_bug_is_not_taken_for_a_lost_device(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, RuntimeError("shapes do not fit"), lambda call, batch: True)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        finish(store, config(tiny), tmp_path)


def test_a_state_that_a_disk_spoilt_is_passed_over_for_the_one_before(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    straight = finish(store, config(tiny), tmp_path / "a")
    folder = tmp_path / "b"
    folder.mkdir()
    task = train(store, config(tiny), stains=("HE", "PAS"), mpp=0.5, folder=folder)
    while next(task).done < 14:
        pass
    task.close()
    newest = folder / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged. It goes on from epoch 1"):
        resumed = finish(store, config(tiny), folder)
    assert all(torch.equal(straight.weights[n], resumed.weights[n]) for n in straight.weights)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ProjectError, match="is damaged .* Train anew"):
        finish(store, config(tiny), folder)


def test_a_full_disk_is_told_and_what_was_kept_before_is_whole(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = finish(store, config(tiny), tmp_path / "a")
    folder, save, calls = tmp_path / "b", checkpoints.save_file, [0]

    def full(tensors: Any, file: Path, notes: Any) -> None:
        calls[0] += 1
        if calls[0] < 3:
            save(tensors, file, notes)
            return
        Path(file).write_bytes(b"half of it")
        raise checkpoints.SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_file", full)
        with pytest.raises(ProjectError, match=r"Epoch 3 .*disk is full\)\. Free some .* resume"):
            finish(store, config(tiny), folder)
    assert sorted(f.name for f in folder.iterdir()) == ["before.safetensors", "state.safetensors"]
    resumed = finish(store, config(tiny), folder)
    assert all(torch.equal(straight.weights[n], resumed.weights[n]) for n in straight.weights)
    assert resumed.history == straight.history


def test_a_loss_that_is_no_number_keeps_what_was_trained_and_says_what_helps(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = Invariant.losses, [0]

    def spoilt(*args: Any) -> Losses:
        calls[0] += 1
        found = losses(*args)
        if calls[0] != 9:
            return found
        return Losses({n: v * float("nan") for n, v in found.parts.items()})

    with monkeypatch.context() as patched:
        patched.setattr(Invariant, "losses", spoilt)
        with pytest.raises(TrainingError, match="no longer a number in epoch 2.*--learning-rate 0"):
            finish(store, config(tiny, threads=1), tmp_path / "a")
    slower = finish(store, config(tiny, threads=1, learning_rate=0.001), tmp_path / "a")
    assert len(slower.history) == 3
    assert all(bool(torch.isfinite(w).all()) for w in slower.weights.values())


def test_patches_that_are_all_alike_are_refused(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    alike = PatchStore(np.repeat(store.codes[:1], 96, 0), store.present, 64)
    with pytest.raises(TrainingError, match="All training patches are alike"):
        finish(alike, config(tiny), tmp_path / "run")


def test_one_constant_stain_is_told_and_the_others_are_learnt(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    codes = store.codes.copy()
    codes[:, 3:] = 7
    flat = PatchStore(codes, store.present, 64)
    with pytest.warns(UserWarning, match="PAS is the same everywhere"):
        checkpoint = finish(flat, config(tiny, k=2, epochs=8), tmp_path / "run")
    assert all(np.isfinite(v) for entry in checkpoint.history for v in entry.values())
    assert grain_found(checkpoint, flat) > 0.95


def test_the_device_is_chosen_said_and_used_in_the_layout_and_precision_that_pay(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[str] = []
    task = train(store, config(tiny, epochs=1, k=2), stains=("HE", "PAS"), mpp=0.5, folder=tmp_path)
    checkpoint = run(task, lambda progress: seen.append(progress.stage))
    device = choose_device("auto")
    if device.type == "cpu":
        assert any(stage.endswith(" on CPU") for stage in seen)
    assert isinstance(mixed_precision(device), bool) and checkpoint.ks == (2, 3, 4)
    state = training._start(store, config(tiny))
    assert state.network.stages[1][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_an_autoencoder_alone_has_clusters_of_its_latents(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    codes = store.codes + np.arange(96, dtype=np.uint8)[:, None, None, None] // 48 * 60
    shades = PatchStore(codes, store.present, 64)
    checkpoint = finish(shades, config(tiny, pretraining=1, k=2), tmp_path / "run")
    assert all(set(entry) == {"epoch", "reconstruction"} for entry in checkpoint.history)
    latents = run(middle_latents(checkpoint.network(), shades, np.arange(96)))
    decided = run(agreed(checkpoint, latents[None]))
    assert grain_found(decided, shades) > 0.95 and decided.voters == []


@pytest.mark.parametrize("recipe", ["published", "baseline"])
def test_the_other_recipes_tell_pale_from_dense_and_are_read_back(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path, recipe: str
) -> None:
    codes = store.codes + np.arange(96, dtype=np.uint8)[:, None, None, None] // 48 * 60
    shades = PatchStore(codes, store.present, 64)
    checkpoint = finish(shades, config(tiny, recipe=recipe, k=2, epochs=6), tmp_path / "run")
    assert grain_found(checkpoint, shades) > 0.95
    write_checkpoint(tmp_path, checkpoint)
    network = read_checkpoint(tmp_path).network()
    seen = view(store, np.arange(8), ViewConfig(0, 0.0, turned=False), np.random.default_rng(0))
    with torch.inference_mode():
        latents = network.encode(network.normalise(seen.od, seen.present))[1]
    assert latents.shape == (8, network.latent) and torch.isfinite(latents).all()


def test_published_training_goes_from_stage_to_stage(
    store: PatchStore, tiny: dict[str, Any], tmp_path: Path
) -> None:
    stages: list[str] = []
    options = config(tiny, recipe="published", epochs=10)
    task = train(store, options, stains=("HE", "PAS"), mpp=0.5, folder=tmp_path)
    checkpoint = run(task, lambda progress: stages.append(progress.stage.partition(" on ")[0]))
    order = [f"Training {s}" for s in ("autoencoder", "clusters", "both together")]
    assert list(dict.fromkeys(stages)) == order
    assert [list(e) for e in checkpoint.history[3:5]] == [
        ["epoch", "reconstruction"],
        ["epoch", "reconstruction", "clustering", "smoothing"],
    ]


def test_context_and_detail_of_a_place_both_count() -> None:
    """Two patches of the same tissues, which differ in what lies in the middle."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(3, 128, 128, generator=generator)
    one[:, 32:96, 32:96] *= 0.2
    x = torch.stack([one, one.roll((64, 64), (1, 2))])
    apart = {}
    for pooling in ("texture", "both"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = PatchNetwork(1, (2,), width=8, latent=16, pooling=pooling).eval()
        with torch.inference_mode():
            z = network.encode(network.normalise(x, torch.ones(2, 1)))[1]
        apart[pooling] = float((z[0] - z[1]).norm() / z.norm())
    assert apart["both"] > 5 * apart["texture"]


def test_a_worst_small_step_hurts_more_than_any_other_of_its_length() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 8, generator=generator)
    weight = torch.randn(5, 8, generator=generator)
    worst = adversarial_loss(lambda z: [z @ weight.T], latents)[0]
    length = 0.25 * torch.cdist(latents, latents).kthvalue(11, dim=1).values[:, None]
    target = torch.softmax(latents @ weight.T, 1)
    for _ in range(5):
        step = torch.nn.functional.normalize(torch.randn(64, 8, generator=generator), dim=1)
        moved = torch.log_softmax((latents + length * step) @ weight.T, 1)
        other = torch.nn.functional.kl_div(moved, target, reduction="batchmean") / np.log(5)
        assert worst > 1.5 * other
