"""A folder of videos, each worked on by a process of its own GPU: which videos, and where to.

Beside `clip.mp4` lies its output folder `clip/`, in which MARKER says what was done, see
parallel_marker.py. No video in such a folder is taken for an input, whoever made it.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxvid.core.files import TEMPORARY_PREFIX, sha256
from jaxvid.runs.fingerprint import hash_json

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
MARKER, LOG = "run_parallel.json", "run_parallel.log"
OTHER_SUFFIXES = (  # videos as well, but not taken
    *(".3gp", ".asf", ".flv", ".gif", ".m2ts", ".m4v", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"),
    *(".vob", ".webm", ".wmv"),
)
UNREADABLE = "cannot be read"  # why a folder is left out
HIDDEN = "hidden"
LINKED = "a link; give the folder itself as --video_root"
GONE = "it is no longer there"
VIDEO, OUTPUT = "{video}", "{output}"  # in the arguments of a script
USUAL_ARGUMENTS = ("--video_path", VIDEO, "--output_dir", OUTPUT)  # if they name no {video}


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """What to run over which folder; see scripts/run_parallel.py."""

    video_root: str
    num_gpus: int
    script: str
    arguments: tuple[str, ...] = ()  # of the script
    keep: bool = False  # the script serves many videos in one process, see serve.py
    schedule: Literal["round_robin", "dynamic"] = "round_robin"
    timeout: float = 0.0  # seconds for one video; 0: none
    retries: int = 1  # further attempts at a video whose process failed
    grace: float = 10.0  # seconds that a process has to end when it is told to
    resume: bool = True  # False makes finished videos again
    retry_failed: bool = True  # False leaves videos alone that failed in an earlier run
    fail_fast: bool = False
    max_failures: int = 0  # stop after so many failed videos; 0: never
    plan: bool = False  # only say what is left

    def __post_init__(self):
        if not Path(self.video_root).expanduser().is_dir():
            raise ValueError(f"--video_root={self.video_root} is not a folder")
        if not os.path.isfile(self.program):
            raise ValueError(f"--script={self.script}: there is no such file")
        if self.num_gpus < 1:
            raise ValueError(f"--num_gpus={self.num_gpus} must be at least 1")
        for name in ("timeout", "retries", "grace", "max_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}={getattr(self, name)} is negative")
        for place in re.findall(r"\{[A-Za-z]+\}", " ".join(self.arguments)):
            if self.keep and place in (VIDEO, OUTPUT):
                raise ValueError(f"{place}: a script that is kept is told by serve; leave it out")
            if not self.keep and place not in (VIDEO, OUTPUT):
                raise ValueError(f"{place} in the arguments is neither {VIDEO} nor {OUTPUT}")

    @property
    def program(self) -> str:
        return os.path.expanduser(self.script)

    @property
    def failure_limit(self) -> float:
        return 1 if self.fail_fast else self.max_failures or float("inf")

    @property
    def words(self) -> tuple[str, ...]:
        """Arguments of the script, with the places of a video and its results."""
        named = any(VIDEO in word for word in self.arguments)
        return self.arguments if named else (*self.arguments, *USUAL_ARGUMENTS)

    @property
    def names_output(self) -> bool:
        """Whether the script is told where its results belong."""
        return self.keep or any(OUTPUT in word for word in self.words)

    def command_of(self, video: Path, output: Path) -> list[str]:
        """Arguments of the script for one video."""
        places = {VIDEO: str(video), OUTPUT: str(output)}
        pattern = "|".join(map(re.escape, places))
        return [re.sub(pattern, lambda found: places[found[0]], word) for word in self.words]

    def identity(self, told: str = "") -> str:
        """Hash of what is done to each video; told: by a script of itself, see serve.py."""
        return hash_json([sha256(self.program), *self.arguments, told])


@dataclasses.dataclass
class Video:
    """One video on its way; `bytes` and `mtime_ns` are those of the file when it was found."""

    path: Path
    bytes: int = 0
    mtime_ns: int = 0
    error: str = ""  # why it cannot be run
    attempts: int = 0

    @property
    def output(self) -> Path:
        return self.path.with_suffix("")

    @property
    def log(self) -> Path:
        return self.output / LOG

    @property
    def stamp(self) -> list[int]:
        return [self.bytes, self.mtime_ns]

    @property
    def gone(self) -> bool:
        return not os.path.isfile(self.path)


def find_videos(root: str | os.PathLike) -> tuple[list[Video], list[str]]:
    """The videos under a folder, sorted by path, and a line on each kind of place left out.

    Two videos that would share an output folder, or one whose output folder holds videos from
    elsewhere, carry an error. Raises ValueError if there are none.
    """
    root = Path(root).expanduser().absolute()
    left_out, others = {UNREADABLE: [], LINKED: [], HIDDEN: []}, []
    paths = sorted(_walk(root, left_out, others))
    notes = [
        f"left out: {places[0]}" + f" and {len(places) - 1} more" * (len(places) > 1) + f": {why}"
        for why, places in left_out.items()
        if places
    ]
    if others:
        files = f"{len(others)} file" + "s" * (len(others) > 1)
        notes.append(f"left out: {files} of other kinds ({', '.join(sorted(set(others)))})")
    if not paths:
        none = f"--video_root={root} holds no {', '.join(SUFFIXES)} file"
        raise ValueError("; ".join([none, *notes]))
    videos = list(map(_found, paths))
    by_output = {}
    for video in videos:
        by_output.setdefault(video.output, []).append(video.path.name)
    for video in videos:
        if len(names := by_output[video.output]) > 1:
            video.error = f"{' and '.join(names)} would share the folder {video.output}: rename one"
        elif _holds_others(video.output):
            video.error = (
                f"its output folder {video.output} holds videos from elsewhere, which are not "
                "taken for inputs: rename one of the two"
            )
        elif video.output.exists() and not video.output.is_dir():
            video.error = f"its output folder {video.output} is a file: move it"
        elif not os.access(_nearest(video.output), os.W_OK | os.X_OK):
            video.error = f"{_nearest(video.output)} is read-only, but results would go there"
        elif video.gone:
            video.error = GONE
        elif not os.access(video.path, os.R_OK):
            video.error = "permission denied"
        elif not video.bytes:
            video.error = "the file is empty (0 bytes)"
    return videos, notes


def _found(path: Path) -> Video:
    try:
        stat = path.stat()
    except OSError:  # removed while the others were searched for
        return Video(path)
    return Video(path, stat.st_size, stat.st_mtime_ns)


def _walk(root: Path, left_out: dict[str, list], others: list[str]) -> Iterator[Path]:
    """The video files; folders that could hold more go to the lists of `left_out`.

    others: gets the kind of each file that may be a video and is not taken.
    """

    def unreadable(error: OSError) -> None:
        left_out[UNREADABLE].append(error.filename)

    for folder, subfolders, files in os.walk(root, onerror=unreadable):
        if MARKER in files and Path(folder) != root:  # of a video that is no longer there
            subfolders.clear()
            continue
        videos = [Path(folder, name) for name in files if _is_video(name)]
        others.extend(kind for name in files if (kind := _other_kind(name)))
        outputs = {path.stem for path in videos}
        for name in subfolders[:]:
            linked = os.path.islink(os.path.join(folder, name))
            hidden = name.startswith(".")
            if linked or name in outputs or hidden:
                subfolders.remove(name)
            ours = name in outputs or name.startswith(TEMPORARY_PREFIX)
            if (linked or hidden) and not ours:
                left_out[LINKED if linked else HIDDEN].append(os.path.join(folder, name))
        yield from filter(Path.is_file, videos)


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _other_kind(name: str) -> str:
    """What kind of video a file is that is not taken; "" for all other files."""
    suffix = Path(name).suffix.lower()
    if name.startswith("."):
        ours = name.startswith(TEMPORARY_PREFIX)
        return HIDDEN if suffix in SUFFIXES and not ours else ""
    return suffix if suffix in OTHER_SUFFIXES else ""


def _holds_others(output: Path) -> bool:
    """Whether videos are in the folder and none of our marks."""
    if not output.is_dir() or (output / MARKER).exists():
        return False
    return any(_is_video(name) for _, _, files in os.walk(output) for name in files)


def _nearest(output: Path) -> Path:
    return output if output.exists() else output.parent


def gpu_names(count: int, environ=os.environ, devices: Sequence[str] | None = None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each worker: entries of the present value, or numbers.

    devices: NVIDIA's device files, those of this machine if None.
    Raises:
      ValueError: fewer GPUs than workers, where there are any; without, workers share the CPU.
    """
    if visible := environ.get("CUDA_VISIBLE_DEVICES", ""):
        names = [name.strip() for name in visible.split(",") if name.strip()]
        where = f"CUDA_VISIBLE_DEVICES={visible} has"
    else:
        if devices is None:
            devices = [p.name for p in Path("/dev").glob("nvidia*") if p.name[6:].isdigit()]
        names, where = [str(n) for n in range(len(devices) or count)], "this machine has"
    if count > len(names):
        raise ValueError(f"--num_gpus={count}: {where} {len(names)}; use at most {len(names)}")
    return names[:count]
