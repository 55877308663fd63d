"""Submit `lrm-safety COMMAND OVERRIDES` of this checkout to a running Ray cluster.

    python launchers/ray_job.py --address http://HEAD:8265 train experiment=... schedule.max_updates=200

On Slurm and Kubernetes (docs/clusters.md) a cluster is started first; the rest is the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lrm_safety.errors import LrmSafetyError
from lrm_safety.launching import DEFAULT_ADDRESS, run_job

CHECKOUT = Path(__file__).resolve().parents[1]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Submit a command of lrm-safety to a Ray cluster.")
    parser.add_argument("--address", help=f"the cluster's dashboard (RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS})")
    parser.add_argument("--working-dir", type=Path, default=CHECKOUT, help="the checkout to send (default: this one)")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="follow the log; return the exit code of the job",
    )
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="a variable for the job, such as LRM_SAFETY_DATA or HF_HOME; may be repeated; secrets are refused",
    )
    parser.add_argument(
        "--secrets",
        metavar="PATH",
        help="a file on every node, readable by its owner alone, with lines such as WANDB_API_KEY=...; only its name travels",
    )
    for kind, use in (("cpus", "CPUs"), ("gpus", "GPUs, which evaluate and analyze need for their models")):
        parser.add_argument(
            f"--entrypoint-num-{kind}", type=float, metavar="N", help=f"reserve for the command itself so many {use}"
        )
    parser.add_argument("command", help="a command of lrm-safety, such as train")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra overrides and options of the command")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return run_job(
            given.command,
            given.overrides,
            address=given.address,
            working_dir=given.working_dir,
            wait=given.wait,
            passed=given.env,
            secrets_file=given.secrets,
            num_cpus=given.entrypoint_num_cpus,
            num_gpus=given.entrypoint_num_gpus,
        )
    except LrmSafetyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
