"""Whether this container works, for Docker: its node of Ray says so, or it has none. `python docker/health.py [AGENT_PORT]`."""

import sys
import urllib.request
from pathlib import Path

PORT = sys.argv[1] if len(sys.argv) > 1 else "52365"


def has_node() -> bool:
    """Whether a raylet runs here; a process may end while it is looked at."""
    for process in Path("/proc").glob("[0-9]*/comm"):
        try:
            if process.read_text() == "raylet\n":
                return True
        except OSError:
            continue
    return False


try:
    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/local_raylet_healthz", timeout=10).close()
except OSError as error:
    if has_node():
        sys.exit(f"the raylet of this container does not answer on port {PORT}: {error}")
