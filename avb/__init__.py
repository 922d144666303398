"""The front door of the package: `avb.pipeline`, `avb.models`, `avb.train`, `avb.tools`."""

from pathlib import Path

__version__ = "0.1.0"

# In a plain checkout the four folders lie beside this one, not inside it. Appending the checkout
# makes `python -m avb` and `torchrun -m avb ...` run from a clone that was never installed.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "pipeline/__init__.py").is_file():
    __path__.append(str(_checkout))
