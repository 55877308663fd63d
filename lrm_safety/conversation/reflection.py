"""Reflection tokens: those with which a model turns back on its own reasoning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFLECTION_WORDS = ("wait", "Wait", "but", "But", "Alternatively")


def reflection_token_ids(tokenizer: PreTrainedTokenizerBase, words: Iterable[str] = REFLECTION_WORDS) -> frozenset[int]:
    """Ids of `words` that are one token, with and without a leading space.

    A form of several tokens is left out: its pieces occur in other words too. The set is empty when no form is one
    token; a metric over it is then undefined, not zero.
    """
    forms = [form for word in words for form in (word, f" {word}")]
    encoded = [tokenizer.encode(form, add_special_tokens=False) for form in forms]
    return frozenset(ids[0] for ids in encoded if len(ids) == 1 and ids[0] != tokenizer.unk_token_id)
