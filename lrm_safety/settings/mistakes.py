"""One line, with the nearest name that is right, out of the many of Hydra, OmegaConf and pydantic."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, OverrideParseException
from pydantic import ValidationError

from ..errors import first_line, nearest
from ..secret_text import FILE_VARIABLE, holds_secret_override, masked
from . import Settings
from .keys import dictionaries, group_of, known_keys
from .types import Conflict, Unfit, shown

PLUGINS = {"hydra/launcher": "hydra-submitit-launcher", "hydra/sweeper": "hydra-optuna-sweeper"}
"""Groups that Hydra's plugins add to, each with a package that does."""
WANTED = {
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be a finite number (null switches a limit off)",
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text",
    "list": "must be a list, [a,b]",
    "dict": "must be a dictionary, {{key: value}}",
}
"""What is said of a value, by pydantic's types of errors; where one is not named, by its first word."""
HINTS = {
    "algorithm.dual_clip": "null switches it off",
    "rollout.top_p": "1 samples the whole distribution",
    "schedule.passes": "null leaves the end to schedule.max_updates",
}
"""What is added for a key out of its limits."""


@dataclass(frozen=True)
class Mistakes:
    """What is said of one command's mistaken overrides."""

    command: str
    example: str
    """The command with choices that compose."""
    choices: Sequence[str]
    """Those choices."""
    schema: type
    loader: ConfigLoader
    overrides: Sequence[str] = ()

    def explain(self, error: Exception) -> str:
        """The line for an error of Hydra's or OmegaConf's."""
        if isinstance(error, OverrideParseException):
            return _unread(error)
        causes = [error]
        while (cause := causes[-1].__cause__) is not None and isinstance(cause, Exception):
            causes.append(cause)
        text = str(causes[0]).strip()
        if wrong := self._of_another_command(text):
            return wrong
        key = next((k for k in (getattr(c, "full_key", None) for c in reversed(causes)) if k), None)
        if several := re.match(r"Ambiguous value for argument '(.+)'", text):
            name, _, values = several[1].partition("=")
            return f"{several[1]}: are several values; a run for each wants -m, and a list brackets, {name}=[{values}]"
        if unknown := re.search(r"Key '([^']+)' (?:is )?not in", "\n".join(str(c) for c in causes)):
            return self.unknown(key or unknown[1])
        if group := re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", text):
            return self._unknown_group(group[1])
        if file := re.search(r"Could not (?:find|load) '([^']+)'", text):
            return self._absent(file[1])
        if missing := re.search(r"Missing mandatory value: (\S+)", text):
            return self.unset(missing[1])
        if missing := re.search(r"You must specify '([^']+)'", text):
            return f"{missing[1]}: nothing chosen; {self._choose(missing[1])}"
        first = first_line(causes[-1])
        if key and key not in first:
            first = f"{key}: {first}"
        if first.startswith("Error merging override"):
            first = " ".join(line.strip() for line in text.splitlines()[:2])
        return first

    def invalid(self, error: ValidationError) -> str:
        """The line for the first value that is none of its type, or does not go with others."""
        first = error.errors(include_url=False)[0]
        kind, value, context = first["type"], first["input"], first.get("ctx", {})
        key = ".".join(str(part) for part in first["loc"] if isinstance(part, str) and part != "[key]")
        if kind == "unexpected_keyword_argument":
            return self.unknown(key)
        if kind == "dataclass_type":
            return f"{key}: is a group of keys, not {shown(value)}; set those in it"
        if isinstance(cause := context.get("error"), Conflict):
            return f"{key}.{cause}"
        if isinstance(cause, Unfit) and isinstance(value, dict):
            return f"{key}: {cause}"
        wanted = first["msg"] if cause is None else str(cause)
        if text := WANTED.get(kind) or WANTED.get(kind.partition("_")[0]):
            wanted = text.format(**{name: _listed(part) for name, part in context.items()})
        if kind.startswith(("greater", "less")) and key in HINTS:
            wanted = f"{wanted}; {HINTS[key]}"
        return f"{key}: {wanted}" if first["loc"][-1] == "[key]" else f"{key}={shown(value)}: {wanted}"

    def unknown(self, key: str) -> str:
        """What to say about a key that the schema lacks: `learning_rate` is found by its initials, others by likeness."""
        if key.startswith("hydra.launcher."):
            return self._unknown_option(key)
        keys = known_keys(self.schema)
        parent, dot, name = key.rpartition(".")
        short = f"{parent}{dot}{''.join(word[:1] for word in name.split('_'))}"
        if any(
            fnmatch.fnmatchcase(parent, name) for name, kind in dictionaries(self.schema).items() if not group_of(kind)
        ):
            return f"{key} is new there: add it with a plus, +{key}=..."
        groups = [choice.partition("=")[0] for choice in self.choices]
        near = short if short in keys else nearest(key, [*keys, *groups])
        listing = f"`lrm-safety {self.example} --cfg job` lists all keys"
        return f"unknown key {key}; {f'did you mean {near}?' if near else listing}"

    def _unknown_option(self, key: str) -> str:
        """What to say about an option that the chosen launcher lacks; another may have it."""
        words = [item.partition("=") for item in self.overrides]
        chosen = next((value for name, _, value in reversed(words) if name.lstrip("+") == "hydra/launcher"), "basic")
        store, name = ConfigStore.instance(), key.removeprefix("hydra.launcher.").partition(".")[0]
        stored = store.list("hydra/launcher")  # not a launcher of the user's own, which is a file
        nodes = {
            one: store.load(f"hydra/launcher/{one}.yaml").node
            for one in self._options("hydra/launcher")
            if f"{one}.yaml" in stored
        }
        others = [one for one, node in nodes.items() if name in node]
        if others:
            told = f"{key}: is an option of hydra/launcher={' and '.join(others)}, and not of {chosen}"
            return f"{told}; choose one of them, with -m" if chosen == "basic" else told
        known = [str(option) for option in nodes.get(chosen, {}) if option != "_target_"]
        near = nearest(name, known)
        mend = f"; did you mean {near}?" if near else f", only {', '.join(known)}" * bool(known)
        return f"{key}: hydra/launcher={chosen} has no such option{mend}"

    def unset(self, key: str) -> str:
        """What to say about a key without a value."""
        return f"{key}: must be set, or come with a choice, such as {' '.join(self.choices)}"

    def _choose(self, group: str) -> str:
        experiment = f"name an experiment ({self.choices[0]}) or " if self.schema is Settings else "give "
        return f"{experiment}{group}=OPTION from conf/{group}"

    def _options(self, group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
        try:
            return sorted(self.loader.get_group_options(group, kind))
        except HydraException:
            return []

    def _absent(self, file: str) -> str:
        group, _, name = file.rpartition("/")
        options = self._options(group)
        known = f"(available: {', '.join(options) or 'none'})"
        if apart := self._model_apart(group, name, options):
            return f"no file conf/{file}.yaml; did you mean {apart}?"
        near = nearest(name, options)
        hint = f"; did you mean {near}?" if near else ""
        if group in PLUGINS:
            mend = hint or f"; install one, such as {PLUGINS[group]}"
            return f"{group}={name}: no plugin of Hydra's has it {known}{mend}"
        return f"no file conf/{file}.yaml{hint} {known}"

    def _model_apart(self, group: str, name: str, options: Sequence[str]) -> str:
        """`experiment=star1 model=qwen3_4b` for the experiment `qwen3_4b_star1`, `sft/star1` and studies likewise; else empty."""
        model, _, rest = name.rpartition("_")
        of_model = [option for option in self._options("model") if model and option.endswith(model)]
        key = {"experiment": "model", "study": "base"}.get(group.partition("/")[0])
        if key is None or rest not in options or len(of_model) != 1:
            return ""
        return f"{group.replace('/', '=', 1)}{'/' if '/' in group else '='}{rest} {key}={of_model[0]}"

    def _unknown_group(self, group: str) -> str:
        """A group that the command does not compose; other commands may."""
        return f"{group}: `lrm-safety {self.command}` has no group of this name; `lrm-safety {self.command} --help` lists them"

    def _of_another_command(self, text: str) -> str | None:
        """What to say where the error comes of an experiment of `train` in `sft`, or the other way round; else None."""
        chosen = [item.partition("=")[2] for item in self.overrides if item.startswith("experiment=")]
        symptoms = {"sft": "Could not override", "train": "Could not override|You must specify"}
        if not chosen or self.command not in symptoms or not re.search(symptoms[self.command], text):
            return None
        if chosen[-1].startswith("sft/") == (self.command == "sft"):
            return None
        return f"experiment={chosen[-1]}: not for `{self.command}`; experiment=sft/NAME is for `sft`, the others for `train`"


def _listed(part: Any) -> Any:
    """pydantic's `'a', 'b' or 'c'` as a, b, c."""
    return part.replace(" or ", ", ").replace("'", "") if isinstance(part, str) else part


def _unread(error: OverrideParseException) -> str:
    """What is said of an override that Hydra's grammar does not take."""
    override = error.override or ""
    if masked(override) != override or holds_secret_override(override):
        return (
            f"{override.partition('=')[0]}: cannot be read, and is not shown, since it looks like a secret; put that into a file "
            f"which {FILE_VARIABLE} names (for jobs of a sweep: hydra.launcher.secrets)"
        )
    reason = (line for line in error.message.splitlines() if not line.startswith(("Error parsing", "See ")))
    return f"{override}: {_quotes(override) or ' '.join(reason)}"


def _quotes(override: str) -> str:
    """How to write a value that Hydra's grammar does not take bare; empty where quotes would not help."""
    key, equals, value = override.partition("=")
    if not equals or not value or "'" in value:
        return ""
    quoted = f"'{value}'"
    if value.startswith("[") and value.endswith("]"):
        quoted = f"[{','.join(repr(item.strip()) for item in value[1:-1].split(','))}]"
    return f'cannot be read; a value with special characters wants quotes: "{key}={quoted}"'
