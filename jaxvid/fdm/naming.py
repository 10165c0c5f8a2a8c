"""Names of evaluation folders and files, as FDM's scripts choose them.

The paper's code says inference_mode, step_size, obs_length where the refactored code says
sampling_scheme, max_latent_frames, n_obs; the names are the same.
"""

from pathlib import Path, PurePath


def results_folder(
    checkpoint, *, ddim: bool = False, respacing: str = "", step: int | None = None
) -> PurePath:
    """`results/<path after the component containing "checkpoint">/<stem>...`.

    `step` is the training step inside the checkpoint, used if its name ends with "latest".
    Raises ValueError if no component contains "checkpoint".
    """
    checkpoint = PurePath(checkpoint)
    places = [i for i, part in enumerate(checkpoint.parts) if "checkpoint" in part]
    if not places:
        raise ValueError(
            f"no folder of {checkpoint} has 'checkpoint' in its name, which names the results; "
            "set eval_dir"
        )
    known = checkpoint.suffix in (".pt", ".pth")
    name = checkpoint.stem if known else checkpoint.name
    if name.endswith("latest"):
        if step is None:
            raise ValueError(
                f"the results of {checkpoint} are named after its training step; give it"
            )
        name += f"_{step}"
    name += "_ddim" * ddim + (f"_respace{respacing}" if respacing else "")
    return PurePath("results", *checkpoint.parts[places[0] + 1 : -1], name)


def run_name(
    scheme: str, max_frames: int, step_size: int, T: int | None, n_obs: int, *,
    optimality: str | None = None, partition: str = "test", gradient_method: bool = False,
    override_dataset: str | None = None, upstream_names: bool = False,
) -> str:  # fmt: skip
    """`[prefixes]<scheme>[_optimal-<kind>]_<max_frames>_<step_size>_<T>_<n_obs>`.

    T is the resolved length. With upstream_names it may be None, which the paper's code writes
    into the name if no length was asked for.
    """
    if T is None and not upstream_names:
        raise ValueError("T must be resolved before naming; upstream_names=True writes None")
    prefix = f"{override_dataset}_" if override_dataset is not None else ""
    prefix += "gradientmethod_" * gradient_method + "trainset_" * (partition == "train")
    optimal = f"_optimal-{optimality}" if optimality is not None else ""
    return f"{prefix}{scheme}{optimal}_{max_frames}_{step_size}_{T}_{n_obs}"


def evaluation_folder(
    checkpoint, name: str, eval_dir=None, *, ddim=False, respacing="", step=None
) -> Path:
    """Where the samples of a run lie; `name` is its run_name, eval_dir replaces the rest."""
    if eval_dir is None:
        eval_dir = results_folder(checkpoint, ddim=ddim, respacing=respacing, step=step)
    return Path(eval_dir, name)


def sample_name(video: int, sample: int) -> str:
    """File of one sample; `video` is the index in the data set."""
    return f"sample_{video:04d}-{sample}.npy"


def elbo_name(video: int, *, ddim: bool = False, respacing: str = "") -> str:
    return f"elbo_{video}{'_ddim' * ddim}{f'_respace{respacing}' if respacing else ''}.pkl"


def picture_name(
    scheme: str, max_frames: int, step_size: int, T: int, n_obs: int, *,
    optimality: str | None = None, index: int | None = None, refactored: bool = False,
) -> str:  # fmt: skip
    """Picture of a schedule; `index` is the video's place in the batch, for adaptive schemes."""
    optimal = f"_optimal-{optimality}" if optimality is not None else ""
    end = (f"_index-{index}" if index is not None else "") + ".png"
    if refactored:
        sizes = f"_sampling-{T}-given-{n_obs}_{step_size}-{max_frames}-chunks"
        return f"vis_{scheme}{sizes}{optimal}{end}"
    sizes = f"_T={T}_sampling_{step_size}_out_of_{max_frames}"
    return f"sample_vis_{scheme}{'_uncond' * (n_obs == 0)}{optimal}{sizes}{end}"
