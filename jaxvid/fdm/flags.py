"""FDM's command-line flags, both dialects, as overrides of our configs."""


def training_overrides(argv: list[str]) -> list[str]:
    return list(argv)


def sampling_overrides(argv: list[str]) -> list[str]:
    return list(argv)
