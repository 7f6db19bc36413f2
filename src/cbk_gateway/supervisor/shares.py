"""Which worker accepts on which socket. Plain arithmetic; who tells the workers is `fleet.py`.

The supervisor binds a group of sockets to one address (SO_REUSEPORT) and keeps them open for its whole life;
every worker inherits all of them. The kernel spreads connections evenly over the group, which one shared
socket would not, and since no socket of the group is ever closed, connections that wait in the queue of a
dead or draining worker are taken by whoever accepts on that socket next. A service manager's socket is a
group of one.
"""

from __future__ import annotations

from collections.abc import Sequence


def shares(sockets: int, workers: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of the sockets each worker accepts on.

    Every socket is somebody's, and every worker has at least one.

    Args:
        sockets: How many there are, at least 1.
        workers: Names of the workers that serve.
    """
    held: dict[str, list[int]] = {name: [] for name in workers}
    if workers:
        for turn in range(max(sockets, len(workers))):
            held[workers[turn % len(workers)]].append(turn % sockets)
    return {name: tuple(numbers) for name, numbers in held.items()}
