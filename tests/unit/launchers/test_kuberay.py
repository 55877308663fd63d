"""The manifests of launchers/kuberay against KubeRay's own schema, with unknown fields refused: a cluster drops them silently."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lrm_safety.interruption import STOP_WAIT_VARIABLE
from lrm_safety.settings.compose import compose_settings

KINDS = {"RayJob": "ray_job.yaml", "RayCluster": "ray_cluster.yaml"}


@pytest.fixture(scope="module")
def folder(repository_root: Path) -> Path:
    return repository_root / "launchers/kuberay"


def read(folder: Path, kind: str) -> dict[str, Any]:
    # Parts that share an anchor become copies.
    return json.loads(json.dumps(yaml.safe_load((folder / KINDS[kind]).read_text())))


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"].get("rayClusterSpec", manifest["spec"])


def problems(folder: Path, manifest: dict[str, Any]) -> list[str]:
    schema = json.loads((folder / "schema.json").read_text())
    root = {"$ref": f"#/$defs/{manifest['kind']}", "$defs": schema["$defs"]}
    found = jsonschema.Draft202012Validator(root).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in found]


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(manifest)
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in cluster["workerGroupSpecs"])


@pytest.mark.parametrize("kind", KINDS)
def test_manifests_are_what_kuberay_takes(folder: Path, kind: str) -> None:
    manifest = read(folder, kind)
    assert manifest["kind"] == kind
    assert problems(folder, manifest) == []


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (("spec",), "shutdownAfterJobFinish", True),
        (("spec",), "backoffLimit", "three"),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "securityContext"), "runAsNonroot", True),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0), "volumeMount", []),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "template", None),
    ],
)
def test_a_mistyped_field_is_found(folder: Path, path: tuple[str | int, ...], field: str, value: object) -> None:
    manifest = part = read(folder, "RayJob")
    for step in path:
        part = part[step]  # type: ignore[index]
    part[field] = value
    (problem,) = problems(folder, manifest)
    assert problem.startswith(f"$.{path[0]!s}") and field in problem


def test_job_and_cluster_are_one_cluster(folder: Path) -> None:
    assert cluster_of(read(folder, "RayJob")) == cluster_of(read(folder, "RayCluster"))


def test_the_job_saves_when_stopped_and_leaves_nothing(folder: Path) -> None:
    spec = read(folder, "RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] > 0
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert int(variables[STOP_WAIT_VARIABLE]) >= 600


def test_pods_are_unprivileged_watched_and_share_the_runs(folder: Path, repository_root: Path) -> None:
    release = tomllib.loads((repository_root / "pyproject.toml").read_text())["project"]["version"]
    for pod in pods(read(folder, "RayCluster")):
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
        (container,) = pod["containers"]
        assert container["image"].endswith(f"/lrm-safety:{release}-gpu")
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert {"readinessProbe", "livenessProbe"} <= container.keys()
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert "persistentVolumeClaim" in volumes[mounted["/shared"]]
        assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        variables = {one["name"]: one["value"] for one in container["env"]}
        assert variables["LRM_SAFETY_RUNS"].startswith("/shared/")


def test_the_cluster_has_this_ray_a_token_and_no_autoscaler(folder: Path) -> None:
    cluster = cluster_of(read(folder, "RayCluster"))
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"]["mode"] == "token" and cluster["enableInTreeAutoscaling"] is False


def test_the_command_of_the_job_fits_its_cluster(folder: Path) -> None:
    """Composed as it is: the keys exist, and its GPUs are those of the workers."""
    manifest = read(folder, "RayJob")
    program, command, *overrides = manifest["spec"]["entrypoint"].split()
    assert (program, command) == ("lrm-safety", "train")
    cluster = compose_settings(overrides)[0].cluster
    wanted = sum(
        group.num_workers * group.gpus_per_worker
        for group in (cluster.policy, cluster.rollout, cluster.reference, cluster.reward)
    )
    offered = 0
    for group in cluster_of(manifest)["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        offered += group["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert 0 < wanted <= offered
