"""Wan2.1: the video VAE, text encoder and diffusion transformer that other systems stand on."""
