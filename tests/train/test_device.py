"""What a process computes on."""

import pytest
import torch

from avb.train.device import use_threads


@pytest.mark.parametrize(("said", "wanted", "told"), [(None, 6, [6]), (None, 0, [1]), ("3", 6, [])])
def test_threads_are_those_wanted_unless_the_user_says(
    said: str | None, wanted: int, told: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", heard.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    use_threads(wanted)
    assert heard == told
