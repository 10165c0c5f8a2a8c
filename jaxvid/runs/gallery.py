"""`index.html`: the results of a run to look at, without a server."""


def write(manifest):
    return manifest.path.parent / "index.html"
