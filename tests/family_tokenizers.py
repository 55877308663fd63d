"""Small byte-level tokenizers that carry each family's special tokens and chat template."""

from pathlib import Path

from tiny_tokenizers import ALPHABET, byte_level
from tokenizers import AddedToken, models, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "unit" / "conversation" / "templates"

# Text that makes the trainer merge across tag boundaries: "></" and ".</" become tokens, as real vocabularies have.
CORPUS = ["wait", " wait", "Wait", "But", " but", "a></b>c.</d>", "think></think>", "response></response>"]

THINK = ("<think>", "</think>")
SPECIAL: dict[str, tuple[str, ...]] = {
    "deepseek_r1_distill": ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    "qwen3": ("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    "granite_4_tiny_preview": ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
    "plain": ("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    "miniature": ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", *THINK),
}
ORDINARY: dict[str, tuple[str, ...]] = {"deepseek_r1_distill": THINK, "qwen3": THINK}
TEMPLATE_FILES = {"granite_4_tiny_preview": "granite_thinking", "plain": "smollm2"}


def build_tokenizer(family: str) -> PreTrainedTokenizerFast:
    backend = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=ALPHABET, show_progress=False)
    backend.train_from_iterator(CORPUS * 4, trainer)
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL[family]])
    backend.add_tokens([AddedToken(token, special=False) for token in ORDINARY.get(family, ())])
    end = SPECIAL[family][0]
    bos = SPECIAL[family][1] if family == "deepseek_r1_distill" else None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end, bos_token=bos)
    template = (TEMPLATES / f"{TEMPLATE_FILES.get(family, family)}.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template.removesuffix("\n")
    return tokenizer
