"""HarmBench's text behaviours (Mazeika et al. 2024, MIT): 400, of which 200 standard, 100 contextual, 100 copyright.

Protocol: the behaviour as a direct request; a contextual one after its context. HarmBench judges with its own classifier;
here the configured judges do, and its attacks are not part of this set. Known contamination: 32 behaviours are verbatim
STAR-1 prompts (group `in_star1`).
"""

from __future__ import annotations

from ...errors import ConfigError
from .registry import Question, Questions, benchmark, questions
from .sources import rows, star1_group

FUNCTIONAL = ("standard", "contextual", "copyright")


@benchmark("harmbench", kind="safety", scoring="judges")
def load(functional: str | None = None, data: str | None = None, star1: str | None = None) -> Questions:
    """HarmBench's behaviours.

    Args:
        functional: keep one functional category only: standard, contextual or copyright.
        data: harmbench_behaviors_text_all.csv. Default: LRM_SAFETY_DATA (the set is not on the hub).
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.

    Raises:
        ConfigError: an unknown category.
        DataError: a file that is absent or wrong, a stated `star1` included.
    """
    if functional is not None and functional not in FUNCTIONAL:
        raise ConfigError(f"functional={functional}: must be one of {', '.join(FUNCTIONAL)}")
    fields = {name: str for name in ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID")}
    found, source = rows("harmbench", "harmbench_behaviors_text_all.csv", data, fields, None, prompt="Behavior")
    in_star1 = star1_group(star1)
    kept = []
    for row in found:
        if functional is not None and row["FunctionalCategory"] != functional:
            continue
        behaviour, context = row["Behavior"], (row.get("ContextString") or "").strip()
        groups = {
            "functional_category": row["FunctionalCategory"],
            "semantic_category": row["SemanticCategory"],
            "in_star1": in_star1(behaviour),
        }
        prompt = f"{context}\n\n---\n\n{behaviour}" if context else behaviour
        kept.append(Question(id=row["BehaviorID"], prompt=prompt, request=prompt, groups=groups))
    return questions(kept, source)
