"""What a folder of shards is: tar files, the metadata of a clip, checks and counts."""
