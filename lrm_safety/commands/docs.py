"""`lrm-safety docs`: what the documentation says about declarations is written out of them.

Whole pages (metrics, configuration), and blocks of other pages between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..conversation.families import FAMILIES, Family, get_family
from ..errors import ConfigError
from ..evaluation.benchmarks.registry import BENCHMARKS, Benchmark, Scoring, get_benchmark
from ..files import write_atomically
from ..lab.planning.assumptions import Assumptions
from ..lab.planning.disk import CHECKPOINT_BYTES
from ..lab.planning.memory import GIB
from ..lab.planning.plan import make_plan, refuse_what_cannot_fit
from ..modeling.shapes import num_parameters
from ..monitoring.grafana import dashboard
from ..monitoring.metrics_page import metrics_page
from ..settings.compose import TRAIN
from ..settings.paths import configuration_directory
from ..settings.reference import field_docstrings
from ..settings.reference import markdown as configuration_page
from .words import unknown_word

PACKAGE = Path(__file__).resolve().parent.parent
SCORED_BY: Mapping[Scoring, str] = {
    "judges": "judges",
    "math": "math grader",
    "integer": "integer grader",
    "choice": "letter grader",
    "own": "a grader of its own",
}
BLOCK = re.compile(r"(?P<begin><!-- generated: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def docs(arguments: list[str]) -> int:
    """Run `docs [--check]`; returns the exit status. Raises ConfigError for a page that is not current."""
    if unknown := [one for one in arguments if one != "--check"]:
        raise unknown_word("docs", unknown[0], ("--check",), "--check only")
    folder = configuration_directory().parent / "docs"
    if not folder.is_dir():
        raise ConfigError(f"docs: {folder} is absent; run it from a checkout")
    for path, text in pages(folder):
        if not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise ConfigError(f"{path}: is not current; run `make docs`")
    return 0


def pages(folder: Path) -> Iterable[tuple[Path, str]]:
    """Every page of the documentation that is generated, in whole or in part, as it has to be."""
    whole = {
        folder / "metrics.md": metrics_page,
        folder / "configuration.md": configuration_page,
        folder.parent / "launchers" / "grafana" / "dashboard.json": dashboard,
    }
    for path, write in whole.items():
        yield path, write()
    for path in sorted(folder.glob("*.md")):
        if path not in whole and BLOCK.search(text := path.read_text(encoding="utf-8")):
            yield path, BLOCK.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    if (name := found["name"]) not in BLOCKS:
        raise ConfigError(f"docs: no block is called {name}; known: {', '.join(BLOCKS)}")
    return f"{found['begin']}{BLOCKS[name]()}\n{found['end']}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *map(tuple, rows)))


def protocols() -> str:
    """How each family is sampled when it is measured."""
    by_protocol = {family.protocol: name for name in FAMILIES if (family := get_family(name)).protocol}
    rows: list[tuple[str, ...]] = [
        (
            f"`{one.name}`",
            f"`{family}`",
            f"{one.temperature:g}",
            f"{one.top_p:g}",
            str(one.top_k) if one.top_k else "off",
            f"{one.max_response_tokens:,}",
            one.source,
        )
        for one, family in by_protocol.items()
        if one
    ]
    others = ", ".join(f"`{name}`" for name in FAMILIES if get_family(name).protocol is None)
    keys = (f"`rollout.{key}`" for key in ("temperature", "top_p", "top_k", "max_response_tokens"))
    rows.append(("`training`", others, *keys, "as rollouts are sampled"))
    return table(("protocol", "family", "temperature", "top_p", "top_k", "longest response", "from"), rows)


def family_fields() -> str:
    """What a family says of itself."""
    said = field_docstrings(Family)
    return table(
        ("field", "type", "what"),
        (
            (f"`{one.name}`", str(one.type).replace("|", "or"), said[one.name].replace("\n", " "))
            for one in fields(Family)
        ),
    )


def benchmarks() -> str:
    """What every benchmark declares; where that depends on its options, what it is without any."""
    return table(
        ("`task`", "measures", "scored by", "samples", "tasks of Inspect", "options"),
        (
            (
                f"`{one.name}`",
                one.kind.replace("_", "-") + (", by its options" if one.by_arguments else ""),
                SCORED_BY[one.scoring],
                str(one.default_samples),
                ", ".join(_inspect_task(one, *named) for named in (one.tasks or {}).items()) or "none",
                ", ".join(f"`{option}`" for option in inspect.signature(one.load).parameters) or "none",
            )
            for one in map(get_benchmark, sorted(BENCHMARKS))
        ),
    )


def _inspect_task(one: Benchmark[Any], name: str, arguments: Mapping[str, Any]) -> str:
    kind = one.configured(arguments).kind
    return f"`{name}`" if kind == one.kind else f"`{name}` ({kind.replace('_', '-')})"


def tree() -> str:
    """Every module of the package with the first line of its docstring."""
    return "\n".join(["```text", "lrm_safety/", *_tree(PACKAGE, "  "), "```"])


def _tree(folder: Path, indent: str) -> Iterable[str]:
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path, indent, path.name)
        elif (path / "__init__.py").is_file():
            yield _line(path / "__init__.py", indent, f"{path.name}/")
            yield from _tree(path, f"{indent}  ")


def _line(path: Path, indent: str, name: str) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return f"{indent}{name:<{27 - len(indent)}} {said.splitlines()[0] if said else ''}".rstrip()


LAYOUTS = {
    "one node, split": ["cluster=node_8gpu_split"],
    "one node, colocated": ["cluster=node_8gpu_colocated", "rollout=vllm_colocated"],
    "four nodes": ["cluster=multinode_4x8gpu"],
}
"""Columns of the table of sizes."""


def sizes() -> str:
    """What the paper's run needs of each model on each layout of conf/cluster, smallest model first."""
    rows = []
    for path in (configuration_directory() / "model").glob("*.yaml"):
        if path.stem in ("endpoint", "miniature", "smollm2_135m"):  # none of ours, and two for a CPU
            continue
        plans = []
        for chosen in LAYOUTS.values():
            settings, _ = TRAIN.compose(["experiment=star1", f"model={path.stem}", *chosen])
            plans.append(make_plan(settings, Assumptions()))
            refuse_what_cannot_fit(plans[-1], settings, 0)
        parameters = num_parameters(plans[0].policy)
        cells = (
            f"{next(one.peak_bytes for one in plan.shares if 'policy' in one.groups) / GIB:.0f} GiB, {plan.duration.hours:.1f} h"
            for plan in plans
        )
        rows.append(
            (
                parameters,
                (
                    f"`{path.stem}`",
                    f"{parameters / 1e9:.1f} B",
                    f"{CHECKPOINT_BYTES * parameters / GIB:.0f} GiB",
                    *cells,
                ),
            )
        )
    return table(("`model=`", "size", "a checkpoint", *LAYOUTS), (row for _, row in sorted(rows)))


BLOCKS: dict[str, Callable[[], str]] = {
    "benchmarks": benchmarks,
    "family_fields": family_fields,
    "protocols": protocols,
    "sizes": sizes,
    "tree": tree,
}
"""The text of each generated block."""
