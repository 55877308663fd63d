"""What it costs to be watched: heartbeats of every worker and the gauges of every record, as shares of an iteration."""

from __future__ import annotations

import os
import re
import socket
import time
from statistics import median

import ray

from lrm_safety.progress import PROGRESS
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.heartbeat import BEAT_SECONDS, Beat
from lrm_safety.workers.prometheus import PrometheusView

from .controller import SKIPPED, run_of_miniature
from .figures import Context, Measurement
from .system import settings_of

BEATS = 5000
RECORDS = 200


def beat_seconds() -> float:
    """Processor seconds of one heartbeat, made, sent over loopback, received and read, both sides together."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as controller,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as worker,
    ):
        controller.bind(("127.0.0.1", 0))
        address = controller.getsockname()
        begin = time.process_time()
        for _ in range(BEATS):
            beat = Beat("policy-0-1234567890123456789", os.getpid(), "host", "0" * 56, PROGRESS.read())
            worker.sendto(beat.pack("0" * 32), address)
            assert Beat.unpack(controller.recv(4096), "0" * 32) == beat
        return (time.process_time() - begin) / BEATS


def heartbeat_overhead(context: Context) -> Measurement:
    """Processor seconds that the heartbeats of all workers take in a second; the pieces that they tell of cost less than they."""
    series = run_of_miniature(context)
    workers = {name for name in series if re.fullmatch(r"memory/\w+_\d+_rss_gib", name)}
    seconds = beat_seconds()
    return Measurement(seconds * len(workers) / BEAT_SECONDS, {"beat_seconds": seconds, "workers": len(workers)})


def prometheus_overhead(context: Context) -> Measurement:
    """Seconds of setting the gauges of one record / seconds of an iteration."""
    series = run_of_miniature(context)
    iteration = median(seconds for _, seconds in series["time/iteration_seconds"][SKIPPED:])
    record = {name: values[-1][1] for name, values in series.items()}
    if not ray.is_initialized():
        join_ray(settings_of("miniature", context.threads, []).cluster)
    view = PrometheusView("benchmark")
    view.record(record)
    begin = time.perf_counter()
    for _ in range(RECORDS):
        view.record(record)
    seconds = (time.perf_counter() - begin) / RECORDS
    return Measurement(
        seconds / iteration, {"record_seconds": seconds, "iteration_seconds": iteration, "metrics": len(record)}
    )
