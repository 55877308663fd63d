from __future__ import annotations

import math

from lrm_safety.monitoring.registry import Alarms, unhealthy


def test_unhealthy_names_value_range_and_meaning() -> None:
    alarms = unhealthy({"train/ratio_mean": 1.5, "train/lr": 1e9, "kl/k1": 0.1, "train/ratio_max": 12.0})
    assert [alarm.name for alarm in alarms] == ["train/ratio_mean", "train/ratio_max"]
    assert alarms[0].text.startswith("train/ratio_mean = 1.5, healthy 0.9 to 1.1: Mean of rho")
    assert "train/ratio_max = 12, healthy at most 10:" in alarms[1].text
    (far,) = unhealthy({"kl/k3": 99.0})
    assert far.text.startswith("kl/k3 = 99 nats/token, healthy ")
    assert all("\n" not in alarm.text for alarm in alarms)


def test_nan_raises_an_alarm_even_without_a_range() -> None:
    assert [alarm.name for alarm in unhealthy({"train/loss": math.nan, "train/lr": 0.0})] == ["train/loss"]


def test_each_metric_is_reported_once_per_quiet_span() -> None:
    alarms = Alarms(quiet_updates=3)
    bad = {"train/ratio_mean": 2.0}
    reported = [update for update in range(1, 9) if alarms.fresh(update, bad)]
    assert reported == [1, 4, 7]
    both = alarms.fresh(8, {**bad, "train/gradient_norm": 99.0})
    assert [alarm.name for alarm in both] == ["train/gradient_norm"]


def test_after_going_back_alarms_are_said_again() -> None:
    alarms = Alarms(quiet_updates=20)
    bad = {"train/ratio_mean": 2.0}
    assert alarms.fresh(50, bad)
    assert alarms.fresh(10, bad)
