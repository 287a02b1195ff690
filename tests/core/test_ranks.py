"""Training by several processes, as torchrun starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import json
import sys
from pathlib import Path

import numpy as np
import torch

from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.dataset import PatchStore
from napari_pancluster.core.progress import run
from napari_pancluster.core.ranks import Ranks, join
from napari_pancluster.core.training import train


def work():
    ranks, layer = Ranks.found(), torch.nn.Linear(2, 1)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, float(ranks.rank))
    ranks.average_gradients(layer)
    told = ranks.tell({"from": ranks.rank, "word": "é"})
    codes = np.random.default_rng(0).integers(0, 90, (64, 3, 96, 96)).astype(np.uint8)
    store = PatchStore(codes, np.ones((64, 1), bool), 64)
    tiny = {"epochs": 2, "patches": 64, "batch": 16, "width": 8, "latent": 16, "threads": 1}
    config = TrainConfig(k=2, k_max=2, **tiny)
    folder = Path(sys.argv[1])
    found = run(train(store, config, stains=("HE",), mpp=0.5, folder=folder))
    names = ("pool.weight", "stages.0.0.weight")
    learnt = sum(float(found.weights[n].double().sum()) for n in names)
    facts = {
        "rank": ranks.rank,
        "gradients": [float(g) for p in layer.parameters() for g in p.grad.flatten()],
        "told": told,
        "learnt": learnt,
        "epochs": len(found.history),
    }
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(facts))


join(work, work, device="cpu")
"""


@pytest.mark.slow
def test_all_processes_learn_one_network_from_their_shares(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(_SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "--standalone", str(script), str(tmp_path)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)
    facts = [json.loads((tmp_path / f"rank{n}.json").read_text()) for n in (0, 1)]
    assert [f["rank"] for f in facts] == [0, 1]
    for one in facts:
        assert one["gradients"] == [0.5] * 3
        assert one["told"] == {"from": 0, "word": "é"}
        assert one["epochs"] == 2
    assert facts[0]["learnt"] == facts[1]["learnt"]
    assert (tmp_path / "state.safetensors").exists()
