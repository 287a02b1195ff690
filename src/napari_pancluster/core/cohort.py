"""The same work for every case, through dask: on a thread of this machine, or on a cluster."""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_pancluster.core.errors import InputError, PanclusterError
from napari_pancluster.core.progress import Progress, Task

if TYPE_CHECKING:
    from distributed import Client, Future

Tell = Callable[[int, int], None]
"""Given done and total; raises `Stopped` where the result is no longer wanted."""
Work = Callable[[str, Tell], dict[str, Any]]
"""Does one case: an order as text, and whom to tell how far it is. At the top of a module."""

# Twice: for the first look, and for the client.
_ANSWER_S = 7.0
_LOOK_S = 0.1
_TOLD_S = 0.25
_WATCH_S = 1.0
# To stop by itself; a window says "within a second".
_PATIENCE_S = 0.7
# Workers may be started anew by whoever runs the cluster.
_NO_WORKERS_S = 60.0


class Stopped(Exception):
    """Nobody wants the result any more."""


@dataclass
class _Talk:
    """What the thread that supervises the work and the task that waits for it say to each other."""

    heard: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def told(self, case: str, done: int, total: int) -> None:
        """Pass on how far a case is."""
        self.heard.put(("progress", (case, done, total)))
        if self.stop.is_set():
            raise Stopped


def each_case(
    work: Work, orders: Mapping[str, str], *, scheduler: str | None, folder: Path
) -> Task[dict[str, dict[str, Any]]]:
    """Do the same work for every case as one dask graph, a task a case.

    Without a scheduler the graph runs on dask's threads, one case at a time: the network uses all
    cores as it is, and two cases at once would share them and hold twice the pixels.

    Parameters
    ----------
    work
        What is to be done; its result is what JSON can hold.
    orders
        By case.
    scheduler
        Address of a `dask.distributed` scheduler. The work of a worker that is lost is done again
        by another.
    folder
        That this machine and all workers can write.

    Raises
    ------
    InputError
        If the scheduler does not answer, or has no workers.
    """
    talk = _Talk()
    where = (
        partial(_on_threads, work, orders, talk)
        if scheduler is None
        else partial(_on_cluster, work, orders, talk, scheduler, folder)
    )
    # dask's own loop blocks until all is done: a thread leaves this task free to report and stop.
    thread = threading.Thread(target=_supervise, args=(where, talk), daemon=True)
    thread.start()
    stage = "Mapping" if scheduler is None else f"Waiting for {scheduler}"
    reached: dict[str, tuple[int, int]] = {}
    try:
        yield Progress(stage)
        while True:
            try:
                kind, what = talk.heard.get(timeout=_LOOK_S)
            except queue.Empty:
                yield _progress(stage, reached)
                continue
            if kind == "done":
                results: dict[str, dict[str, Any]] = what
                return results
            if kind == "error":
                raise what
            if kind == "stage":
                stage = what
            else:
                case, done, total = what
                reached[case] = done, total
                stage = f"Mapping {case}" if scheduler is None else stage
            yield _progress(stage, reached)
    finally:
        talk.stop.set()
        thread.join(_PATIENCE_S)


def _progress(stage: str, reached: Mapping[str, tuple[int, int]]) -> Progress:
    return Progress(stage, *(sum(column) for column in zip(*reached.values(), strict=True)))


def _supervise(where: Callable[[], dict[str, dict[str, Any]]], talk: _Talk) -> None:
    try:
        talk.heard.put(("done", where()))
    # The border between threads: whatever is raised must reach the task that waits.
    except BaseException as error:
        talk.heard.put(("error", error))


def _on_threads(work: Work, orders: Mapping[str, str], talk: _Talk) -> dict[str, dict[str, Any]]:
    from dask.base import compute

    graph = _graph(work, orders, {case: partial(talk.told, case) for case in orders})
    results = compute(*graph.values(), scheduler="threads", num_workers=1)
    return dict(zip(orders, results, strict=True))


def _graph(work: Work, orders: Mapping[str, str], tell: Mapping[str, Tell]) -> dict[str, Any]:
    """Return one delayed task a case, in the order of the cases."""
    from dask.delayed import delayed

    # A scheduler keeps results by name: another's of the same name would be taken for this one's.
    token = secrets.token_hex(6)
    task = delayed(work, pure=False)
    return {
        case: task(order, tell[case], dask_key_name=f"pancluster-{token}-{number:05d}")
        for number, (case, order) in enumerate(orders.items())
    }


def _on_cluster(
    work: Work, orders: Mapping[str, str], talk: _Talk, address: str, folder: Path
) -> dict[str, dict[str, Any]]:
    topic = f"pancluster-{secrets.token_hex(6)}"
    # While this file is there, the results are wanted: workers look at it between two batches.
    wanted = folder / f"{topic}.wanted"
    folder.mkdir(parents=True, exist_ok=True)
    with _connected(address) as client:
        client.subscribe_topic(topic, lambda event: talk.heard.put(("progress", event[1])))
        graph = _graph(work, orders, {case: _Teller(topic, case, str(wanted)) for case in orders})
        try:
            wanted.touch()
            futures = dict(zip(orders, client.compute(list(graph.values())), strict=True))
            return _gathered(client, futures, talk, address)
        finally:
            wanted.unlink(missing_ok=True)


def _gathered(
    client: Client, futures: Mapping[str, Future[Any]], talk: _Talk, address: str
) -> dict[str, dict[str, Any]]:
    from distributed import as_completed

    cases = {future.key: case for case, future in futures.items()}
    results: dict[str, dict[str, Any]] = {}
    finished = as_completed(list(futures.values()), loop=client.loop)
    watch = _Watch(client, address)
    try:
        while len(results) < len(futures):
            if talk.stop.is_set():
                raise Stopped
            workers = watch.workers()
            stage = f"Mapping on {workers} worker{'' if workers == 1 else 's'}"
            talk.heard.put(("stage", f"{stage}, {len(results)} of {len(futures)} cases done"))
            batch = finished.next_batch(block=False) if finished.has_ready() else ()
            for future in batch:
                results[cases[future.key]] = _result(future, cases[future.key], address)
            if not batch:
                time.sleep(_LOOK_S)
        return {case: results[case] for case in futures}
    finally:
        if len(results) < len(futures):
            client.cancel(list(futures.values()))


def _result(future: Future[Any], case: str, address: str) -> dict[str, Any]:
    """Return what came of a case, or raise why nothing did, in plain words."""
    from distributed import KilledWorker

    if future.status in ("cancelled", "lost"):
        raise _lost(address)
    error = future.exception()
    if isinstance(error, KilledWorker):
        raise PanclusterError(
            f"Case {case} took several workers of {address} down with it; often they have too "
            "little memory. Give them more and map again: finished cases are kept."
        ) from error
    if isinstance(error, ImportError):
        raise InputError(
            f"A worker of {address} cannot do the work ({error}). Install the same version of "
            "napari-pancluster there."
        ) from error
    if error is not None:
        raise error
    result: dict[str, Any] = future.result()
    return result


def _lost(address: str) -> PanclusterError:
    return PanclusterError(
        f"The connection to {address} was lost. Map again: finished cases are kept."
    )


class _Watch:
    """How many workers a cluster has, looked at now and then.

    Parameters
    ----------
    client
        Connected.
    address
        Of the scheduler.
    """

    def __init__(self, client: Client, address: str) -> None:
        self._client, self._address = client, address
        self._seen = time.monotonic()
        self._looked = self._seen
        self._count = len(client.nthreads())

    def workers(self) -> int:
        """Return their number.

        Raises
        ------
        PanclusterError
            If the scheduler is gone, or there have been no workers for a minute.
        """
        now = time.monotonic()
        if now - self._looked < _WATCH_S:
            return self._count
        self._looked = now
        try:
            self._count = len(self._client.nthreads())
        except OSError:
            if now - self._seen > _ANSWER_S:
                raise _lost(self._address) from None
            return self._count
        if self._count:
            self._seen = now
        elif now - self._seen > _NO_WORKERS_S:
            raise PanclusterError(
                f"All workers of {self._address} were lost. Start them again and map again: "
                "finished cases are kept."
            )
        return self._count


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """Yield a client of a scheduler that answers and has workers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            f"--scheduler {address} needs dask.distributed. Install it: "
            'pip install "napari-pancluster[cluster]"'
        ) from error
    try:
        # A client that gets no answer takes another 20 s to give up its own threads.
        asyncio.run(_look_at(address))
        client = Client(address, timeout=_ANSWER_S, set_as_default=False)
    # Another kind of server may send anything: distributed raises even MemoryError then.
    except Exception as error:
        raise InputError(
            f"--scheduler {address} does not answer as a scheduler ({_first_line(error)}). Check "
            "the address, such as tcp://127.0.0.1:8786, and that the scheduler runs."
        ) from error
    try:
        if not client.nthreads():
            raise InputError(
                f"The scheduler {address} has no workers. Start some: dask worker {address}"
            )
        yield client
    finally:
        client.close(timeout=_PATIENCE_S)


async def _look_at(address: str) -> None:
    """Connect once, and take leave."""
    from distributed.comm.core import connect

    comm = await connect(address, timeout=_ANSWER_S)
    await comm.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


class _Teller:
    """Tells the scheduler, from a worker, how far a case is.

    Parameters
    ----------
    topic
        Under which the client listens.
    case
        Which one it is.
    wanted
        A file that is there while the result is wanted.
    """

    def __init__(self, topic: str, case: str, wanted: str) -> None:
        self._topic, self._case, self._wanted = topic, case, wanted
        self._told = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Tell, a few times a second."""
        from distributed import get_worker

        now = time.monotonic()
        if done < total and now - self._told < _TOLD_S:
            return
        self._told = now
        if not Path(self._wanted).exists():
            raise Stopped
        get_worker().log_event(self._topic, (self._case, done, total))
