"""What the tests of the groups work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from lrm_safety.preparation import PreparedRun
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.workers.groups import Groups


@dataclass
class Started:
    """A prepared run and its groups, with weights version 1 published."""

    run: PreparedRun
    groups: Groups
    waited_for: list[list[str]] = field(default_factory=list)
    """The groups that had not started yet, as often as that was said."""

    def requests(self, count: int, first_seed: int = 0) -> list[GenerationRequest]:
        """One request for each of the first prompts."""
        return [GenerationRequest(i, i, self.run.rendered[i], first_seed + i) for i in range(count)]
