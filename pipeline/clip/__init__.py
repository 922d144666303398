"""One clip: decode, track, crop, mel, encode; and its stored pictures and sound back again."""
