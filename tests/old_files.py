"""Comparing what is loaded from an old writer's file with the weights and logits that the writer recorded."""

import hashlib
import lzma

import numpy as np
import torch

from trojai_moth.loading import load_model

INPUT = (np.random.RandomState(7).randint(0, 256, (2, 3, 224, 224)) / 255.0).astype("float32")


def weights_sha256(module):
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def check_against_writer(folder, name, container, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(lzma.decompress((folder / f"{name}.pt.xz").read_bytes()))
    loaded = load_model(path, architecture=name, classes=20)
    path.unlink()
    written = np.load(folder / f"{name}.npz")
    assert (loaded.architecture, loaded.classes, loaded.container, loaded.attested) == (name, 20, container, True)
    assert loaded.sha256 == str(written["file_sha256"])
    assert weights_sha256(loaded.module) == str(written["sd_sha256"])
    assert not any(module.training for module in loaded.module.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.module.parameters())
    with torch.no_grad():
        logits = loaded.module(torch.from_numpy(INPUT)).numpy()
    scale = np.abs(written["logits"]).max()
    np.testing.assert_allclose(logits, written["logits"], rtol=0, atol=1e-4 * scale)
