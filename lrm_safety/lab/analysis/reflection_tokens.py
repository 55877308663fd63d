"""Which words count as reflection in an analysis, and which tokens of a tokenizer they are.

How a word becomes ids is `conversation.response`'s, which training logs by as well; the lists to choose from are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...conversation import REFLECTION_WORDS, reflection_token_ids
from ...errors import ConfigError, DataError
from ...results import ReflectionTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRESETS: dict[str, tuple[str, ...]] = {
    # Fan et al. 2025 (arXiv 2506.11077) name wait, but, alternatively as examples; training logs the same words.
    "cyclic_reflex": REFLECTION_WORDS,
    # Ours: hedges, contrasts and returns. No published list.
    "extended": (
        *REFLECTION_WORDS,
        *("alternatively", "hmm", "Hmm", "however", "However", "yet", "Yet", "still", "Still"),
        *("nevertheless", "Nevertheless", "though", "Though", "although", "Although", "instead", "Instead"),
        *("actually", "Actually", "maybe", "Maybe", "perhaps", "Perhaps", "again", "Again"),
        *("check", "Check", "verify", "Verify", "rethink", "recheck"),
    ),
}


def find_reflection_tokens(
    tokenizer: PreTrainedTokenizerBase, preset: str, own_words: Sequence[str] = ()
) -> ReflectionTokens:
    """Tokens of `own_words`, or of the preset where there are none.

    Raises ConfigError for an unknown preset or a blank word, and DataError when no word is a single token: every figure
    would be undefined.
    """
    if not own_words and preset not in PRESETS:
        raise ConfigError(f"analysis.reflection.preset={preset}: must be one of {', '.join(PRESETS)}")
    if any(not word.strip() for word in own_words):
        raise ConfigError("analysis.reflection.words: holds a blank word; leave it out")
    words = tuple(dict.fromkeys(word.strip() for word in own_words)) or PRESETS[preset]
    by_word = {word: reflection_token_ids(tokenizer, [word]) for word in words}
    ids = sorted(set().union(*by_word.values()))
    if not ids:
        raise DataError(
            f"analysis.reflection: none of {', '.join(words)} is a single token of this tokenizer; choose other words"
        )
    spellings = tokenizer.convert_ids_to_tokens(ids)
    return ReflectionTokens(
        preset="own" if own_words else preset,
        words=words,
        ids=dict(zip(spellings, ids, strict=True)),
        words_without_token=tuple(word for word, found in by_word.items() if not found),
    )
