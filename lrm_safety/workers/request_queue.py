"""Which engine is given which request, and when: one queue for several engines. No Ray and no clock."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence

from ..errors import InvariantError
from ..rollouts import GenerationRequest, Rollout

WAITING_SHARE = 8
"""An engine holds an eighth more requests than run at once: a place that falls free is taken without a round trip."""


class RequestQueue:
    """Requests in the order in which they are to begin. Each is given to the engine that holds the fewest, as long as one has
    room; the others wait here, and with them whatever an engine would have had to wait for behind its own. None is through
    while others have work waiting."""

    def __init__(self, num_engines: int, places: int | None) -> None:
        """`places`: responses that an engine samples at one time; None: it is given whatever there is, at once."""
        self.held: list[dict[int, GenerationRequest]] = [{} for _ in range(num_engines)]
        """By engine and `request_id`: given to it and not answered."""
        self._room = math.inf if places is None else places + math.ceil(places / WAITING_SHARE)
        self._waiting: deque[GenerationRequest] = deque()

    def __len__(self) -> int:
        """Requests that are not answered."""
        return len(self._waiting) + sum(map(len, self.held))

    def __bool__(self) -> bool:
        """Whether there are any; asked at every look for answers."""
        return bool(self._waiting) or any(self.held)

    def add(self, requests: Sequence[GenerationRequest]) -> None:
        """Behind those that wait. `request_id`s differ from those of all that are not answered."""
        self._waiting.extend(requests)

    def deal(self) -> list[list[GenerationRequest]]:
        """What each engine is to be given now."""
        shares: list[list[GenerationRequest]] = [[] for _ in self.held]
        if not self._waiting:
            return shares
        fewest = [(len(held), engine) for engine, held in enumerate(self.held)]
        heapq.heapify(fewest)
        while self._waiting and fewest[0][0] < self._room:
            count, engine = fewest[0]
            request = self._waiting.popleft()
            shares[engine].append(request)
            self.held[engine][request.request_id] = request
            heapq.heapreplace(fewest, (count + 1, engine))
        return shares

    def answered(self, engine: int, rollouts: Sequence[Rollout]) -> None:
        """Raises InvariantError for an answer to what the engine was not asked."""
        for rollout in rollouts:
            if self.held[engine].pop(rollout.request_id, None) is None:
                raise InvariantError(f"rollout engine {engine} answered request {rollout.request_id} twice")

    def lost(self, engine: int) -> None:
        """What the engine had not answered waits again, before the others."""
        self._waiting.extendleft(reversed(self.held[engine].values()))
        self.held[engine].clear()

    def clear(self) -> None:
        """Nothing is to be answered any more."""
        self._waiting.clear()
        for held in self.held:
            held.clear()
