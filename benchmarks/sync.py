"""Seconds of one weight sync from one trainer rank to one engine."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from .figures import Context, Measurement, NotMeasured
from .timing import interleave, stopwatch

SYNCS = 5


def measure(model: str) -> Callable[[Context], Measurement]:
    """The measurement for `miniature` or `smollm2`."""

    def seconds_of(context: Context) -> Measurement:
        system = context.systems.get(model)
        policy, rollout = system.policy, system.rollout
        side = stopwatch(lambda: policy.publish_weights(rollout))
        seconds = interleave({"sync": side}, warm_up=1, rounds=SYNCS)["sync"]
        if rollout.weights_versions() != [policy.weights_version]:
            raise NotMeasured("the engine does not hold the version that was published")
        return Measurement(median(seconds), {"seconds": seconds, "backend": rollout.backend})

    return seconds_of
