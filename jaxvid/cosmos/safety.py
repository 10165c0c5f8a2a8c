"""A place for checks of prompts and of finished frames; none are shipped.

A check is a Python function, named in the config as "module:function":

- prompt check: `check(prompt: str) -> str`, why the prompt is refused, "" if it is not;
- video check: `check(frames) -> frames`, uint8 (t, h, w, 3) of one view and chunk, as they shall be
  written (faces blurred, say). It raises ValueError for frames that nobody may see; then nothing
  of the sample is written.

A later chunk continues the frames as they were made, not as they were written.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable

import numpy as np

OFF = "off"


@dataclasses.dataclass(frozen=True)
class SafetyConfig:
    """The two checks, "" for none; the modules have to be importable (PYTHONPATH)."""

    prompt: str = ""
    video: str = ""


@dataclasses.dataclass(frozen=True)
class Safety:
    """The loaded checks."""

    config: SafetyConfig

    def __post_init__(self):
        for name in ("prompt", "video"):
            self._check(name)

    def refusal(self, prompt: str) -> str:
        """Why a sample with this prompt is not made; "" if it is."""
        check = self._check("prompt")
        reason = check(prompt) if check else ""
        if not isinstance(reason, str):
            raise ValueError(
                f"safety.prompt={self.config.prompt} returned {type(reason).__name__}: it has to "
                "return a text, '' for prompts that it admits"
            )
        return f"the prompt is refused by {self.config.prompt}: {reason}" if reason else ""

    def admitted(self, frames: np.ndarray) -> np.ndarray:
        """The frames as they shall be written."""
        check = self._check("video")
        if check is None:
            return frames
        found = np.asarray(check(frames))
        if found.shape != frames.shape or found.dtype != frames.dtype:
            raise ValueError(
                f"safety.video={self.config.video} returned {found.dtype}{found.shape} for "
                f"{frames.dtype}{frames.shape}: it has to keep both"
            )
        return found

    def state(self) -> dict[str, str]:
        """For the manifest: which check, or that there is none."""
        return {name: text or OFF for name, text in dataclasses.asdict(self.config).items()}

    def _check(self, name: str) -> Callable | None:
        text = getattr(self.config, name)
        return load(text, f"safety.{name}") if text else None


@functools.cache
def load(text: str, field: str) -> Callable:
    """The function that "module:function" names; raises ValueError if there is none."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError(f"{field}={text} has to be module:function, e.g. my_checks:prompt")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the module does when it is imported
        raise ValueError(
            f"{field}={text} cannot be loaded ({type(error).__name__}: {error}), so nothing is "
            "made; mend it, or set it to '' to run without"
        ) from error
    if not callable(found):
        raise ValueError(f"{field}={text} is no function")
    return found
