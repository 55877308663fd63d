"""Tiny tokenizers, built and not trained: one token a byte or one a word, so that lengths can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tiny_models import VOCABULARY
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(model: models.BPE) -> Tokenizer:
    """Reads any text as its bytes: nothing is put in front, and nothing is cut before the merges."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_tokenizer(
    special: Sequence[str],
    *,
    words: Sequence[str] = (),
    template: str | None = None,
    single: str | None = None,
    pair: str | None = None,
    **roles: str | None,
) -> PreTrainedTokenizerFast:
    """The special tokens have the first ids, then come the bytes, then `words`, a token each.

    `single` and `pair`: what is written around one text ($A) and two ($A, $B). `roles`: `pad_token=`, `eos_token=`, ...
    """
    vocabulary = {token: index for index, token in enumerate([*special, *ALPHABET])}
    tokenizer = byte_level(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(list(words))
    if single is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(token, vocabulary[token]) for token in special]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)
    fast.chat_template = template
    return fast


def pair_tokenizer(*, pad: str | None = "[PAD]") -> PreTrainedTokenizerFast:
    """Of a cross-encoder: [CLS] request [SEP] text [SEP]."""
    return byte_tokenizer(
        ["[PAD]", "[CLS]", "[SEP]"],
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        pad_token=pad,
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def word_tokenizer(size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """The words w0, w1, ..: w0 is the unknown one, w1 ends a response and pads. Prompts end where a trace begins."""
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w1", unk_token="w0")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}<think>"
    return fast
