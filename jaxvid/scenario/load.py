"""Opens a folder of scene annotations, whatever their format."""

from collections.abc import Iterable
from pathlib import Path

from jaxvid.scenario.clipgt import is_clipgt, read_clipgt
from jaxvid.scenario.notes import listing
from jaxvid.scenario.rdshq import is_rdshq, read_rdshq
from jaxvid.scenario.scene import Scene
from jaxvid.scenario.visibility import check_views


def load_scene(
    folder: str | Path,
    clip_id: str | None = None,
    camera_names: Iterable[str] | str | None = None,
    fps: float | None = None,
) -> Scene:
    """Reads one scene and checks all of it.

    Args:
      folder: with parquet tables (ClipGT) or tar files (RDS-HQ, which goes first).
      clip_id: needed only where the folder holds several clips.
      camera_names: with colons or underscores; None or "all" for the usual seven, as far as they
        are there.
      fps: frames per second of a ClipGT scene without recorded frame times; 30 if None.
    Raises:
      ValueError: one line that says what is wrong, where, and what to do.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the one that holds the scene's files")
    if fps is not None and not 0.01 <= fps <= 1000:
        raise ValueError(f"{fps:g} fps; give a number from 0.01 to 1000")
    read = read_rdshq if is_rdshq(folder) else read_clipgt if is_clipgt(folder) else None
    if read is None:
        raise ValueError(
            f"{folder} is not a scene: neither CLIP.calibration_estimate.parquet (ClipGT) nor "
            f"pose/CLIP.tar (RDS-HQ) is there; it holds: {_contents(folder)}"
        )
    return check_views(read(folder, clip_id, camera_names, fps), str(folder))


def _contents(folder: Path) -> str:
    return listing(sorted(path.name for path in folder.iterdir()), 5) or "nothing"
