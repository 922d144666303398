"""The commands as typer sees them: flags in, one library call, what is shown."""
