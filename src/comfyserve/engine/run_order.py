"""In which order the nodes of a graph run: what shows something soonest goes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


class RunOrder:
    """The nodes still to run, those above before those below.

    *above* lists the nodes that a node needs and that are not cached. Of the nodes that are ready,
    an output node goes first, then one whose result an output node waits for, then one that is
    two steps from an output node, then the one found first.
    """

    def __init__(
        self, above: Callable[[str], Sequence[str]], is_output: Callable[[str], bool]
    ) -> None:
        self._above = above
        self._is_output = is_output
        self._needs: dict[str, set[str]] = {}
        self._feeds: dict[str, list[str]] = {}

    def add(self, output: str) -> None:
        """Plan an output node and all that it needs."""
        waiting = [output]
        while waiting:
            node_id = waiting.pop()
            if node_id in self._needs:
                continue
            above = self._above(node_id)
            self._needs[node_id] = set(above)
            self._feeds.setdefault(node_id, [])
            for source in dict.fromkeys(above):
                self._feeds.setdefault(source, []).append(node_id)
            waiting += above

    def __iter__(self) -> Iterator[str]:
        """Each node when its turn comes; asking for the next one says that it is done."""
        ready = [node_id for node_id, needs in self._needs.items() if not needs]
        place = {node_id: index for index, node_id in enumerate(self._needs)}
        while ready:
            node_id = self._pick(ready)
            yield node_id
            ready.remove(node_id)
            for below in self._feeds.pop(node_id):
                self._needs[below].discard(node_id)
                if not self._needs[below]:
                    ready.append(below)
            ready.sort(key=place.__getitem__)

    def _pick(self, ready: list[str]) -> str:
        for distance in (0, 1, 2):
            for node_id in ready:
                if self._shows(node_id, distance):
                    return node_id
        return ready[0]

    def _shows(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return self._is_output(node_id)
        return any(self._shows(below, distance - 1) for below in self._feeds[node_id])
