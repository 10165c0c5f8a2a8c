"""Long and multi-camera video generation with diffusion models, in JAX."""

__version__ = "0.1.0"
