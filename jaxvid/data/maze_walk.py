"""maze_walk: first-person walks through random textured mazes, the dataset without a download.

A maze has corridors one block wide on a lattice of nodes two blocks apart, a few rooms, and walls
whose pattern tells the part of the maze. The walker goes on at a constant pace, takes corners in
arcs, turns round where the corridor ends, and prefers what it has not seen. A video follows from
(seed, split, index) alone.
"""

import dataclasses

import numpy as np

from jaxvid.data.raycaster import Scene, render
from jaxvid.data.wall_patterns import wall_textures

NODES = 5  # nodes along each side of the lattice; the grid has 2 * NODES + 1 blocks
STYLES = 4  # wall patterns in one maze
FRAMES_PER_BLOCK = 12
FRAMES_PER_CORNER = 16  # a quarter turn
SPLITS = ("train", "test")

FORWARD, LEFT, RIGHT, SPIN_LEFT, SPIN_RIGHT = range(5)  # actions
ACTION_NAMES = ("forward", "left", "right", "spin_left", "spin_right")
DIRECTIONS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # counter-clockwise from east

SKIES = np.array(  # zenith, horizon
    [
        [(0.25, 0.50, 0.92), (0.78, 0.88, 0.98)],  # day
        [(0.36, 0.26, 0.62), (0.98, 0.72, 0.52)],  # dusk
        [(0.08, 0.10, 0.28), (0.34, 0.40, 0.62)],  # night
    ],
    np.float32,
)
FLOORS = np.array(
    [
        [(0.42, 0.40, 0.40), (0.58, 0.56, 0.54)],  # stone
        [(0.46, 0.32, 0.22), (0.62, 0.46, 0.32)],  # wood
        [(0.26, 0.42, 0.26), (0.38, 0.56, 0.34)],  # grass
    ],
    np.float32,
)


@dataclasses.dataclass(frozen=True, eq=False)
class MazeWalk:
    """One video with its labels."""

    frames: np.ndarray  # (t, h, w, 3) uint8
    actions: np.ndarray  # (t,) uint8, what leads from frame t to frame t + 1; see ACTION_NAMES
    poses: np.ndarray  # (t, 3) float32: x, y in blocks, heading in radians (not wrapped)


def render_walk(
    seed: int,
    index: int,
    split: str = "train",
    frames: int = 300,
    size: int = 64,
    start: int = 0,
    looks: int = 0,
) -> MazeWalk:
    """Renders `frames` frames of walk number `index` of a split, from frame `start` on.

    `looks`: how many sets of colours and patterns the mazes of a seed, in both splits, share; 0
    gives each maze its own. A frame does not depend on how many are rendered with it: walks are as
    long as one asks.

    Raises:
      ValueError: unknown split, or a count, size or index out of range.
    """
    if frames < 1 or start < 0:
        raise ValueError(f"maze_walk frames={frames}, start={start}: count from 1 and from 0")
    if size < 16 or size % 2:
        raise ValueError(f"maze_walk size={size}: use an even number from 16 on, e.g. 64")
    scene, poses, actions = plan_walk(seed, index, split, start + frames, looks)
    poses, actions = poses[start:], actions[start:]
    return MazeWalk(render(scene, poses, size), actions, poses.astype(np.float32))


def plan_walk(seed: int, index: int, split: str, frames: int, looks: int = 0):
    """What `render_walk` draws: the Scene, poses (t, 3) float64 and actions (t,) uint8."""
    if split not in SPLITS:
        raise ValueError(f"maze_walk has no split {split!r}; it has {' and '.join(SPLITS)}")
    if seed < 0 or index < 0:
        raise ValueError(f"maze_walk seed={seed}, index={index}: neither can be negative")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    look = np.random.default_rng([seed, len(SPLITS), index % looks]) if looks else rng
    scene = make_scene(rng, look)
    return scene, *walk(rng, ~scene.solid, frames)


def make_scene(rng: np.random.Generator, look: np.random.Generator) -> Scene:
    """A random maze, with colours and patterns drawn from `look`."""
    solid = make_maze(rng)
    sky = SKIES[look.integers(len(SKIES))]
    floor = FLOORS[look.integers(len(FLOORS))]
    textures = wall_textures(look, STYLES)
    return Scene(solid, _regions(rng, solid), textures, floor, sky, rng.uniform(0, 2 * np.pi))


def make_maze(rng: np.random.Generator) -> np.ndarray:
    """(x, y) bool, True where solid: a spanning tree of the nodes, some loops and two rooms."""
    solid = np.ones((2 * NODES + 1, 2 * NODES + 1), bool)
    stack = [rng.integers(NODES, size=2) * 2 + 1]
    solid[tuple(stack[0])] = False
    while stack:
        ways = [d for d in DIRECTIONS if _is_closed_node(solid, stack[-1] + 2 * d)]
        if not ways:
            stack.pop()
            continue
        way = ways[rng.integers(len(ways))]
        node = stack[-1] + 2 * way
        solid[tuple(stack[-1] + way)] = solid[tuple(node)] = False
        stack.append(node)
    for x in range(1, 2 * NODES, 2):
        for y in range(1, 2 * NODES, 2):
            _open_dead_end(rng, solid, np.array((x, y)))
    for x, y in rng.integers(NODES - 1, size=(2, 2)) * 2 + 1:
        solid[x : x + 3, y : y + 3] = False
    return solid


def walk(rng: np.random.Generator, is_open: np.ndarray, frames: int):
    """A walk along the lattice, from a random node and in mid-step.

    Args:
      is_open: (x, y) bool, False where solid.
    Returns:
      poses (t, 3) float64 and actions (t,) uint8; see MazeWalk.
    """
    node = rng.integers(NODES, size=2) * 2 + 1
    heading = (rng.choice(_exits(is_open, node)) + 2) % 4  # it came in by one of the exits
    entry = node - 0.5 * DIRECTIONS[heading]
    pose = np.array([*entry + 0.5, heading * np.pi / 2])
    skipped = int(rng.integers(FRAMES_PER_BLOCK))
    visits = np.zeros(is_open.shape)
    poses, actions, count = [], [], 0
    while count < frames + skipped:
        visits[tuple(node)] += 1
        heading, moves = _choose(rng, is_open, visits, node, heading)
        for action, length in [*moves, (FORWARD, FRAMES_PER_BLOCK)]:
            path, pose = _move(pose, action, length)
            poses.append(path)
            actions.append(np.full(length, action, np.uint8))
            count += length
        node = node + 2 * DIRECTIONS[heading]
    window = slice(skipped, skipped + frames)
    return np.concatenate(poses)[window], np.concatenate(actions)[window]


def _choose(rng, is_open, visits, node, heading):
    """The next heading, and the moves [(action, frames)] through the node's block to it."""
    ways = [way for way in _exits(is_open, node) if way != (heading + 2) % 4]
    if not ways:
        half, spin = FRAMES_PER_BLOCK // 2, rng.choice((SPIN_LEFT, SPIN_RIGHT))
        there_and_back = [(FORWARD, half), (spin, 2 * FRAMES_PER_CORNER), (FORWARD, half)]
        return (heading + 2) % 4, there_and_back
    seen = np.array([visits[tuple(node + 2 * DIRECTIONS[way])] for way in ways])
    weights = np.exp(-2.0 * (seen - seen.min()))
    way = rng.choice(ways, p=weights / weights.sum())
    action = {0: FORWARD, 1: LEFT, 3: RIGHT}[(way - heading) % 4]
    return way, [(action, FRAMES_PER_BLOCK if action == FORWARD else FRAMES_PER_CORNER)]


def _move(pose, action, length):
    """Poses (length, 3) from `pose` on, and the pose that follows them."""
    x, y, heading = pose
    part = np.arange(length + 1) / length
    if action == FORWARD:
        distance = part * length / FRAMES_PER_BLOCK
        path = (x + distance * np.cos(heading), y + distance * np.sin(heading), heading + 0 * part)
    elif action in (LEFT, RIGHT):  # a quarter of a circle about a corner of the block
        side = 1 if action == LEFT else -1
        angle = heading + side * part * np.pi / 2
        path = (
            x + 0.5 * side * (np.sin(angle) - np.sin(heading)),
            y - 0.5 * side * (np.cos(angle) - np.cos(heading)),
            angle,
        )
    else:
        side = 1 if action == SPIN_LEFT else -1
        path = (x + 0 * part, y + 0 * part, heading + side * part * np.pi)
    path = np.stack(path, axis=1)
    return path[:-1], path[-1]


def _exits(is_open, node):
    return [way for way, step in enumerate(DIRECTIONS) if is_open[tuple(node + step)]]


def _is_inside(solid, node):
    return bool((node > 0).all() and (node < len(solid)).all())


def _is_closed_node(solid, node):
    return _is_inside(solid, node) and solid[tuple(node)]


def _open_dead_end(rng, solid, node):
    """Gives a node with a single exit a second one, three times out of four."""
    closed = [d for d in DIRECTIONS if solid[tuple(node + d)] and _is_inside(solid, node + 2 * d)]
    if len(_exits(~solid, node)) == 1 and closed and rng.random() < 0.75:
        solid[tuple(node + closed[rng.integers(len(closed))])] = False


def _regions(rng, solid):
    """(x, y) style numbers: each block takes that of the nearest of STYLES scattered centres."""
    centres = rng.permutation(NODES * NODES)[:STYLES]
    centres = np.stack([centres // NODES, centres % NODES], axis=1) * 2 + 1
    x, y = np.indices(solid.shape)
    distances = abs(x[..., None] - centres[:, 0]) + abs(y[..., None] - centres[:, 1])
    return distances.argmin(axis=-1)
