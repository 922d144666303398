"""Folders in object storage: stores, their cache on this disk, and their mirror for prep."""
