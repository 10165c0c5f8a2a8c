"""Scene annotations in, control videos out."""
