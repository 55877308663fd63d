"""Conversation: render prompts, split responses into trace and answer, recognise refusals and reflection."""

from lrm_safety.conversation.families import FAMILIES, PROTOCOLS, Family, PromptRenderer, Protocol, get_family
from lrm_safety.conversation.language import is_english
from lrm_safety.conversation.refusal import is_refusal
from lrm_safety.conversation.response import (
    CLOSE_TAG,
    OPEN_TAG,
    REFLECTION_WORDS,
    ParsedResponse,
    ResponseParser,
    Status,
    compose_response,
    reflection_token_ids,
    split_think_text,
)
from lrm_safety.conversation.template import DATE_STRING, ChatTemplate, ControlTokens

__all__ = [
    "CLOSE_TAG",
    "DATE_STRING",
    "FAMILIES",
    "OPEN_TAG",
    "PROTOCOLS",
    "REFLECTION_WORDS",
    "ChatTemplate",
    "ControlTokens",
    "Family",
    "ParsedResponse",
    "PromptRenderer",
    "Protocol",
    "ResponseParser",
    "Status",
    "compose_response",
    "get_family",
    "is_english",
    "is_refusal",
    "reflection_token_ids",
    "split_think_text",
]
