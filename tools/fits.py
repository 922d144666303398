"""Whether a Python can have avb, and what `make env` will download; runs on any Python 3."""

import platform
import shutil
import sys

OLDEST, NEWEST = (3, 11), (3, 14)


def refusal(version: tuple, name: str) -> str:  # type: ignore[type-arg]
    """Why a Python of a version cannot have avb; empty if it can."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return ""
    return "avb needs Python {}.{} to {}.{}, and {} is {}.{}: make env PYTHON=python3.12".format(
        *OLDEST, *NEWEST, name, *version[:2]
    )


def coming(cuda: bool, gpu: bool) -> str:
    """How much is downloaded, and how to have less of it."""
    if not cuda:
        return "this downloads about 0.8 GB and takes 2.8 GB"
    less = "; no GPU here: with TORCH_INDEX=<PyTorch's index of CPU builds> it is 0.8 GB"
    return "this downloads up to 3 GB and takes 6.5 GB, for a CUDA torch" + (
        less if not gpu else ""
    )


if __name__ == "__main__":
    no = refusal(sys.version_info, sys.executable)
    if no:
        sys.exit(no)
    on_linux = "pypi" in sys.argv[1:] and platform.system() == "Linux"
    print(coming(on_linux, bool(shutil.which("nvidia-smi"))))  # noqa: T201
