"""The vocoder: a network that makes linear magnitudes of mels, for Griffin-Lim to make sound of."""
