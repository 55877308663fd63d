"""Hydra's launchers `local_processes` and `ray_jobs`: the points of `-m` side by side, here or on a Ray cluster.

Hydra finds this package by itself and imports it with every command, so that what it works with is imported when it is used.
It does so before the module is known to Python, wherefore annotations are no strings here.
"""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional  # noqa: UP035 - OmegaConf reads these

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from lrm_safety.sweeping import Place, Point

PACKAGE = "hydra_plugins.lrm_safety_launchers"


@dataclass
class LocalProcessesConf:
    """`hydra/launcher=local_processes`: processes of this machine."""

    _target_: str = f"{PACKAGE}.LocalProcessesLauncher"
    concurrency: int | None = None
    """Points at once; null: as many as the machine's GPUs, or on a CPU its cores, can serve."""
    retries: int = 1
    """How often a point that failed is started again; it goes on from its checkpoint."""
    on_interrupt: str = "ask"
    """What becomes of running points after Ctrl-C or SIGTERM: ask, leave, stop. Without a terminal `ask` stops them."""


@dataclass
class RayJobsConf:
    """`hydra/launcher=ray_jobs`: jobs of a running Ray cluster."""

    _target_: str = f"{PACKAGE}.RayJobsLauncher"
    concurrency: int | None = None
    """Points at once; null: as many as the cluster's CPUs and GPUs have room for."""
    retries: int = 1
    """How often a point that failed is started again; it goes on from its checkpoint."""
    on_interrupt: str = "ask"
    """What becomes of running points after Ctrl-C or SIGTERM: ask, leave, stop. Without a terminal `ask` leaves them."""
    address: Optional[str] = None  # noqa: UP045
    """The cluster's dashboard; null: RAY_API_SERVER_ADDRESS, else this machine's."""
    working_dir: str = "."
    """Folder that is sent."""
    max_upload: int = 64
    """MiB of it at most."""
    env: List[str] = field(default_factory=list)  # noqa: UP006
    """Variables for the jobs, NAME or NAME=VALUE."""
    secrets: Optional[str] = None  # noqa: UP045
    """A file on every node with lines such as WANDB_API_KEY=..., which its owner alone can read."""
    entrypoint_num_cpus: Optional[float] = None  # noqa: UP045
    """CPUs that the command itself reserves."""
    entrypoint_num_gpus: Optional[float] = None  # noqa: UP045
    """GPUs that the command itself reserves, which `evaluate` needs."""


for _name, _node in (("local_processes", LocalProcessesConf), ("ray_jobs", RayJobsConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="lrm_safety")


class PointReturn(JobReturn):
    """What Hydra's sweepers are given of a point. Of a failed one everything has been told: Hydra's own adds a line to it."""

    @property
    def return_value(self) -> Any:
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class SideBySide(Launcher):
    """What both launchers do; `options` are those of their configuration."""

    schema: Any
    """The configuration."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.config: DictConfig
        self.task: Any
        self.context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    @abstractmethod
    def place(self, planned: Sequence[tuple["Point", Any]]) -> "Place":
        """Where these points with their settings run."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Bring all points to their ends; a failed one's JobReturn holds the error, which Hydra's sweepers raise."""
        from lrm_safety.commands.sweep import check_options, tell
        from lrm_safety.sweep_files import objective_of
        from lrm_safety.sweeping import run_points

        setup_globals()
        check_options(self.options, self.schema.__dataclass_fields__)
        configs = [self._config(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        planned = [self.task.point(*one) for one in configs]
        points = [point for point, _ in planned]
        waiting = [one for one in planned if one[0].state == "waiting"]
        place = self.place(waiting) if waiting else None
        try:
            if place is not None:
                run_points(points, place, retries=self.options["retries"], on_interrupt=self.options["on_interrupt"])
        finally:
            tell(points)
        returned = []
        for point, settings in planned:
            job = PointReturn()
            job.overrides, job.working_dir = list(point.words), str(point.folder)
            job.status = JobStatus.COMPLETED
            if point.state in ("failed", "stopped"):
                job.status, job.return_value = JobStatus.FAILED, self.task.failed(point)
            else:
                job.return_value = objective_of(point.folder, getattr(settings.run, "objective", None))
            returned.append(job)
        return returned

    def _config(self, overrides: Sequence[str], number: int) -> tuple[DictConfig, int, Sequence[str], Path]:
        """The configuration of one point, its number and overrides, and its folder."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # hydra.sweep.subdir refers to it
        folder = Path(str(config.hydra.sweep.dir)) / str(OmegaConf.select(config, "hydra.sweep.subdir"))
        own = copy.deepcopy(config)
        with open_dict(own):
            del own["hydra"]
        return own, number, overrides, folder.absolute()


class LocalProcessesLauncher(SideBySide):
    """Points as processes of this machine."""

    schema = LocalProcessesConf

    def place(self, planned: Sequence[tuple["Point", Any]]) -> "Place":
        from lrm_safety.commands.sweep import local_place

        logs = Path(str(self.config.hydra.sweep.dir)).absolute() / "logs"
        return local_place(planned, logs, self.options["concurrency"])


class RayJobsLauncher(SideBySide):
    """Points as jobs of a Ray cluster."""

    schema = RayJobsConf

    def place(self, planned: Sequence[tuple["Point", Any]]) -> "Place":
        from lrm_safety.commands.multirun import folder_key
        from lrm_safety.commands.sweep import cluster_place
        from lrm_safety.run_folder import refuse_relative

        refuse_relative(Path(str(self.config.hydra.sweep.dir)), folder_key(self.task.command), "export")
        return cluster_place(planned, self.options)
