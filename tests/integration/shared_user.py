"""A process that uses a shared reward group until its standard input says to leave: `shared_user.py NAME [OVERRIDE ...]`."""

from __future__ import annotations

import sys

import ray

from lrm_safety.errors import ConfigError, WorkerError
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.placement import release, reserve
from lrm_safety.workers.scoring_group import RewardGroup
from lrm_safety.workers.shared_reward import SharedRewardGroup, shared_rewards
from lrm_safety.workers.specs import RewardSpec

LEASE_SECONDS, LINGER_SECONDS = 6.0, 10.0
CONVERSATIONS = [
    Conversation(question, "", answer, answer, "complete")
    for question, answer in (("how ?", "so ."), ("why ?", "i cannot help with that ."))
]


def main(name: str, *overrides: str) -> None:
    settings = compose_settings(["experiment=miniature", *overrides])[0]
    join_ray(settings.cluster)
    spec = RewardSpec.of(settings)
    if name == "own":
        placement = reserve(["reward"], spec.cluster)["reward"]
        own = RewardGroup(spec, placement, lambda: None)
        own.start()
        print(own.result(own.submit(CONVERSATIONS)).total.tolist(), flush=True)
        own.end()
        release([placement.placement_group])
        return
    group = SharedRewardGroup(name, spec, lambda: None, LEASE_SECONDS, LINGER_SECONDS)
    try:
        group.start()
    except ConfigError as error:
        print(error, flush=True)
        return
    print("joined:", shared_rewards()[name], flush=True)
    for line in sys.stdin:
        if line.startswith("visit "):
            visitor = SharedRewardGroup(line.split()[1], spec, lambda: None, LEASE_SECONDS, LINGER_SECONDS)
            visitor.start()
            print(visitor.result(visitor.submit(CONVERSATIONS)).total.tolist(), flush=True)
            visitor.end()
        elif line.strip() == "score":
            try:
                print(group.result(group.submit(CONVERSATIONS)).total.tolist(), flush=True)
            except WorkerError as error:
                print(error, flush=True)
        elif line.strip() == "count":
            workers = [
                one for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].startswith("reward-0-")
            ]
            reserved = [one for one in ray.util.placement_group_table().values() if one["state"] != "REMOVED"]
            print(len(shared_rewards()), len(workers), len(reserved), flush=True)
        else:
            break
    group.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
