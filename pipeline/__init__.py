"""Raw video to shards, and shards to batches."""
