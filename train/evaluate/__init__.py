"""Checkpoints measured: one pass of a split's part as one record, and records compared."""
