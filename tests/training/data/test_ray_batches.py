"""Batches through Ray Data: those that torch's loader gives, in its order."""

from __future__ import annotations

import numpy as np
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.ray_batches import RayBatches
from training_recipes import illustrated, noise, written


def test_ray_data_gives_the_same_batches(ray_session, tmp_path):
    """Pixels and embeddings among them."""
    one = {"url": str(illustrated(tmp_path, noise())), "inputs": ["pixels", "corners", "caption"]}
    small = {"masking": "all2all", "input_tokens": 20, "target_tokens": 20, "batch_size": 16}
    mine = written(tmp_path / "train.yaml", {"data": {"datasets": {"a": one}, **small}})
    for rank, state in ((0, None), (1, {**TrainingBatches(mine).state_dict(), "position": 48})):
        batches, torch_batches = RayBatches(mine, rank, 2), TrainingBatches(mine, rank, 2)
        if state:
            batches.load_state_dict(state)
            torch_batches.load_state_dict(state)
        count = 0
        for batch, expected in zip(
            batches.dataset(18).iter_batches(batch_size=batches.size), torch_batches, strict=False
        ):
            count += 1
            assert isinstance(batch, dict)
            np.testing.assert_array_equal(batch["positions"], expected["positions"].numpy())
            np.testing.assert_array_equal(batch["skipped"], expected["skipped"].numpy())
            for side in ("inputs", "targets", "arrays"):
                for name, tensor in expected[side].items():
                    found = batch[f"{side}.{name}"]
                    assert found.dtype == tensor.numpy().dtype
                    np.testing.assert_array_equal(found, tensor.numpy())
            assert batches.state_after(batch) == torch_batches.state_after(expected)
        assert count == 18
