"""Traffic of a synthetic scene: who moves where, and how fast.

Everyone follows a path on the ground and keeps a distance: in each lane all drive at one speed, and
the crossing road waits while the main road goes. In the first 12 s nobody overlaps anybody else.
"""

import dataclasses

import numpy as np

from jaxvid.scenario.synthetic_road import BACK, LANE, SIDE_LENGTH, STOP, Road

SIZES = {  # length, width, height in metres
    "automobile": (4.6, 1.9, 1.5),
    "other_vehicle": (5.3, 2.0, 2.2),
    "heavy_truck": (9.5, 2.5, 3.5),
    "bus": (11.5, 2.5, 3.2),
    "motorcycle": (2.2, 0.8, 1.5),
    "bicycle": (1.8, 0.6, 1.7),
    "person": (0.6, 0.6, 1.75),
    "stroller": (1.0, 0.6, 1.1),
    "animal": (0.9, 0.3, 0.6),
}
MAIN_SPEED, LEFT_ONCOMING, RIGHT_ONCOMING = 9.0, 11.0, 9.5  # metres per second
SLOW_LANE = 6.5
RAIL = 11.0  # metres from the middle to the pavement where people walk


@dataclasses.dataclass(frozen=True)
class Actor:
    """category: a key of SIZES; path: (m, 3) on the ground, every half metre or so.

    start: metres along the path at time 0; speed: metres per second.
    """

    category: str
    path: np.ndarray
    start: float
    speed: float

    @property
    def size(self) -> tuple[float, float, float]:
        return SIZES[self.category]

    def place(self, seconds) -> tuple[np.ndarray, np.ndarray]:
        """Ground points (n, 3) below the centre and rotations (n, 4) at times (n,)."""
        return follow(self.path, self.start + self.speed * np.asarray(seconds), self.size[0])


def follow(path, distance, length: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Where a body stands after metres (n,) on a path (m, 3): points (n, 3), rotations (n, 4)."""
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    distance = np.asarray(distance, float)
    if distance.min() < length / 2 or distance.max() > travelled[-1] - length / 2:
        raise ValueError(f"a path of {travelled[-1]:.0f} m is too short: {distance.max():.0f} m")

    def at(metres):
        return np.stack([np.interp(metres, travelled, path[:, i]) for i in range(3)], axis=-1)

    back, front = at(distance - length / 2), at(distance + length / 2)
    return (back + front) / 2, facing(front - back)


def facing(direction) -> np.ndarray:
    """Quaternions (n, 4) that turn x towards `direction` (n, 3) and keep y level."""
    yaw = np.arctan2(direction[:, 1], direction[:, 0]) / 2
    pitch = -np.arctan2(direction[:, 2], np.hypot(direction[:, 0], direction[:, 1])) / 2
    (sy, cy), (sp, cp) = (np.sin(yaw), np.cos(yaw)), (np.sin(pitch), np.cos(pitch))
    return np.stack([-sy * sp, cy * sp, sy * cp, cy * cp], axis=-1)


def drive(road: Road) -> np.ndarray:
    """The path of the vehicle with the cameras, which starts -BACK metres from its beginning."""
    return ahead(road, -LANE / 2)


def ahead(road: Road, d: float) -> np.ndarray:
    """A path (m, 3) along the main road in our direction, d metres to the left of its middle."""
    return road.main(_fine(BACK, road.end), d)


def oncoming(road: Road, d: float) -> np.ndarray:
    """The same path the other way."""
    return ahead(road, d)[::-1]


def traffic(road: Road, rng: np.random.Generator) -> list[Actor]:
    """All objects, in a fixed order; `rng` moves each a little within the room it has."""

    def actor(category, path, start, speed, slack=1.5):
        return Actor(category, path, start + rng.uniform(-slack, slack), speed)

    return [
        *_with_us(road, actor),
        *_against_us(road, actor),
        *_across(road, actor),
        *_on_foot(road, actor),
    ]


def _with_us(road: Road, actor) -> list[Actor]:
    """Two lanes in our direction; the outer one is slower, and a car turns right out of it."""
    inner, outer, edge = (ahead(road, -x) for x in (LANE / 2, 1.5 * LANE, 2 * LANE + 0.75))
    cars = [("automobile", 21), ("other_vehicle", 45), ("automobile", -17), ("bus", -42)]
    slow = [("heavy_truck", 12), ("other_vehicle", -14), ("automobile", -36)]
    return [
        *(actor(word, inner, s - BACK, MAIN_SPEED) for word, s in cars),
        *(actor(word, outer, s - BACK, SLOW_LANE) for word, s in slow),
        actor("automobile", turning_right(road), 44 - BACK, 5.0),
        actor("bicycle", edge, 28 - BACK, 4.5),
        actor("bicycle", edge, -12 - BACK, 4.0),
    ]


def _against_us(road: Road, actor) -> list[Actor]:
    inner, outer, edge = (oncoming(road, x) for x in (LANE / 2, 1.5 * LANE, 2 * LANE + 0.75))
    fast = [("automobile", 26), ("automobile", 58), ("other_vehicle", 96), ("motorcycle", 118)]
    fast += [("automobile", 150), ("automobile", 185)]
    slow = [("automobile", 12), ("automobile", 44), ("bus", 84), ("automobile", 112)]
    slow += [("heavy_truck", 160)]
    return [
        *(actor(word, inner, road.end - s, LEFT_ONCOMING) for word, s in fast),
        *(actor(word, outer, road.end - s, RIGHT_ONCOMING) for word, s in slow),
        actor("bicycle", edge, road.end - 50, 5.0),
    ]


def _across(road: Road, actor) -> list[Actor]:
    """The crossing road: two cars leave it, four wait."""
    to_left, to_right = side_lane(road, 1), side_lane(road, -1)
    stop = SIDE_LENGTH - road.side_corner - STOP - 3.5
    return [
        actor("automobile", to_left, SIDE_LENGTH + 14, 9.0),
        actor("automobile", to_right, SIDE_LENGTH + 18, 8.0),
        actor("automobile", to_left, stop, 0.0, 0.4),
        actor("other_vehicle", to_left, stop - 8, 0.0, 0.4),
        actor("automobile", to_right, stop, 0.0, 0.4),
        actor("automobile", to_right, stop - 7.5, 0.0, 0.4),
    ]


def _on_foot(road: Road, actor) -> list[Actor]:
    """People on the pavements, and some who cross the waiting road on its crosswalks."""
    right, left = ahead(road, -RAIL), ahead(road, RAIL + 1.5)
    found = [
        *(actor("person", right, s - BACK, 1.4) for s in (14, 38)),
        *(actor("person", oncoming(road, RAIL), road.end - s, 1.2) for s in (24, 36, 95)),
        actor("stroller", left, 5 - BACK, 1.1, 0.2),
        actor("person", left, 3.6 - BACK, 1.1, 0.2),
        actor("animal", right, 99 - BACK, 1.3, 0.2),
        actor("person", right, 97 - BACK, 1.3, 0.2),
    ]
    for side, ahead_of, offset in ((-1, 1, 1.8), (1, 1, 1.7), (1, -1, 3.0)):
        distance = side * (road.side_corner + offset)
        walk = road.side(distance, _fine(-40.0, 40.0))
        start = 35.0 if ahead_of > 0 else 33.0
        found.append(actor("person", walk[::ahead_of], start, 1.3, 0.8))
    return found


def side_lane(road: Road, direction: int) -> np.ndarray:
    """The crossing road's lane to the left (1) or right (-1), from end to end."""
    return road.side(direction * _fine(-SIDE_LENGTH, SIDE_LENGTH), direction * LANE / 2)


def turning_right(road: Road) -> np.ndarray:
    """From the outer lane around the corner into the crossing road."""
    corner = road.main_corner
    first = road.main(_fine(BACK, road.crossing - corner), -1.5 * LANE)
    last = road.side(_fine(-road.side_corner, -SIDE_LENGTH), -LANE / 2)
    middle = road.side(-1.5 * LANE, -LANE / 2)
    share = np.linspace(0, 1, 40)[1:-1, None]
    curve = (1 - share) ** 2 * first[-1] + 2 * share * (1 - share) * middle + share**2 * last[0]
    return np.concatenate([first, curve, last])


def _fine(start: float, stop: float) -> np.ndarray:
    return np.linspace(start, stop, int(abs(stop - start) * 2) + 2)
