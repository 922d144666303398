"""The package: `avb.pipeline`, `avb.models`, `avb.train`, `avb.tools`, links to the folders."""

__version__ = "0.1.0"
