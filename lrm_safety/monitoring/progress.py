"""How far a run is and how long it still takes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from lrm_safety.settings import ScheduleSettings


class Progress:
    """Updates done of updates planned, and the time left at the pace of the last records."""

    def __init__(self, schedule: ScheduleSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.update = 0
        self.num_updates = min(schedule.max_updates, schedule.stop_after_updates or schedule.max_updates)
        """Updates after which the run will stop, as far as is known."""
        self._planned = self.num_updates
        self._passes = schedule.passes
        self._clock = clock
        self._records: deque[tuple[int, float]] = deque(maxlen=20)

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take note of a record; `train/passes` bounds the run where schedule.passes does."""
        self.update = update
        if self._records and update < self._records[-1][0]:
            self._records.clear()
        self._records.append((update, self._clock()))
        passes = metrics.get("train/passes", 0.0)
        if self._passes is not None and passes > 0 and update > 0:
            self.num_updates = min(self._planned, max(update, math.ceil(update * self._passes / passes)))

    @property
    def seconds_left(self) -> float | None:
        """None until two records of this process tell the pace."""
        if not self._records:
            return None
        (first, start), (last, end) = self._records[0], self._records[-1]
        if last == first:
            return None
        return (end - start) / (last - first) * max(0, self.num_updates - last)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
