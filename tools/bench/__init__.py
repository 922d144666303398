"""`avb bench`: side by side in one run."""
