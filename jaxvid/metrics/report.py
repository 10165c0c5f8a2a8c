"""The table that an evaluation prints: our figures with the published ones beside them."""

from jaxvid.metrics import published
from jaxvid.metrics.summary import HIGHER_IS_BETTER
from jaxvid.metrics.weights import I3D_PROVENANCE

FRAME_COLUMNS = ("best", "best_avg", "mean", "random")
UNITS = {"psnr": "dB", "elbo": "bits/dim", "rooms": "share"}


def table(summary: dict[str, dict], dataset: str, protocol: dict[str, dict]) -> str:
    """Text lines for a summary (see `summary.summarise`) of results on a dataset."""
    lines = []
    frame_metrics = [metric for metric in HIGHER_IS_BETTER if metric in summary]
    if frame_metrics:
        lines.append(f"{'metric':<12}" + "".join(f"{name:>12}" for name in FRAME_COLUMNS))
    for metric in frame_metrics:
        values = "".join(f"{summary[metric][name]:>12.4f}" for name in FRAME_COLUMNS)
        lines.append(f"{title(metric):<12}{values}")
    for metric in ("fvd", "rooms", "elbo"):
        if metric in summary:
            lines.append(f"{title(metric):<12}  {with_error(summary[metric])}")
    for metric in summary:
        rows = published.figures(metric, dataset)
        if rows:
            figures = ", ".join(f"{scheme} {with_error(row)}" for scheme, row in rows.items())
            lines.append(f"published {metric} on {dataset}: {figures}")
    if any(published.figures(metric, dataset) for metric in summary):
        lines.append(f"published with: {published.PROTOCOL}")
    if "fvd" in summary:
        lines.append(I3D_PROVENANCE)
    shared = shared_fields(protocol)
    lines.append(f"protocol: {brief(shared)}")
    for metric, fields in protocol.items():
        own = {name: value for name, value in fields.items() if name not in shared}
        if own:
            lines.append(f"  {metric}: {brief(own)}")
    return "\n".join(lines)


def shared_fields(protocol: dict[str, dict]) -> dict:
    """The fields that all metrics measured here have in common."""
    first, *rest = protocol.values()
    return {
        name: value
        for name, value in first.items()
        if all(name in fields and fields[name] == value for fields in rest)
    }


def title(metric: str) -> str:
    unit = UNITS.get(metric)
    return f"{metric} ({unit})" if unit else metric


def with_error(value: dict) -> str:
    """`53.1 +- 1.1`, or only the mean where there is no error."""
    mean = f"{value['mean']:.4g}"
    return mean if value["error"] is None else f"{mean} +- {value['error']:.2g}"


def brief(fields: dict) -> str:
    """A protocol on one line; the list of videos as a count, hashes cut."""
    shown = {**fields}
    if "videos" in shown:
        shown["videos"] = len(shown["videos"])
    if shown.get("weights"):
        shown["weights"] = shown["weights"][:12]
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def published_beside(summary: dict[str, dict], dataset: str) -> dict:
    """The published figures of the summary's metrics, for the JSON."""
    rows = {metric: published.figures(metric, dataset) for metric in summary}
    rows = {metric: figures for metric, figures in rows.items() if figures}
    return rows | {"protocol": published.PROTOCOL} if rows else {}
