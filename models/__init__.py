"""The networks of the paper: no files, no configuration, no I/O."""
