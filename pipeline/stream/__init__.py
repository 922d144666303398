"""Shards to batches: index, order, decoding into arrays, an endless stream."""
