"""TRL's RLOO trainer on work of ours, in the environment of `make peers`: `python -m benchmarks.trl_peer`, driven by `peers.Peer`.

The first line of its input is the work (`peers.trl_work`), which it answers with `ready` and its versions. Each line after that
asks for one rollout batch with its updates, and is answered with seconds and counts; the input's end ends it. Imports nothing of
lrm_safety.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

ENDLESS_UPDATES = 1_000_000
"""TRL must be told when to end; the input's end comes before it."""


def main() -> None:
    """Serve rounds until the input ends."""
    # Whatever libraries print goes where errors go: the channel holds answers alone.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # TRL 1.16 knows vLLM up to 0.31 and on GPUs; unseen, it is not imported for nothing.
    sys.modules["vllm"] = None  # type: ignore[assignment]
    trainer(json.loads(sys.stdin.readline()), channel).train()


def trainer(work: dict[str, Any], channel: TextIO) -> Any:
    """TRL's trainer, which takes a round for each line of the input. Raises ValueError where it would read other prompts."""
    import torch
    import transformers
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(work["threads"])
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    chats = [[{"role": "user", "content": question}] for question in work["questions"]]
    read = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    if read != work["prompts"]:
        raise ValueError("TRL would read other prompt tokens than we do: the work is not equal")
    versions = {module.__name__: module.__version__ for module in (trl, transformers, torch)}

    class Rounds(transformers.TrainerCallback):
        """Waits for a line before each rollout batch, and answers it after the batch's last update."""

        answered = False

        def on_step_begin(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % work["updates"] == 0:
                if not self.answered:
                    channel.write(json.dumps({"ready": versions}) + "\n")
                    self.answered = True
                if not sys.stdin.readline():
                    channel.close()
                    os._exit(0)  # the trainer would want its batch first
                self.began, self.former_step = time.perf_counter(), state.global_step

        def on_log(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
            # After the last update of a batch, whose record this is.
            seconds, updates = time.perf_counter() - self.began, state.global_step - self.former_step
            channel.write(json.dumps(counted.counts | {"seconds": seconds, "updates": updates}) + "\n")

    class Counted(trl.RLOOTrainer):
        """Knows what it sampled."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            self.counts = {
                "responses": len(batch["completion_ids"]),
                "tokens": int(batch["completion_mask"].sum()),
                "prompt_tokens": int(batch["prompt_mask"].sum()),
            }
            return batch

    size = work["responses"] // work["updates"]
    counted = Counted(
        model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(
            work["reward_model"], num_labels=1, dtype=torch.float32
        ),
        reward_processing_classes=AutoTokenizer.from_pretrained(work["reward_model"]),
        args=trl.RLOOConfig(
            output_dir=work["folder"],
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=size,
            generation_batch_size=work["responses"],
            num_generations=work["samples_per_prompt"],
            max_completion_length=work["max_response_tokens"],
            temperature=work["temperature"],
            beta=work["kl_coef"],
            learning_rate=work["lr"],
            lr_scheduler_type="constant",
            max_grad_norm=work["gradient_clip"],
            gradient_checkpointing=work["gradient_checkpointing"],
            max_steps=ENDLESS_UPDATES,
            logging_steps=work["updates"],
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=work["seed"],
        ),
        train_dataset=Dataset.from_list([{"prompt": chat} for chat in chats]),
        processing_class=tokenizer,
        callbacks=[Rounds()],
    )
    return counted


if __name__ == "__main__":
    main()
