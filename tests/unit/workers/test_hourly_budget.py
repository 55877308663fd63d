from __future__ import annotations

from lrm_safety.workers.group import HourlyBudget


def test_a_budget_is_of_any_hour_not_of_the_run() -> None:
    now = [0.0]
    budget = HourlyBudget(2, lambda: now[0])
    assert budget.spend() and budget.spend() and not budget.spend()
    now[0] = 3599.0
    assert budget.spent == 2 and not budget.spend()
    now[0] = 3600.0
    assert budget.spent == 0 and budget.spend()
    assert not HourlyBudget(0).spend()
