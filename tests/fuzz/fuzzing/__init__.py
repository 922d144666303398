"""Damaged films, checkpoints and shards, given to the commands in a pool of warm children."""
