"""`lrm-safety evaluate` and plain `inspect eval` with the real engine: results, resume, another judge, and mistakes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from inspect_ai.log import list_eval_logs, read_eval_log
from running import Command
from tiny_models import save_adapter

import lrm_safety
from lrm_safety.cli import main

LIMIT = 8
SMALL = (
    "evaluate",
    "model=miniature",
    "rollout=vllm_cpu",
    "evaluation=miniature",
    "+evaluation.benchmarks.asked={task: attaq, arguments: {data: asked.csv}}",
    f"evaluation.limit={LIMIT}",
    "evaluation.batch_size=4",
    "run.directory=run",
)
ASSETS = Path(lrm_safety.__file__ or "").parent / "miniature" / "assets"
POLICY, QUESTIONS = ASSETS / "policy", ASSETS / "prompts" / "held_out.jsonl"
BENCHMARKS = ("safety", "arithmetic", "benign", "asked")


def results_of(run: Path) -> dict[str, Any]:
    """results.json without what depends on the machine's speed."""
    results = json.loads((run / "results.json").read_text())
    assert set(results.pop("seconds")) == {"generate_seconds", "judge_seconds", "grade_seconds"}
    return results


def write_questions(folder: Path) -> None:
    """A file in AttaQ's form whose questions are the miniature's, so that there is something for a judge to read."""
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    chosen = [row["question"] for row in rows if row["kind"] == "forbidden"][:LIMIT]
    (folder / "asked.csv").write_text("input,label\n" + "".join(f'"{question}",violence\n' for question in chosen))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that nothing disturbed."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_questions(folder)
    command = Command(folder, SMALL)
    assert command.wait() == 0, command.output
    assert "generating: 32 responses" in command.stdout and "pass@1" in command.stdout
    return folder / "run"


def test_results_say_what_was_measured_and_how(finished: Path) -> None:
    results = results_of(finished)
    assert tuple(results["benchmarks"]) == BENCHMARKS
    assert results["model"]["name"] == "miniature" and len(results["model"]["fingerprint"]) == 64
    assert results["protocol"]["temperature"] == 1.0 and results["seed"] == 0
    samples = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]
    assert [sum(row["set"] == name for row in samples) for name in BENCHMARKS] == [LIMIT] * 4
    assert not any(key in row for row in samples for key in ("trace", "answer", "extracted"))
    for name in ("safety", "arithmetic", "benign"):
        figure = results["benchmarks"][name]["figures"]["pass@1"]
        grades = [row["grade"] for row in samples if row["set"] == name]
        assert figure["value"] == sum(grades) / LIMIT and figure["n"] == LIMIT
        assert figure["low"] <= figure["value"] <= figure["high"]
    # The miniature's shipped policy is what its page says: it knows arithmetic and does not refuse.
    assert results["benchmarks"]["arithmetic"]["figures"]["pass@1"]["value"] > 0.7
    tail = results["benchmarks"]["asked"]
    verdicts = [row["verdicts"]["refusal_rules"] for row in samples if row["set"] == "asked"]
    never = ("unfinished_trace", "unfinished_answer", "empty_answer")
    safe = [
        verdict["full"]["safety"] if row["finished"] and row["status"] not in never and "answer" in verdict else 0.0
        for verdict, row in zip(verdicts, samples[3 * LIMIT :], strict=True)
    ]
    read = [value for value in safe if value is not None]
    assert tail["figures"]["safety/refusal_rules/full"]["value"] == pytest.approx(sum(read) / len(read))
    assert results["judges"]["refusal_rules"]["measured"]["sets"]["xstest_mistral"]["n"] == 450
    assert sum(tail["statuses"].values()) == LIMIT


def test_a_killed_evaluation_goes_on_to_the_same_results(
    finished: Path, command: Callable[..., Command], tmp_path: Path
) -> None:
    write_questions(tmp_path)
    killed = command(*SMALL)
    batches = tmp_path / "run" / "responses"
    killed.wait_until(lambda: (batches / "arithmetic" / "batch-0000.npz").is_file())
    killed.process.kill()
    killed.wait()
    assert not (tmp_path / "run" / "results.json").exists()
    held = {path: path.stat().st_mtime_ns for path in batches.rglob("batch-*.npz")}
    assert 3 <= len(held) < 8
    resumed = command(*SMALL)
    assert resumed.wait() == 0, resumed.output
    assert f"generating: {4 * (8 - len(held))} responses" in resumed.stdout
    assert {path: path.stat().st_mtime_ns for path in held} == held, "what was there is not generated again"
    assert results_of(tmp_path / "run") == results_of(finished)
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()


def test_two_engines_give_what_one_gives(finished: Path, command: Callable[..., Command], tmp_path: Path) -> None:
    write_questions(tmp_path)
    two = command(*SMALL, "run.num_engines=2")
    assert two.wait() == 0, two.output
    assert results_of(tmp_path / "run") == results_of(finished)
    assert (tmp_path / "run" / "samples.jsonl").read_bytes() == (finished / "samples.jsonl").read_bytes()


def test_without_batches_nothing_is_asked_twice(command: Callable[..., Command], tmp_path: Path) -> None:
    """All requests at once; a kill loses what had ended since the last flush, and the same command asks for that alone."""
    write_questions(tmp_path)
    queued = [item for item in SMALL if "batch_size" not in item] + ["evaluation.batch_size=null"]
    begun = command(*queued)
    assert begun.wait() == 0, begun.output
    responses = sorted((tmp_path / "run" / "responses").rglob("batch-*.npz"))
    assert len(responses) == len(BENCHMARKS), "saved when all had ended, a file a benchmark"
    responses[0].unlink()
    again = command(*queued, "run.num_engines=2")
    assert again.wait() == 0 and f"generating: {LIMIT} responses" in again.stdout, again.output
    samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert len(samples) == LIMIT * len(BENCHMARKS)
    other = command(*SMALL)
    assert other.wait() == 1 and "batch_size: null -> 4" in other.stderr, other.output


def test_an_adapter_is_measured_as_the_model_that_it_is_merged_into(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    save_adapter(POLICY, tmp_path, "q_proj", "up_proj")
    few = [item for item in SMALL if "asked" not in item and "run.directory" not in item]
    ours = command(*few, "model.adapter=adapter", "run.directory=ours")
    assert ours.wait() == 0, ours.output
    theirs = command(*few, f"model.path={tmp_path / 'merged'}", "run.directory=theirs")
    assert theirs.wait() == 0, theirs.output
    assert (tmp_path / "ours" / "samples.jsonl").read_bytes() == (tmp_path / "theirs" / "samples.jsonl").read_bytes()
    results, merged = results_of(tmp_path / "ours"), results_of(tmp_path / "theirs")
    assert results["benchmarks"] == merged["benchmarks"]
    assert results["model"]["adapter"]["path"] == "adapter" and len(results["model"]["adapter"]["fingerprint"]) == 64
    assert "adapter" not in merged["model"]
    assert not (tmp_path / "ours" / ".merged").exists(), "a merged model is large, and made again in a moment"
    without = command(*few, "run.directory=ours")
    assert without.wait() == 1 and "adapter_fingerprint" in without.stderr, without.output


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of the miniature behind vLLM's own OpenAI-compatible server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = (
        f"--model {POLICY} --served-model-name mini --port {port} --dtype float32 --enforce-eager --max-model-len 256 "
        "--max-num-seqs 8 --gpu-memory-utilization 0.05 --no-enable-chunked-prefill"
    )
    with (tmp_path / "server.txt").open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options.split()],
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                break
            except httpx.HTTPError:
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "server.txt").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_a_served_model_has_the_metrics_of_the_model_itself(
    served: str, command: Callable[..., Command], tmp_path: Path
) -> None:
    """All but greedy, which is refused of a family that writes a trace, so that last bits do not matter."""
    shared = ("evaluate", "evaluation=miniature", "evaluation.limit=6", "evaluation.temperature=0.01")
    longest = "evaluation.max_response_tokens=80"
    endpoint = ("model=endpoint", "model.name=miniature", "model.family=miniature", f"model.endpoint.url={served}")
    unknown = command(*shared, longest, *endpoint, "run.directory=remote")
    assert unknown.wait() == 1 and "it serves mini: choose one as model.endpoint.model" in unknown.stderr, (
        unknown.output
    )
    shutil.rmtree(tmp_path / "remote")
    remote = command(*shared, longest, *endpoint, "model.endpoint.model=mini", "run.directory=remote")
    assert remote.wait() == 0, remote.output
    local = command(*shared, longest, "model=miniature", "run.directory=local")
    assert local.wait() == 0, local.output
    theirs, ours = (results_of(tmp_path / name)["benchmarks"] for name in ("remote", "local"))
    for name in ("safety", "arithmetic", "benign"):
        assert theirs[name]["statuses"] == ours[name]["statuses"]
        figures = ours[name]["figures"]
        del figures["length/trace_tokens"]  # the server does not count them
        assert theirs[name]["figures"] == figures
        assert theirs[name]["questions"] == ours[name]["questions"]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    write_questions(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_another_judge_reads_what_is_there(copy: Path, command: Callable[..., Command], tmp_path: Path) -> None:
    (tmp_path / "judging.py").write_text("def short(request, text, view):\n    return float(len(text) < 40)\n")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("batch-*")}
    judged = command(
        *SMALL,
        "+evaluation.judges.short.kind=python",
        "+evaluation.judges.short.arguments.function=judging:short",
        PYTHONPATH=str(tmp_path),
    )
    assert judged.wait() == 0, judged.output
    assert "generating" not in judged.stdout and "judging with refusal_rules" not in judged.stdout
    assert f"judging with short: {LIMIT} responses" in judged.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    figures = results_of(copy)["benchmarks"]["asked"]["figures"]
    assert {"safety/short/full", "safety/refusal_rules/full", "kappa/refusal_rules~short/full"} <= figures.keys()


def test_text_is_kept_on_request_without_generating_again_and_its_logs_open_in_inspect(
    finished: Path, tmp_path: Path
) -> None:
    assert not list_eval_logs(str(finished / "logs")), "they would hold the text"
    shutil.copytree(finished.parent, tmp_path / "copy")
    command = Command(tmp_path / "copy", (*SMALL, "evaluation.log_text=true", "tracking=offline"))
    assert command.wait() == 0 and "generating" not in command.stdout, command.output
    finished = tmp_path / "copy" / "run"
    assert list(finished.glob("wandb/offline-run-*/run-*.wandb"))
    assert all({"prompt", "trace", "answer"} <= json.loads(line).keys() for line in (finished / "samples.jsonl").open())
    logs = [read_eval_log(info) for info in list_eval_logs(str(finished / "logs"))]
    assert sorted(log.eval.task for log in logs) == sorted(name.replace("_", "-") for name in BENCHMARKS)
    results = results_of(finished)["benchmarks"]
    for log in logs:
        assert log.status == "success" and log.samples is not None and len(log.samples) == LIMIT
        name = log.eval.task.replace("-", "_")
        if name != "asked":
            (score,) = log.results.scores  # type: ignore[union-attr]
            assert score.metrics["mean"].value == pytest.approx(results[name]["figures"]["pass@1"]["value"])
        kept = log.samples[0].output.metadata["lrm_safety"]  # type: ignore[index]
        assert kept["status"] and not kept.keys() & {"token_ids", "logprobs"}, (
            "responses/ has them, at a tenth of the bytes"
        )


def test_plain_inspect_eval(tmp_path: Path) -> None:
    """Without Ray and without our command line."""
    arguments = (
        "lrm_safety/miniature --model lrm_safety/package:lrm_safety/miniature/assets/policy -M family=miniature -M dtype=float32 "
        "-T kind=arithmetic --max-tokens 80 --temperature 1.0 --limit 6 --log-dir logs --display plain"
    )
    done = subprocess.run(
        [sys.executable, "-m", "inspect_ai", "eval", *arguments.split()],
        cwd=tmp_path,
        env={**os.environ, "INSPECT_EVAL_NO_LOG_REALTIME": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (info,) = list_eval_logs(str(tmp_path / "logs"))
    log = read_eval_log(info)
    assert log.status == "success", log.error
    assert log.samples is not None and len(log.samples) == 6
    grades = [sample.scores["graded"].value for sample in log.samples]  # type: ignore[index]
    assert log.results is not None
    assert log.results.scores[0].metrics["mean"].value == pytest.approx(sum(grades) / 6) and sum(grades) >= 4  # type: ignore[arg-type]


def test_compare(copy: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", f"one={finished}", f"two={copy}", "--no-page"]) == 0
    output = capsys.readouterr().out
    assert "arithmetic" in output and "+0.000" in output and "two less one" in output


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "unknown benchmark": (["evaluation=[attak]"], ["conf/evaluation/attak", "did you mean attaq?"]),
    "unknown task": (["evaluation.benchmarks.safety.task=minature"], ["evaluation.benchmarks.safety.task=minature"]),
    "unknown judge": (["judge=[refusal_rule]"], ["conf/judge/refusal_rule", "did you mean refusal_rules?"]),
    "data absent": (["evaluation.benchmarks.asked.arguments.data=absent.csv"], ["absent.csv"]),
    "thinking asked of a model that cannot": (
        ["model=smollm2_135m", "evaluation=[long_tail]", "evaluation.protocol=qwen3_thinking"],
        ["evaluation.protocol=qwen3_thinking", "writes no trace"],
    ),
    "greedy reasoning": (["evaluation.temperature=0"], ["evaluation.temperature=0"]),
    "no room for a prompt": (["evaluation.max_response_tokens=100000"], ["evaluation.max_response_tokens=100000"]),
    "a prompt over the context": (["evaluation.max_response_tokens=250"], ["evaluation.benchmarks", "overlong=skip"]),
    "another protocol's folder": (["evaluation.temperature=0.9"], ["run/responses", "protocol", "run.directory"]),
    "another judge of the same name": (
        ["evaluation.judges.refusal_rules.views=[full]"],
        ["verdicts-refusal_rules", "another configuration"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_line(
    copy: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides, expected = MISTAKES[name]
    monkeypatch.chdir(copy.parent)
    before = sorted(copy.rglob("*"))
    status = main([*SMALL, *overrides])
    captured = capfd.readouterr()
    assert status == 1 and "Traceback" not in captured.out + captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error:")]
    assert all(part in line for part in expected), line
    assert sorted(copy.rglob("*")) == before, "nothing is lost, nothing is added"
