"""Unpacking of downloaded archives (TFDS needs TensorFlow for that)."""

import shutil
import tempfile
from pathlib import Path


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpacks a .zip, .tar or .tar.gz into `folder`, unless that is there; returns `folder`.

    Members that would land outside are refused (tar) or kept inside (zip).

    Raises:
      ValueError: not an archive, or a damaged one.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as temporary:
        inside = Path(temporary) / "unpacked"
        options = {} if archive.suffix == ".zip" else {"filter": "data"}
        try:
            shutil.unpack_archive(archive, inside, **options)
        except (shutil.ReadError, OSError, EOFError) as error:
            raise ValueError(f"{archive}: cannot be unpacked ({error})") from None
        inside.rename(folder)
    return folder
