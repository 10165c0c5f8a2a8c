"""FDM: pixel-space video diffusion over any set of observed frames (arXiv:2205.11495)."""
