"""Control images: a scene, seen by one of its cameras, at one frame, in one of two looks.

What stands still is prepared once. Lines are drawn first, then triangles, lights and boxes, which
matters only at equal depths (cosmos-transfer2.5, `world_scenario/rendering`).
"""

import numpy as np

from jaxvid.scenario.geometry import build_geometry
from jaxvid.scenario.interpolation import boxes_at
from jaxvid.scenario.outlines import gather
from jaxvid.scenario.palette import TRAFFIC_LIGHTS, Look, box_colors
from jaxvid.scenario.raster import Canvas
from jaxvid.scenario.scene import Scene
from jaxvid.scenario.views import View

LINES, TRIANGLES, LIGHTS, BOXES = (part << 40 for part in range(4))  # places in the drawing order


class Renderer:
    """Draws the images of one scene, look and size; for one thread.

    samples: per pixel, 4 or 1.
    warnings: what is not drawn and why, one line each, beside the scene's own warnings.
    Raises ValueError for an unknown look or number of samples, or a size without pixels.
    """

    def __init__(
        self,
        scene: Scene,
        look: Look = "documented",
        height: int = 720,
        width: int = 1280,
        samples: int = 4,
    ):
        self.scene, self.look, self.height, self.width = scene, look, height, width
        self.samples = samples
        self.geometry = build_geometry(scene, look)
        self.warnings = self.geometry.warnings
        self._canvases = {(height, width): Canvas(height, width, samples)}
        self._models = {}

    def frame(self, camera: str, index: int) -> np.ndarray:
        """The image of frame `index`, uint8 (h, w, 3).

        camera: its name with underscores. In the upstream look the image of a few sensor sizes is
        one pixel short, see `FTheta.rescale`. Raises ValueError if the scene has no such camera or
        frame, or if the camera does not hold at this size.
        """
        view, geometry = self.view(camera, index), self.geometry
        boxes = boxes_at(self.scene.tracks, int(self.scene.timestamps[index]))
        parts = [
            view.lines(geometry.lines, LINES),
            view.triangles(geometry.triangles, geometry.triangle_colors, TRIANGLES),
            view.lights(geometry.lights, self._light_colors(index), LIGHTS),
            *view.boxes(boxes, box_colors(self.look), BOXES),
        ]
        size = view.model.height, view.model.width
        if size not in self._canvases:
            self._canvases[size] = Canvas(*size, self.samples)
        return self._canvases[size].draw(gather(parts))

    def view(self, camera: str, index: int) -> View:
        """Where and how the camera looks at frame `index`; errors as `frame`."""
        if camera not in self.scene.cameras:
            raise ValueError(f"no camera {camera!r}; there are {', '.join(self.scene.cameras)}")
        if not 0 <= index < self.scene.frames:
            raise ValueError(f"no frame {index}: the scene has frames 0 to {self.scene.frames - 1}")
        seen_by, upstream = self.scene.cameras[camera], self.look == "upstream"
        if camera not in self._models:
            self._models[camera] = seen_by.model.rescale(self.height, self.width, upstream)
        return View(self._models[camera], seen_by.to_world[index], upstream)

    def _light_colors(self, index: int) -> np.ndarray:
        """(k, 3) float, 0..255; states that end before the video does go on as "unknown"."""
        lights = (light.states or () for light in self.scene.traffic_lights)
        states = [states[index] if index < len(states) else "unknown" for states in lights]
        return np.array([TRAFFIC_LIGHTS[s] for s in states], np.float64).reshape(-1, 3)


def render_frame(
    scene: Scene,
    camera: str,
    index: int,
    look: Look = "documented",
    height: int = 720,
    width: int = 1280,
) -> np.ndarray:
    """One image, uint8 (h, w, 3); for many, a `Renderer` prepares the scene only once."""
    return Renderer(scene, look, height, width).frame(camera, index)
