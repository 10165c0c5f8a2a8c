"""Metrics of generated video, and the protocol they were measured with."""
