"""Two real ZeRO-3 ranks against plain transformers and a plain AdamW loop in one process."""

import math
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from safetensors.torch import load_file
from trainer_ranks import (
    FLAVOURS,
    Ranks,
    assert_exported_alike,
    build_folder,
    build_spec,
    by_index,
    exported,
    make_sequences,
    micro_batches_of,
    mini_batches_of,
    plain_optimizer,
    plain_policy_update,
    plain_scores,
    run_updates,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lrm_safety.modeling.zero import weights_only
from lrm_safety.workers.specs import ReferenceSpec


@pytest.fixture(scope="module", params=FLAVOURS)
def group(request, tmp_path_factory):
    """Two ranks of the policy and the folder of their initial state."""
    from lrm_safety.workers.policy import PolicyWorker

    folder = tmp_path_factory.mktemp(request.param)
    build_folder(folder / "model", request.param)
    spec = build_spec(folder / "model", request.param)
    with Ranks(folder, PolicyWorker, spec) as ranks:
        ranks.flavour = request.param
        ranks.call("save", str(folder / "initial"))
        yield ranks


@pytest.fixture
def ranks(group):
    """The group with its initial weights, whatever the test before did."""
    group.call("load", str(group.folder / "initial"))
    return group


def test_logprobs_and_entropy_equal_plain_transformers(ranks):
    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32).eval()
    sequences = make_sequences(7)
    shares = micro_batches_of(sequences)
    # One micro-batch more on rank 0, matched by a dummy on rank 1.
    shares[0].append([replace(sequences[0], index=100)])
    shares[1].append([])
    scores = by_index(ranks.call_each("logprobs", [(share,) for share in shares]))
    assert set(scores) == {*range(7), 100}
    for sequence in sequences:
        with torch.no_grad():
            logprobs, entropy = plain_scores(model, sequence, 0.8)
        np.testing.assert_allclose(scores[sequence.index].logprobs, logprobs.numpy(), atol=1e-5)
        np.testing.assert_allclose(scores[sequence.index].entropy, entropy.numpy(), atol=1e-5)
    np.testing.assert_array_equal(scores[100].logprobs.shape, scores[0].logprobs.shape)


def second_mini_batch(first_scores):
    """Sequences with old, rollout and reference log-probs near what the policy gives."""
    random = np.random.default_rng(9)
    sequences = []
    for sequence in make_sequences(5, seed=7):
        near = first_scores[sequence.index].logprobs

        def around(width, near=near):
            return (near + random.normal(size=len(near)) * width).astype(np.float32)

        sequences.append(
            replace(sequence, old_logprobs=around(0.2), rollout_logprobs=around(0.3), reference_logprobs=around(0.5))
        )
    return sequences


def test_updates_equal_a_plain_loop_in_one_process(ranks):
    scores = by_index(ranks.call_each("logprobs", [(share,) for share in micro_batches_of(make_sequences(5, seed=7))]))
    updates = [(make_sequences(7), 1e-2, 0.0), (second_mini_batch(scores), 3e-3, 0.7)]
    results = run_updates(ranks, *(mini_batches_of(s, lr, kl) for s, lr, kl in updates))
    weights = exported(ranks, "updated")

    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    optimizer = plain_optimizer(model)
    for number, (sequences, lr, kl_coef) in enumerate(updates):
        loss, norm = plain_policy_update(model, optimizer, sequences, lr, kl_coef)
        assert sum(result[number].loss for result in results) == pytest.approx(loss, abs=1e-5)
        for result in results:
            assert result[number].gradient_norm == pytest.approx(norm, rel=1e-4)
        assert norm > 0.5, "the test should clip"
    model.save_pretrained(ranks.folder / "plain")
    expected = load_file(ranks.folder / "plain" / "model.safetensors")
    original = load_file(ranks.folder / "model" / "model.safetensors")
    assert weights.keys() == expected.keys() == original.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)
    assert max((expected[name] - original[name]).abs().max() for name in expected) > 1e-3

    # What the second update reports was scored after the first and before its own step.
    reported = by_index(result[1].scores for result in results)
    assert set(reported) == set(range(5))
    drift = max(np.abs(reported[i].logprobs - scores[i].logprobs).max() for i in range(5))
    assert drift > 1e-3


def test_cutting_into_micro_batches_does_not_change_the_update(ranks):
    results = []
    for number, budget in enumerate((1, 40, 10_000)):
        ranks.call("load", str(ranks.folder / "initial"))
        results.append(run_updates(ranks, mini_batches_of(make_sequences(7), 1e-2, budget=budget))[0][0])
        weights = exported(ranks, f"cut-{number}")
        if number == 0:
            first = weights
        for name, value in weights.items():
            torch.testing.assert_close(value, first[name], atol=1e-5, rtol=0)
    assert results[0].gradient_norm == pytest.approx(results[2].gradient_norm, rel=1e-5)


def test_fewer_sequences_than_ranks(ranks):
    """Rank 1 has only a dummy: the update is that of the one sequence, and rank 1 reports no scores and no loss."""
    results = run_updates(ranks, mini_batches_of(make_sequences(1), 1e-2))
    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    loss, norm = plain_policy_update(model, torch.optim.AdamW(model.parameters()), make_sequences(1), 1e-2, 0.0)
    assert results[0][0].loss == pytest.approx(loss, abs=1e-6) and results[1][0].loss == 0.0
    assert results[1][0].gradient_norm == pytest.approx(norm, rel=1e-4) and results[1][0].scores == []


def test_saved_state_continues_bit_for_bit(ranks):
    batches = [mini_batches_of(make_sequences(6, seed=seed), 1e-2) for seed in range(4)]
    run_updates(ranks, *batches[:2])
    ranks.call("save", str(ranks.folder / "middle"))
    run_updates(ranks, *batches[2:])
    through = exported(ranks, "through")
    ranks.call("load", str(ranks.folder / "middle"))
    run_updates(ranks, *batches[2:])
    again = exported(ranks, "again")
    assert all(torch.equal(through[name], again[name]) for name in through)
    next((ranks.folder / "middle").rglob("*rank_1_*model_states.pt")).unlink()
    with pytest.raises(
        RuntimeError, match=r"DataError: .*no complete trainer state \(no model_states\.pt of every rank\)"
    ):
        ranks.call("load", str(ranks.folder / "middle"))


class RunsCode:
    """A pickle of this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_cannot_run_code(ranks):
    ranks.call("save", str(ranks.folder / "evil"))
    touched = ranks.folder / "touched"
    for file in (ranks.folder / "evil").rglob("*optim_states.pt"):
        state = torch.load(file, weights_only=False)
        torch.save(state | {"extra": RunsCode(touched)}, file)
    with pytest.raises(RuntimeError, match=r"DataError: .*cannot be read"):
        ranks.call("load", str(ranks.folder / "evil"))
    assert not touched.exists()


class AsPython3112:
    """An attribute of `owner`, pickled as Python 3.11.2 pickles a member of an enumeration."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return (getattr, (self.owner, self.name))


def test_a_checkpoint_of_python_3_11_2_is_read_and_reaches_nothing_else(tmp_path):
    torch.save({"stage": AsPython3112(ZeroStageEnum, "weights")}, tmp_path / "good.pt")
    torch.save({"stage": AsPython3112(ZeroStageEnum, "mro")}, tmp_path / "method.pt")
    torch.save({"stage": AsPython3112(LossScaler, "__init__")}, tmp_path / "class.pt")
    with weights_only():
        assert torch.load(tmp_path / "good.pt") == {"stage": ZeroStageEnum.weights}
        for name in ("method", "class"):
            with pytest.raises(UnpicklingError):
                torch.load(tmp_path / f"{name}.pt")


def test_a_step_that_is_not_finite_leaves_everything_as_it_was(ranks):
    """A loss that is no number, and a finite one whose gradient overflows: no step, and the next mini-batch goes on as if
    the bad one had not been there."""
    good, after = make_sequences(6), make_sequences(6, seed=1)
    run_updates(ranks, mini_batches_of(good, 1e-2))
    ranks.call("save", str(ranks.folder / "sane"))
    before = exported(ranks, "before")
    (alone,) = run_updates(ranks, mini_batches_of(after, 1e-2))[0]
    expected = exported(ranks, "expected")

    ranks.call("load", str(ranks.folder / "sane"))
    poisoned = make_sequences(6, seed=2)
    poisoned[3].advantages[1] = np.nan
    # Two advantages that cancel in the loss, and whose gradients are beyond float32 with so small a denominator.
    exploded = [replace(s, advantages=np.zeros_like(s.advantages)) for s in good]
    exploded[0].advantages[:2] = 3e38, -3e38
    small = [replace(share, global_tokens=1) for share in mini_batches_of(exploded, 1e-2)]
    for bad, finite in ((mini_batches_of(poisoned, 1e-2), False), (small, True)):
        ranks.call("load", str(ranks.folder / "sane"))
        results = run_updates(ranks, bad)
        assert all(math.isnan(one.gradient_norm) for (one,) in results)
        assert math.isfinite(sum(one.loss for (one,) in results)) == finite
        assert all(torch.equal(before[name], value) for name, value in exported(ranks, "unchanged").items())
        results = run_updates(ranks, bad, mini_batches_of(after, 1e-2))
        assert all(math.isnan(skipped.gradient_norm) for skipped, _ in results)
        assert results[0][1].gradient_norm == alone.gradient_norm
        assert all(torch.equal(expected[name], value) for name, value in exported(ranks, "recovered").items())


def test_a_token_far_from_the_old_policy_costs_no_step(ranks):
    """The old policy's log-prob of one token is -300: its ratio is bounded, clipped away and has no gradient, so that the step
    is that of the other tokens."""
    sequences = make_sequences(6)
    scores = by_index(ranks.call_each("logprobs", [(share,) for share in micro_batches_of(sequences)]))
    sequences = [replace(s, old_logprobs=scores[s.index].logprobs.copy()) for s in sequences]
    sequences[2].advantages[0] = 1.0
    sequences[2].old_logprobs[0] = -300.0
    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32)
    # In float64, where exp(300) is a number and its clipped token's gradient 0.
    loss, norm = plain_policy_update(model, torch.optim.AdamW(model.parameters()), sequences, 1e-2, 0.0)
    results = run_updates(ranks, mini_batches_of(sequences, 1e-2))
    assert sum(one.loss for (one,) in results) == pytest.approx(loss, abs=1e-5)
    assert results[0][0].gradient_norm == pytest.approx(norm, rel=1e-4)


def test_export_is_a_whole_hugging_face_folder(ranks):
    weights = exported(ranks, "export")
    original = load_file(ranks.folder / "model" / "model.safetensors")
    assert weights.keys() == original.keys()
    assert all(torch.equal(weights[name], original[name]) for name in original)
    folder = ranks.folder / "export"
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tied = model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert tied == (ranks.flavour != "untied-packed")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template.endswith("<think>") and tokenizer.encode("w5 w9") == [5, 9]
    assert GenerationConfig.from_pretrained(folder).temperature == 0.6


def test_temperature_of_one_call(ranks):
    model = AutoModelForCausalLM.from_pretrained(ranks.folder / "model", dtype=torch.float32).eval()
    sequences = make_sequences(4)
    scores = by_index(ranks.call_each("logprobs", [(share, 1.0) for share in micro_batches_of(sequences)]))
    for sequence in sequences:
        with torch.no_grad():
            logprobs, _ = plain_scores(model, sequence, 1.0)
        np.testing.assert_allclose(scores[sequence.index].logprobs, logprobs.numpy(), atol=1e-5)


def test_published_weights_are_the_exported_ones_and_training_goes_on(ranks, tmp_path):
    for seed in range(2):
        run_updates(ranks, mini_batches_of(make_sequences(5, seed=seed), 1e-2))
        paths, others = ranks.call("publish", str(tmp_path / f"version{seed}"))
        assert paths and others == []
        published = {name: tensor for path in paths for name, tensor in load_file(path).items()}
        weights = exported(ranks, "published")
        assert all(torch.equal(published[name], weights[name]) for name in weights)


def test_memory_is_reported(ranks):
    assert all(0.1 < usage["rss_gib"] < 8 for usage in ranks.call("memory"))


def test_fresh_processes_continue_bit_for_bit(ranks):
    """Generators included. The state that one rank took over from the two, and three from that one, is the two's own again:
    weights and moments to the bit, and so are the updates after it. Updates on one rank differ by rounding alone."""
    if ranks.flavour != "untied-packed":
        pytest.skip("one flavour is enough")
    from lrm_safety.workers.policy import PolicyWorker

    batches = [mini_batches_of(make_sequences(6, seed=seed), 1e-2) for seed in range(3)]
    run_updates(ranks, batches[0])
    ranks.call("save", str(ranks.folder / "stop"))
    exported(ranks, "stopped")
    assert_exported_alike(ranks.spec, ranks.folder / "stop", ranks.folder / "stopped")
    run_updates(ranks, *batches[1:])
    through = exported(ranks, "through")

    with Ranks(ranks.folder, PolicyWorker, ranks.spec) as fresh:
        fresh.call("load", str(ranks.folder / "stop"))
        run_updates(fresh, *batches[1:])
        resumed = exported(fresh, "resumed")
        assert all(torch.equal(through[name], resumed[name]) for name in through)

        stopped, before = load_file(ranks.folder / "stopped" / "model.safetensors"), "stop"
        for count in (1, 3):
            with Ranks(ranks.folder, PolicyWorker, ranks.spec, count) as others:
                others.call("load", str(ranks.folder / before))
                before = f"by-{count}"
                others.call("save", str(ranks.folder / before))
                same = exported(others, f"stopped-{count}")
                assert all(torch.equal(stopped[name], same[name]) for name in stopped)
                assert_exported_alike(ranks.spec, ranks.folder / before, ranks.folder / f"stopped-{count}", count)
                if count == 1:
                    run_updates(others, *(mini_batches_of(make_sequences(6, seed=s), 1e-2, count=1) for s in (1, 2)))
                    near = exported(others, "near")
                    for name, value in through.items():
                        torch.testing.assert_close(near[name], value, atol=1e-6, rtol=0, msg=name)
        stored = [next((ranks.folder / name).glob("zero3/*_rank_0_*optim_states.pt")) for name in ("stop", "by-1")]
        # Written a moment ago, by this test, with classes of DeepSpeed's in it.
        flats = [torch.load(file, weights_only=False)["optimizer_state_dict"]["fp32_flat_groups"] for file in stored]
        assert len(flats[0]) < len(flats[1]), "flat tensors of bounded size are cut elsewhere"
        fresh.call("load", str(ranks.folder / before))
        run_updates(fresh, *batches[1:])
        resumed = exported(fresh, "resumed")
        assert all(torch.equal(through[name], resumed[name]) for name in through)
        (ranks.folder / "stop" / "generators_rank00001.pt").unlink()
        with pytest.raises(RuntimeError, match=r"DataError: .* holds 1 of the 2 parts"):
            fresh.call("load", str(ranks.folder / "stop"))


@pytest.mark.parametrize("sharding", ["plain", "zero3"])
def test_reference_scores_like_plain_transformers(tmp_path, sharding):
    from lrm_safety.workers.reference import ReferenceWorker

    build_folder(tmp_path, "tied-packed")
    policy = build_spec(tmp_path, "tied-packed", reference_sharding=sharding)
    spec = ReferenceSpec(policy.model, policy.trainer, policy.cluster, seed=0, temperature=0.8)
    sequences = make_sequences(5)
    shares = micro_batches_of(sequences)
    shares[0].append([replace(sequences[0], index=100)])
    shares[1].append([])
    with Ranks(tmp_path, ReferenceWorker, spec) as ranks:
        # Twice: the second pass goes through parameters that were gathered and released before.
        ranks.call_each("logprobs", [(share,) for share in shares])
        scores = by_index(ranks.call_each("logprobs", [(share,) for share in shares]))
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for sequence in sequences:
        with torch.no_grad():
            logprobs, entropy = plain_scores(model, sequence, 0.8)
        np.testing.assert_allclose(scores[sequence.index].logprobs, logprobs.numpy(), atol=1e-5)
        np.testing.assert_allclose(scores[sequence.index].entropy, entropy.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["bfloat16", "offload"])
def test_other_engines_make_the_same_update(tmp_path, kind):
    """bfloat16 with float32 master weights, within its precision; optimiser and parameters in host memory, exactly."""
    from lrm_safety.workers.policy import PolicyWorker

    build_folder(tmp_path / "model", "tied-packed")
    if kind == "bfloat16":
        spec, tolerance = build_spec(tmp_path / "model", "tied-packed", dtype="bfloat16"), 0.05
    else:
        offload = {"offload_optimizer": True, "offload_parameters": True}
        spec, tolerance = build_spec(tmp_path / "model", "tied-packed", **offload), 1e-5
    with Ranks(tmp_path, PolicyWorker, spec) as ranks:
        results = run_updates(ranks, mini_batches_of(make_sequences(7), 1e-2), mini_batches_of(make_sequences(5), 1e-2))
        ranks.call("save", str(tmp_path / "state"))
        weights = exported(ranks, "first")
        assert_exported_alike(spec, tmp_path / "state", tmp_path / "first")
        run_updates(ranks, mini_batches_of(make_sequences(6), 1e-2))
        through = exported(ranks, "through")
        ranks.call("load", str(tmp_path / "state"))
        run_updates(ranks, mini_batches_of(make_sequences(6), 1e-2))
        again = exported(ranks, "again")
    assert all(torch.equal(through[name], again[name]) for name in through)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    optimizer = plain_optimizer(model)
    for number, count in enumerate((7, 5)):
        loss, norm = plain_policy_update(model, optimizer, make_sequences(count), 1e-2, 0.0)
        assert results[0][number].gradient_norm == pytest.approx(norm, rel=max(tolerance, 1e-4))
        assert sum(result[number].loss for result in results) == pytest.approx(loss, abs=tolerance)
    expected = {name: value for name, value in model.state_dict().items() if name in weights}
    distance = sum((weights[name].float() - value).abs().sum() for name, value in expected.items())
    moved = sum(
        (value - load_file(tmp_path / "model" / "model.safetensors")[name]).abs().sum()
        for name, value in expected.items()
    )
    assert distance < tolerance * 4 * moved
