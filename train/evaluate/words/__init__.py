"""Word errors of speech: GRID's grammar, and the recognisers that judge."""
