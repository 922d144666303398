"""Files of small frozen networks that hear log-mels, the judge's and the vocoder's.

Each is known by its hash, says which clips it learnt from, and hears the log-mels that it was
trained on and no others.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from avb.pipeline.config import Mel
from avb.pipeline.errors import UsageError
from avb.pipeline.parse import checked
from avb.pipeline.stream.index import Index, Ints
from avb.train.evaluate import stored_mels
from avb.train.split import Parts


@dataclass(frozen=True)
class Data:
    """What a file must say of its shards; there may be more."""

    corpus: str
    keys: list[str]
    split: str = ""


@dataclass(frozen=True)
class KeptFile:
    """What every such file must hold; there may be more."""

    weights: dict[str, Tensor]
    mel: Mel
    sample_rate: int
    data: Data
    clips: int
    hash: str


@dataclass(frozen=True)
class Kept:
    """A frozen network, and everything else in its file."""

    network: Any
    facts: dict[str, Any]  # `mel sample_rate data training clips val hash`

    def flags(self) -> dict[str, Any]:
        """What a figure by this network has to be printed with."""
        data = {k: v for k, v in self.facts["data"].items() if k not in ("keys", "listed")}
        seed = self.facts["training"]["seed"]
        return {"hash": self.facts["hash"], **data, "clips": self.facts["clips"], "seed": seed}

    def saw(self, keys: Sequence[str], corpus: str) -> int | None:
        """How many of these clips it was trained on; None for another corpus, whose keys differ."""
        data = self.facts["data"]
        return len(set(keys) & set(data["keys"])) if corpus == data["corpus"] else None


def fingerprint(network: nn.Module) -> str:
    """SHA-256 of all weights and statistics by name, 64 hexadecimal digits; on any device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def to_keep(
    task: str, network: nn.Module, index: Index, parts: Parts, rows: Ints, training: Any,
    val: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """What `checkpoint.save` takes: a network that learnt from `rows`, with its figures `val`."""
    return {
        "task": task,
        "weights": {name: tensor.cpu() for name, tensor in network.state_dict().items()},
        "mel": dataclasses.asdict(stored_mels.front_end(index)),
        "sample_rate": sample_rate(index),
        "data": {
            "corpus": index.dataset["corpus"],
            "fingerprint": index.dataset["fingerprint"],
            **parts.facts(),
            "keys": [index.key(row) for row in rows],
        },
        "training": dataclasses.asdict(training),
        "clips": len(rows),
        "val": val,
        "hash": fingerprint(network),
    }


def sample_rate(index: Index) -> int:
    """That of the shards' sound, in Hz."""
    return int(index.dataset["settings"]["sample_rate"])


def restore(
    state: dict[str, Any], path: Path, shape: type, build: Callable[[dict[str, Any]], nn.Module],
    mel: Mel | None, rate: int, whose: object,
) -> tuple[nn.Module, dict[str, Any]]:  # fmt: skip
    """The network of a file, frozen, on the CPU, and everything else in it.

    UsageError: it is damaged, of another version or of other log-mels.

    Args:
        state: what `checkpoint.load` read of the file.
        shape: the dataclass of what it must hold.
        build: the network without its weights, of the file's `mel`.
        mel, rate: what it is to hear, of `whose` sound, for people; None: what it is made for.
    """
    found = checked(shape, state, str(path), strict=False)
    for field in dataclasses.fields(found.training):  # its defaults are no facts of this file
        if field.name not in state["training"]:
            raise UsageError(f"{path}: training: the key {field.name!r} is missing")
    try:
        network = build(state["mel"])
        network.load_state_dict(state.pop("weights"))
    except (TypeError, RuntimeError):
        raise UsageError(f"{path}: a {state['task']} of another version; train it again") from None
    if fingerprint(network) != state["hash"]:
        raise UsageError(f"{path}: its weights are not those of its hash; train it again")
    check_mels(path, state["task"], state, mel, rate, whose)
    return network.eval().requires_grad_(False), state


def check_mels(
    path: Path, task: str, facts: dict[str, Any], mel: Mel | None, rate: int, whose: object
) -> None:
    """UsageError: the network of a file hears other log-mels; see `restore`."""
    wanted = mel or checked(Mel, facts["mel"], str(path), strict=False)
    if differ := stored_mels.other_mels(facts["mel"], facts["sample_rate"], wanted, rate):
        raise UsageError(
            f"{path}: hears other log-mels than those of {whose}: {differ}; "
            f"train a {task} on these shards: avb train {task}"
        )
