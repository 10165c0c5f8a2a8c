"""The road of a synthetic scene: four curved lanes with a hill, and a crossing with two lanes.

Two coordinate systems lie on the ground. (s, d): metres along the main road's middle line (an arc)
and to its left. (u, o): metres along the crossing road, from the crossing's middle to the left,
and beside it in the main road's direction. Traffic keeps to the right.
"""

import dataclasses

import numpy as np

LANE = 3.6  # metres
EDGE = 2 * LANE - 0.25  # white line at the side of the main road
CURB = 2 * LANE + 1.6  # boundary of the main road; between edge and curb ride bicycles
SIDE_EDGE, SIDE_CURB = LANE - 0.15, LANE + 0.4  # the same of the crossing road
CORNER = 5.0  # size of the curb's corners
ZEBRA = 0.6, 4.0  # from the corners to a crosswalk's two sides
STOP = 5.4  # from the corners to a wait line
BACK, AHEAD = -130.0, 230.0  # the main road, before the start and beyond the end of the drive
SIDE_LENGTH = 120.0


@dataclasses.dataclass(frozen=True)
class Road:
    """Ground and curves. All functions take arrays or numbers and give world x, y, z."""

    radius: float  # metres, positive turns left
    slope: float  # rise per metre
    crossing: float  # s of its middle
    end: float  # largest s

    @property
    def main_corner(self) -> float:
        """Distance along the main road from the crossing's middle to where the corners begin."""
        return SIDE_CURB + CORNER

    @property
    def side_corner(self) -> float:
        """The same along the crossing road."""
        return CURB + CORNER

    def main_xy(self, s, d) -> np.ndarray:
        """(..., 2) before the shift to the vehicle's start."""
        s, d = np.broadcast_arrays(np.asarray(s, float), np.asarray(d, float))
        angle, reach = s / self.radius, self.radius - d
        return np.stack([reach * np.sin(angle), self.radius - reach * np.cos(angle)], axis=-1)

    def main(self, s, d) -> np.ndarray:
        """(..., 3) at stations s and offsets d of the main road."""
        return self.on_ground(self.main_xy(s, d))

    def side(self, u, o) -> np.ndarray:
        """(..., 3) at stations u and offsets o of the crossing road."""
        u, o = np.broadcast_arrays(np.asarray(u, float), np.asarray(o, float))
        heading = self.crossing / self.radius
        along = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-along[1], along[0]])
        middle = self.main_xy(self.crossing, 0)
        return self.on_ground(middle + u[..., None] * left + o[..., None] * along)

    def on_ground(self, xy) -> np.ndarray:
        """(..., 2) to (..., 3), moved so that the vehicle's start is the origin."""
        start = self.main_xy(0, -LANE / 2)
        height = self._height(xy) - self._height(start)
        return np.concatenate([xy - start, height[..., None]], axis=-1)

    def raised(self, ground, height) -> np.ndarray:
        """Points (..., 3) that far above the ground."""
        return ground + np.array([0, 0, 1.0]) * np.asarray(height)[..., None]

    def _height(self, xy) -> np.ndarray:
        turn = np.sign(self.radius)
        x, y = turn * xy[..., 0], turn * (self.radius - xy[..., 1])
        s = self.radius * np.arctan2(x, y)
        d = self.radius - turn * np.hypot(x, y)
        return self.slope * s + 0.15 * np.sin(s / 17) - 0.02 * np.minimum(abs(d), CURB)


def corners(road: Road) -> list[np.ndarray]:
    """The four curbs around the corners, (9, 3) each, from the main road to the crossing one."""
    share = np.linspace(0, 1, 9)[:, None]
    found = []
    for ahead in (-1, 1):
        for left in (-1, 1):
            first = road.main(road.crossing + ahead * road.main_corner, left * CURB)
            last = road.side(left * road.side_corner, ahead * SIDE_CURB)
            middle = road.side(left * CURB, ahead * SIDE_CURB)
            curve = (1 - share) ** 2 * first + 2 * share * (1 - share) * middle + share**2 * last
            found.append(curve)
    return found


def boundaries(road: Road) -> list[np.ndarray]:
    """Curbs of all four arms and the corners between them."""
    along = [road.main(s, side * CURB) for s in _main_arms(road, 0) for side in (-1, 1)]
    aside = [road.side(u, side * SIDE_CURB) for u in _side_arms(road, 0) for side in (-1, 1)]
    return along + aside + corners(road)


def lane_lines(road: Road) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Lines (n, 3), their colours and styles; the yellow one changes at the crossing."""
    found = []
    near, far = _main_arms(road, STOP)
    found.append((road.main(near, 0), "YELLOW", "SOLID_GROUP"))
    found.append((road.main(far, 0), "YELLOW", "DASHED_SOLID"))
    for side in (-1, 1):
        found.append((road.main(near, side * LANE), "WHITE", "LONG_DASHED_SINGLE"))
        found.append((road.main(far, side * LANE), "WHITE", "SHORT_DASHED_SINGLE"))
        found += [(road.main(s, side * EDGE), "WHITE", "SOLID_SINGLE") for s in (near, far)]
    for u in _side_arms(road, STOP):
        found.append((road.side(u, 0), "YELLOW", "SOLID_SINGLE"))
        found += [(road.side(u, o), "WHITE", "SOLID_SINGLE") for o in (-SIDE_EDGE, SIDE_EDGE)]
    return tuple(map(list, zip(*found, strict=True)))


def crosswalks(road: Road) -> list[np.ndarray]:
    """One over each arm, (4, 3)."""
    found = []
    for sign in (-1, 1):
        near, far = (road.crossing + sign * (road.main_corner + z) for z in ZEBRA)
        found.append(road.main([near, near, far, far], [-CURB, CURB, CURB, -CURB]))
        near, far = (sign * (road.side_corner + z) for z in ZEBRA)
        found.append(
            road.side([near, near, far, far], [-SIDE_CURB, SIDE_CURB, SIDE_CURB, -SIDE_CURB])
        )
    return found


def wait_lines(road: Road) -> list[np.ndarray]:
    """Where traffic towards the crossing stops, (2, 3) on each arm."""
    main, side = road.main_corner + STOP, road.side_corner + STOP
    return [
        road.main(road.crossing - main, [-EDGE, 0]),
        road.main(road.crossing + main, [0, EDGE]),
        road.side(-side, [0, SIDE_EDGE]),
        road.side(side, [-SIDE_EDGE, 0]),
    ]


def arrows(road: Road) -> list[np.ndarray]:
    """Painted arrows (7, 3) in the lanes towards the crossing."""
    along = np.array([0, 3, 3, 4.5, 3, 3, 0])
    aside = np.array([-0.12, -0.12, -0.45, 0, 0.45, 0.12, 0.12])
    found = []
    for sign in (-1, 1):  # before and beyond the crossing
        for distance in (6.0, 34.0):
            start = road.crossing + sign * (road.main_corner + STOP + distance)
            for lane in (0.5, 1.5):
                found.append(road.main(start - sign * along, sign * (lane * LANE + aside)))
    return found


def lanes(road: Road) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Left and right sides of the main road's lanes, seen in the direction of travel."""
    left, right = [], []
    for s in _main_arms(road, STOP):
        for lane in (0, 1):
            left += [road.main(s, -lane * LANE), road.main(s[::-1], lane * LANE)]
            right += [road.main(s, -(lane + 1) * LANE), road.main(s[::-1], (lane + 1) * LANE)]
    return left, right


def middle_of_crossing(road: Road) -> list[np.ndarray]:
    """The area in which the roads share the ground, one (4, 3)."""
    u, o = road.side_corner, road.main_corner
    return [road.side([-u, u, u, -u], [-o, -o, o, o])]


def poles(road: Road) -> list[np.ndarray]:
    """Street lamps on both sides and the poles of the traffic lights, (2, 3) from the ground up."""
    stations = np.arange(BACK, road.end, 35.0)
    stations = stations[abs(stations - road.crossing) > road.main_corner + STOP]
    feet = [road.main(s, side * (CURB + 1)) for s in stations for side in (-1, 1)]
    heights = [7.5] * len(feet) + [5.8] * 4
    feet += [foot for foot, _ in light_places(road)]
    return [
        np.stack([foot, road.raised(foot, height)])
        for foot, height in zip(feet, heights, strict=True)
    ]


def light_places(road: Road) -> list[tuple[np.ndarray, float]]:
    """Foot (3,) and direction faced (radians) of the traffic light of each arm, beyond it."""
    heading = road.crossing / road.radius
    main, side = road.main_corner, road.side_corner
    return [
        (road.main(road.crossing + main, -CURB - 1), heading + np.pi),
        (road.main(road.crossing - main, CURB + 1), heading),
        (road.side(side, SIDE_CURB + 1), heading - np.pi / 2),
        (road.side(-side, -SIDE_CURB - 1), heading + np.pi / 2),
    ]


def _main_arms(road: Road, gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Stations s before and after the crossing, with a gap to the corners."""
    clear = road.main_corner + gap
    return _steps(BACK, road.crossing - clear), _steps(road.crossing + clear, road.end)


def _side_arms(road: Road, gap: float) -> tuple[np.ndarray, np.ndarray]:
    clear = road.side_corner + gap
    return _steps(-SIDE_LENGTH, -clear), _steps(clear, SIDE_LENGTH)


def _steps(start: float, stop: float, step: float = 4.0) -> np.ndarray:
    return np.linspace(start, stop, int((stop - start) / step) + 2)
