"""Which videos FDM is asked to complete, and what decides what they look like."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxvid.core import checkpoint
from jaxvid.data.source import Source
from jaxvid.data.sources import open_source
from jaxvid.fdm import naming, schemes
from jaxvid.fdm.sample_config import Settings
from jaxvid.runs.requests import Request


def video_indices(settings: Settings, source: Source) -> list[int]:
    """The videos asked for: `indices`, a batch (the last may be short), a subset, or all.

    Raises:
      ValueError: an index, or a subset that the dataset does not have, or no videos at all.
    """
    sampling, count = settings.sampling, len(source)
    if not count:
        raise ValueError(f"{source.where} has no {sampling.split} videos; see data.test_videos")
    wrong = [i for i in sampling.indices if not 0 <= i < count]
    if wrong:
        raise ValueError(f"sampling.indices={wrong[0]}: {source.where} has videos 0 to {count - 1}")
    if sampling.subset_size > count:
        raise ValueError(f"sampling.subset_size={sampling.subset_size}: there are {count} videos")
    if sampling.indices:
        return list(dict.fromkeys(sampling.indices))
    if sampling.subset_size and sampling.subset == "random":
        chosen = np.random.RandomState(123).choice(count, sampling.subset_size, replace=False)
        return sorted(map(int, chosen))
    if sampling.batch >= 0:
        return list(range(count))[sampling.batch * sampling.batch_size :][: sampling.batch_size]
    return list(range(sampling.subset_size or count))


def requests(settings: Settings) -> list[Request]:
    """One request for each video and sample; a video that cannot be used carries the reason."""
    sampling = settings.sampling
    source = open_source(settings.data, sampling.split)
    samples = [sampling.sample_idx] if sampling.sample_idx >= 0 else range(sampling.num_samples)
    found, wanted = [], video_indices(settings, source)
    source.look(wanted)
    for i in wanted:
        error = ""
        try:
            source.check(i)
        except ValueError as problem:
            error = str(problem)
        for sample in samples:
            found.append(_request(settings, source, i, sample, error))
    return found


def _request(settings: Settings, source: Source, index: int, sample: int, error: str) -> Request:
    name = naming.sample_name(index, sample)
    stem = Path(name).stem
    outputs = {"sample": f"samples/{name}"}
    if settings.sampling.video != "none":
        outputs["video"] = f"videos/{stem}.{settings.sampling.video}"
    file = source.place(index)
    return Request(
        id=stem,
        seed=settings.sampling.seed,
        inputs={"clip": file} if Path(file).is_file() else {},
        outputs=outputs,
        options={
            "video": index,
            "name": source.name(index),
            "sample": sample,
            "scheme": settings.sampling.scheme,
            "observed": settings.sampling.n_obs,
            "frames": settings.T,
            "fps": source.fps,
        },
        error=error,
    )


def result_settings(settings: Settings) -> dict:
    """What decides the contents of the outputs, for their fingerprint."""
    sampling = dataclasses.asdict(settings.sampling)
    which = ("batch_size", "batch", "indices", "subset_size", "subset", "num_samples", "sample_idx")
    names = ("eval_dir", "name_dataset", "visualise")
    resolved = ("max_frames", "step_size", "optimality", "schedule", "distance", "lpips")
    for field in (*which, *names, *resolved, "checkpoint_evaluations"):
        del sampling[field]
    data = dataclasses.asdict(settings.data) | {"cache_mb": 0, "root": ""}
    del data["probes"]
    return {
        "mode": "fdm",
        "sampling": sampling,
        "data": data,
        "videos": open_source(settings.data, settings.sampling.split).version(),
        "network": dataclasses.asdict(settings.network),
        "diffusion": dataclasses.asdict(settings.diffusion),
        "frames": [settings.T, settings.max_frames, settings.step_size],
        "schedule": settings.optimal(),
        "distance": settings.sampling.distance if schemes.is_adaptive(sampling["scheme"]) else "",
        "embedding": settings.needs_lpips and checkpoint.fingerprint(settings.sampling.lpips),
    }
