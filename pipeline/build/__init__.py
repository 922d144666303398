"""A corpus to shards: the plan, the units of work, where they run, and the manifest."""
