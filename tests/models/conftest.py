"""One core and one seed."""

import pytest
import torch

# For the whole process: changed between two trainings, it would die (`avb.train.device`).
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
