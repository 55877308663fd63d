"""Text fields that hold the text of a message list, as data frames leave it: `[{'prompt': 'How ..?'}]`.

Whoever takes such a text for a prompt asks something that nobody wrote. What is one message is unwrapped; what could
be read in several ways is refused. A text that is merely JSON or a list of numbers stays what it is.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import DataError

logger = logging.getLogger(__name__)
Speaker = Literal["user", "assistant"]
_ROLES: dict[Speaker, tuple[str, ...]] = {
    "user": ("user", "human", "prompter"),
    "assistant": ("assistant", "gpt", "model", "bot", "ai"),
}
_TEXT_NAMES = ("content", "prompt", "text", "value", "question", "instruction", "message")
_ROLE_NAMES = ("role", "from", "speaker")
_ARRAY = re.compile(r"^(?:np\.|numpy\.)?array\((.*?)(?:,\s*dtype=[\w.']+)?\)$", re.DOTALL)
_LOOKS_LIKE_MESSAGES = re.compile(rf"^\[?\s*\{{\s*(['\"])(?:{'|'.join((*_ROLE_NAMES, *_TEXT_NAMES))})\1\s*:")


@dataclass(frozen=True)
class Source:
    """Where rows come from; `str(source)` is what messages call it."""

    name: str
    """A file, a hub id, or how they were made."""
    num_unwrapped: int = 0
    """Rows that held the text of a message list."""
    num_repeats: int = 0
    """Those of them that then repeated another row and were left out."""

    def __str__(self) -> str:
        return self.name


def plain_text(text: str, where: str, speaker: Speaker = "user") -> str:
    """The words of a field: `text` itself, or what the one message says whose serialised form it is.

    `speaker` says whose turn the field holds. An assistant's is unwrapped only where a role is stated, since lists and
    objects are possible answers; a user's may also be a list of one string or an object with one text. Raises
    DataError, opening with `where`, for several messages, a message of somebody else, a message without text, and a text
    that begins like messages and cannot be read as such.
    """
    stripped = text.strip()
    if not stripped.startswith(("[", "{", "(", "array(", "np.array(", "numpy.array(")):
        return text
    array = _ARRAY.match(stripped)
    body = array[1].strip() if array else stripped
    value = _parsed(body)
    if value is None:
        if _LOOKS_LIKE_MESSAGES.match(body) and body.endswith(("]", "}")):
            raise DataError(
                f"{where}: begins like a serialised list of messages and is none that can be read; mend the row"
            )
        return text
    found = _said(value, where, speaker)
    return text if found is None else plain_text(found, where, speaker)


def unwrap(
    records: Sequence[Mapping[str, Any]], field: str, source: str, id_field: str = "id"
) -> tuple[list[dict[str, Any]], list[int], Source]:
    """(rows with plain texts in `field`, the position of each in `records`, the source with its counts).

    A row that had to be unwrapped and then holds the same as another row, whatever the two are called, is left out. A
    warning too counts the rows of both kinds. Raises DataError for a row that is no object, and as `plain_text` does.
    """
    made: list[dict[str, Any]] = []
    wrapped: list[bool] = []
    for number, record in enumerate(records, start=1):
        where = f"{source}, row {number}"
        if not isinstance(record, Mapping):
            raise DataError(f"{where}: is a JSON {type(record).__name__}, expected an object with fields")
        text = record.get(field)
        plain = plain_text(text, f"{where}, field {field!r}") if isinstance(text, str) else text
        made.append({**record, field: plain} if field in record else dict(record))
        wrapped.append(plain != text)
    if not any(wrapped):
        return made, list(range(len(made))), Source(source)
    # The plain rows come first, so that of a pair the one that nobody wrapped stays.
    seen: set[str] = set()
    kept = []
    for position in sorted(range(len(made)), key=lambda position: (wrapped[position], position)):
        content = json.dumps(
            {name: value for name, value in made[position].items() if name not in ("id", id_field)}, default=str
        )
        if not (wrapped[position] and content in seen):
            kept.append(position)
        seen.add(content)
    kept.sort()
    logger.warning(
        "%s: %d of %d rows hold the text of a message list in %r and were unwrapped; %d of them repeat another row and "
        "were left out",
        source,
        sum(wrapped),
        len(made),
        field,
        len(made) - len(kept),
    )
    return [made[position] for position in kept], kept, Source(source, sum(wrapped), len(made) - len(kept))


def _parsed(body: str) -> Any:
    """The list, tuple or dictionary whose JSON or Python notation `body` is, else None."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(body)
        except Exception:  # either parser raises many things on what is not its notation
            continue
        return value if isinstance(value, list | tuple | dict) else None
    return None


def _said(value: Any, where: str, speaker: Speaker) -> str | None:
    """What a value says when it is one message; None when it is no message at all."""
    if isinstance(value, dict):
        return _message(value, where, speaker)
    parts = list(value)
    if not parts and speaker == "user":
        raise DataError(f"{where}: is the text of an empty list; mend or drop the row")
    if parts and all(isinstance(part, str) for part in parts):
        if speaker == "assistant":
            return None
        if len(parts) > 1:
            raise DataError(f"{where}: is the text of a list of {len(parts)} strings; give the row one text")
        return str(parts[0])
    said = [_message(part, where, speaker) if isinstance(part, dict) else None for part in parts]
    if all(one is None for one in said):
        return None
    if len(said) > 1:
        raise DataError(f"{where}: is the text of a list of {len(said)} messages; give the row one text")
    return said[0]


def _message(part: dict[Any, Any], where: str, speaker: Speaker) -> str | None:
    """The text of one message, or None where the dictionary is none: data of its own, such as a call of a tool."""
    role = next((part[name] for name in _ROLE_NAMES if name in part), None)
    texts = [name for name in _TEXT_NAMES if name in part]
    others = set(part) - {*_ROLE_NAMES, *texts, "type", "name"}
    if not texts or (role is None and speaker == "assistant"):
        return None
    if role is None and (others or len(texts) > 1):
        raise DataError(f"{where}: is the text of an object with {', '.join(map(str, part))}; give the row one text")
    if role is not None and role not in _ROLES[speaker]:
        raise DataError(f"{where}: is the text of a message of {role!r}, expected one of the {speaker}; mend the row")
    content = part[texts[0]]
    if isinstance(content, list | tuple):
        content = _said(content, where, speaker)
    if not isinstance(content, str):
        raise DataError(f"{where}: is the text of a message whose {texts[0]!r} is no text; mend the row")
    return content
