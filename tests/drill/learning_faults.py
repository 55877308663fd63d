"""Faults of engines, rewards, the reference and the weight sync: on RL runs."""

from __future__ import annotations

import contextlib
import http.server
import json
import signal
import threading
import time
from typing import Any

from declared import STACKS, fault
from scene import NotRun, Scene, is_root
from supervised_faults import RESTARTS

from lrm_safety.weight_sync.shm import SHARED_MEMORY

REPLACED = r"{} (worker|engine) \d .*replaced"


# --- processes


@fault("train", says=REPLACED.format("rollout"), limit=200)
def kill_engine(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("engine", signal.SIGKILL)


@fault("train", says=REPLACED.format("reward"), limit=200)
def kill_reward(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("reward", signal.SIGKILL)


@fault("train", says=REPLACED.format("reference"), limit=200)
def kill_reference(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.signal("reference", signal.SIGKILL)


@fault("train", says=r"rollout engine \d hung and is replaced", limit=200, leaves=STACKS)
def stop_engine(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("engine", signal.SIGSTOP)


@fault("train", says=r"reward worker \d hung and is replaced", limit=200, leaves=STACKS)
def stop_reward(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("reward", signal.SIGSTOP)


@fault("train", says=r"reference worker \d hung and is replaced", limit=200, leaves=STACKS)
def stop_reference(scene: Scene) -> None:
    scene.start(*RESTARTS)
    scene.moment()
    scene.signal("reference", signal.SIGSTOP)


# --- signals


@fault("train", says="stopped by SIGTERM", limit=200)
def term_in_generate(scene: Scene) -> None:
    scene.start()
    scene.moment()
    scene.until(lambda: scene.subject.busy_with("RolloutWorker.generate"), pause=0.01)
    scene.signal("controller", signal.SIGTERM)


@fault("train", says="stopped by SIGTERM", limit=200)
def term_in_sync(scene: Scene) -> None:
    scene.start()
    scene.moment()
    host = f"lrm_safety-*-{scene.subject.process.pid}"
    known = {*SHARED_MEMORY.glob(f"{host}/*")}
    scene.until(lambda: {*SHARED_MEMORY.glob(f"{host}/*")} - known, pause=0.005)
    scene.signal("controller", signal.SIGTERM)


@fault("train", says="stopped by SIGTERM", limit=200)
def term_in_evaluation(scene: Scene) -> None:
    scene.start("evaluation.every_updates=4")
    scene.until(lambda: scene.update() >= 4)
    scene.until(lambda: scene.subject.busy_with("RolloutWorker.generate"), pause=0.01)
    scene.signal("controller", signal.SIGTERM)


# --- shared memory


@fault("train", says=None, limit=300)
def tiny_shared_memory(scene: Scene) -> None:
    """A container's that nobody asked more for, and less: the weights go over the disk."""
    if not is_root():
        raise NotRun("mounting a file system needs root")
    shell = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"'
    scene.prefix = ("unshare", "--mount", "sh", "-c", shell, "drill")
    scene.start()
    scene.harm("16 MB of /dev/shm from the start", lambda: None)


# --- the endpoint of a reward


class Endpoint:
    """Scores responses by their length; `mode` says how it answers: well, slow, hung, or refusing."""

    def __init__(self, scene: Scene) -> None:
        self.mode = "well"
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["conversations"]
                status = endpoint.wait()
                body = json.dumps({"scores": [float(len(one["answer"]) % 7) for one in asked]}).encode()
                with contextlib.suppress(OSError):  # who asked did not wait
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._released = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        scene.lasting = (
            "reward=http_example",
            f"reward.models.endpoint.url=http://127.0.0.1:{self._server.server_port}/score",
            "reward.models.endpoint.timeout_seconds=5",
            "reward.models.endpoint.max_retries=2",
        )
        scene.cleanups.append(self.close)

    def wait(self) -> int:
        """The status of the answer, after as long as the mode takes."""
        if self.mode == "hung":
            self._released.wait(3600)
        elif self.mode == "slow":
            time.sleep(3)
        return 503 if self.mode == "refusing" else 200

    def recover(self) -> None:
        """Answer well from now on."""
        self.mode = "well"

    def close(self) -> None:
        """End the server."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


def turn(scene: Scene, mode: str) -> Endpoint:
    """A run whose endpoint turns at a random moment, and is well again when the command is started again."""
    endpoint = Endpoint(scene)
    scene.start()
    scene.moment()
    scene.harm(f"the reward's endpoint is {mode}", lambda: setattr(endpoint, "mode", mode))
    scene.before_again = endpoint.recover
    return endpoint


@fault("train", says=r"error: reward.models.endpoint.url=.* after 3 tries of 5 s", promise="finished", limit=200)
def endpoint_hangs(scene: Scene) -> None:
    turn(scene, "hung")


@fault("train", says=r"error: reward.models.endpoint.url=.* 503", promise="finished", limit=200)
def endpoint_refuses(scene: Scene) -> None:
    turn(scene, "refusing")


@fault("train", says=None, promise="finished", limit=300)
def endpoint_is_slow(scene: Scene) -> None:
    turn(scene, "slow")
