"""How every number is measured: pure functions, no files and no checkpoints."""
