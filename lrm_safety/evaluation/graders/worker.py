"""The process that compares answers by computer algebra: `python -m lrm_safety.evaluation.graders.worker BYTES`.

Reads one JSON line `[answer, gold, seconds]` at a time and writes `true` or `false`; `ready` comes first. The kernel ends
the process when a comparison uses more processor time than its limit, even inside one long operation on integers, where
an exception raised by a signal handler would wait for the operation's end. Processor time, not time on the clock: a
machine that is busy generating must not change verdicts.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys

from lrm_safety.evaluation.graders.equivalence import compare_by_algebra


def main() -> None:
    memory_bytes = int(sys.argv[1])
    compare_by_algebra("x+1", "1+x")  # imports sympy and fills its tables before any limit runs
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # Ctrl-C is the parent's to handle; it closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may pass for a verdict
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        answer, gold, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = compare_by_algebra(answer, gold)
        except (Exception, RecursionError):
            verdict = False  # sympy raises nearly anything on nonsense; what cannot be compared is not equal
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, b"true\n" if verdict else b"false\n")


if __name__ == "__main__":
    main()
