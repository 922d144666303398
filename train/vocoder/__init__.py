"""Vocoders: a refiner before Griffin-Lim, which is trained here, and runs of `avb train vocos`."""
