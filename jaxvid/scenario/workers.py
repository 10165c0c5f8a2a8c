"""Processes that render cameras, so that one failing or killed camera leaves the others alone.

A worker takes one camera at a time, and draws what stands still only once for all its cameras.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from jaxvid.scenario.draw import Renderer
from jaxvid.scenario.render import Job, render_camera, write_json

PATIENCE = 5.0  # seconds for a worker to end after SIGTERM


@dataclasses.dataclass(frozen=True)
class Event:
    """One step of a camera: a frame is drawn, the video is done, or an error ended it."""

    camera: str
    kind: Literal["frame", "done", "failed"]
    content: dict | str | None = None  # the record, or the error in one line


class Worker:
    """A process and the connection to it."""

    def __init__(self, job: Job):
        context = multiprocessing.get_context("spawn")  # the same on every system
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.camera = None

    def assign(self, camera: str) -> None:
        self.camera = camera
        with contextlib.suppress(BrokenPipeError):  # it ended: `receive` tells
            self.connection.send(camera)

    def receive(self) -> Event:
        """The next event; the end of the process is one as well."""
        try:
            return Event(self.camera, *self.connection.recv())
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Event(self.camera, "failed", _ending(self.process.exitcode))

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        self.connection.close()
        self.process.terminate()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def render_all(job: Job, cameras: Sequence[str], workers: int) -> Iterator[Event]:
    """Renders the cameras with that many processes; yields what happens as it happens.

    Whoever stops iterating ends the processes.
    """
    waiting, idle, busy = deque(cameras), [], {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else Worker(job)
                worker.assign(waiting.popleft())
                busy[worker.connection] = worker
            for connection in multiprocessing.connection.wait(list(busy)):
                worker = busy[connection]
                event = worker.receive()
                if event.kind != "frame":
                    del busy[connection]
                    idle += [worker] if worker.process.is_alive() else []
                yield event
    finally:
        for worker in (*idle, *busy.values()):
            worker.stop()


def serve(job: Job, connection) -> None:
    """The worker's side: renders the cameras it is sent until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))  # unfinished files are in the workshop
    renderer = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            camera = connection.recv()
            try:
                settings = job.settings
                renderer = renderer or Renderer(
                    job.scene, settings.look, settings.height, settings.width
                )
                record = render_camera(
                    job, renderer, camera, lambda: connection.send(("frame", None))
                )
                connection.send(("done", record))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                connection.send(("failed", _keep(job, camera, error)))


def _keep(job: Job, camera: str, error: Exception) -> str:
    """Records an error with its traceback; returns it in one line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    record = {"status": "failed", "scene": job.scene.id, "camera": camera, "error": line}
    with contextlib.suppress(OSError):  # the disk may be what failed
        write_json(job.record(camera), record | {"traceback": traceback.format_exc()})
    return line


def _ending(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed; if memory ran out, use fewer --workers"
    return f"its process ended with exit code {code}"
