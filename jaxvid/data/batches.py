"""Training batches, the same whenever and wherever they are asked for."""

from collections.abc import Iterator

import grain
import numpy as np

from jaxvid.data.source import Source


def batches(
    source: Source,
    batch_size: int,
    frames: int | None = None,
    seed: int = 0,
    start_step: int = 0,
    *,
    stream: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 4,
) -> Iterator[np.ndarray]:
    """Yields batches of random windows without end, epoch after epoch in a new order.

    What the batch of step n holds follows from (seed, stream, n) alone: not from `start_step`, the
    number of workers or, but for the order inside it, the number of processes. A batch may end one
    epoch and begin the next.

    Args:
      batch_size: videos of a batch over all processes.
      frames: length of the windows; None is the source's T.
      start_step: step whose batch comes first.
      stream: another number gives independent batches, e.g. for FDM's padding frames.
      process_index, process_count: this process gets its share of each batch.
      workers: threads that read ahead; 0 reads when asked.
    Returns:
      Iterator over uint8 (b, t, h, w, 3) with b = batch_size / process_count.
    Raises:
      ValueError: a batch that the processes cannot share evenly; later, a video that is too short.
    """
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} is not a positive multiple of the {process_count} processes"
        )
    share = batch_size // process_count
    mixed = np.random.SeedSequence([seed, stream]).generate_state(1)[0]
    order = grain.MapDataset.range(len(source)).seed(int(mixed)).shuffle().repeat()
    windows = order.random_map(lambda i, rng: source.window(int(i), rng, frames))
    ours = windows[process_index::process_count][start_step * share :]
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * share)
    return iter(ours.to_iter_dataset(options).batch(share))
