"""A video that is made while someone watches it, and says what comes next.

live = Live(load(settings, []), "A cat sleeps on a windowsill in the sun.")
for frames in live:  # uint8 (t, h, w, 3), as soon as they are there
    show(frames)
    if bored:
        live.push("The cat wakes up and stretches.")
"""

import collections
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jaxvid.core.noise import request_key
from jaxvid.core.rope import MAX_FRAMES
from jaxvid.longlive import models, rollout, shapes
from jaxvid.longlive.sample import Generator, Piece, decoded, within


class Live:
    """An iterator over the frames of one video, without an end unless `latent_frames` sets it.

    Frames come in pieces, one for each block. While a piece is looked at, the next block is being
    made already: a pushed prompt takes over in the block after that one. Prompts may be pushed
    from another thread.

    Absolute positions end after 1024 latent frames; longer videos need `rollout.relative_rope`.
    """

    def __init__(
        self,
        generator: Generator,
        prompt: str,
        name: str = "live",
        latent_frames: int | None = None,
        embed: Callable[[str], np.ndarray] | None = None,
    ):
        """Starts the video.

        Args:
          generator: with a batch size of one.
          name: with the seed of the settings it decides the noise, as the id of a request does.
          latent_frames: length of the video; None: until absolute positions end, or for ever.
          embed: makes the (length, c) embeddings of a prompt; without it, the text encoder is
            read anew for each prompt that is not among the embeddings on disk.
        Raises:
          ValueError: an empty prompt, one that is too long, a batch size of more, or a generator
            over several processes, which would have to be told of each prompt.
        """
        if jax.process_count() > 1:
            raise ValueError("a live video is made by one process: do not join several")
        if generator.batch_size != 1:
            raise ValueError(
                f"a live video is made alone, not in batches of {generator.batch_size}: "
                "set mesh.data=1, mesh.seq=-1 and sampling.batch_size=1"
            )
        self._generator, settings = generator, generator.settings
        self._embed = embed or (lambda text: models.embed(settings, [text])[text])
        self._tokens = models.tokenizer(settings)
        self._waiting: collections.deque = collections.deque()
        self.prompts: list[tuple[int, str]] = []  # latent frame and prompt, as they took over
        self.push(prompt)
        key = request_key(settings.sampling.seed, name)
        self._frames = self._make(key, latent_frames)

    def push(self, prompt: str) -> None:
        """Makes `prompt` take over in the next block that is not begun; one prompt a block."""
        if not prompt.strip():
            raise ValueError("the prompt is empty: say what is to be seen")
        if cut := self._tokens.cut(prompt):
            raise ValueError(
                f"the prompt is longer than {self._tokens.length} tokens, {cut!r} would be cut: "
                "shorten it"
            )
        if prompt not in self._generator.texts:
            self._generator.texts[prompt] = self._embed(prompt)
        self._waiting.append(prompt)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        return next(self._frames)

    def _make(self, key, latent_frames: int | None) -> Iterator[np.ndarray]:
        pieces = decoded(self._pieces(key, latent_frames), self._generator.decode)
        return (piece[0] for piece in pieces)

    def _pieces(self, key, latent_frames: int | None) -> Iterator:
        generator, config = self._generator, self._generator.settings.rollout
        end = latent_frames or self._most()
        network = shapes.network(generator.settings, end or config.window)
        with jax.set_mesh(generator.mesh):
            state = generator.begin(network, self._next(0))
            noise = generator.noise([key])
        blocks = rollout.generate(network, config, generator.params, state, noise, end, self._next)
        for number, block in enumerate(within(generator.mesh, blocks), 1):
            yield Piece(block.latents, number * config.block)

    def _most(self) -> int | None:
        """The length of a video that nobody ends; raises ValueError if the cache has to hold it."""
        config = self._generator.settings.rollout
        if config.window == -1:
            raise ValueError("with rollout.window=-1 a live video needs latent_frames")
        return None if config.relative_rope else MAX_FRAMES // config.block * config.block

    def _next(self, frame: int):
        """Embeddings of the prompt that takes over at a frame, or None."""
        if not self._waiting:
            return None
        prompt = self._waiting.popleft()
        self.prompts.append((frame, prompt))
        return self._generator.text([prompt])
