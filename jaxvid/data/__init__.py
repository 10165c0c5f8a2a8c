"""Datasets of videos and the batches made of them."""
