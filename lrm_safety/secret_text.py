"""What in a text may be a secret: told by its looks, and kept out of what is shown and written down."""

from __future__ import annotations

import os
import re

FILE_VARIABLE = "LRM_SAFETY_SECRETS"
"""Names the file of secrets on every node (credentials.py)."""
HIDDEN = "***"
_SECRET_KEY = re.compile(
    r"(?i)(?:.*[._])?(?:(?:api|access|secret|private)_?key|(?:api|access|auth|hub|hf|bearer)_?token|token|secret|password|passwd"
    r"|passphrase|credentials?|authorization)"
)
"""In keys of a configuration: `api_key`, but neither `api_key_env`, which names a variable, nor `max_tokens`."""
_VARIABLE = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)")
_SECRET_NAME = re.compile(
    r"(?i)(?:key|token|secret|passwd|password|passphrase|credential|authorization|bearer|(?<![a-z])pat)s?(?![a-z])"
    r"(?!.*_(?:path|file|dir|home|folder)$)"
)
"""In names of variables; HF_TOKEN_PATH names a place, and TOKENIZERS_PARALLELISM is another word."""
_ASSIGNED = re.compile(r"([A-Za-z_][\w.]*)=")
_VALUE = re.compile(r"""(?!VALUE\b|null\b)(?:"[^"]*"|'[^']*'|[^\s,;\])}'"]*[^\s,;:.\])}'"])""")
"""What follows NAME= within a line of ours, where `VALUE` and `...` stand for one."""
_NAMED = re.compile(
    r"(?i)([\w.+~-]*(?:key|token|secret|passwd|pwd|password|passphrase|credentials?|authorization|bearer)[\"']?\s*[=: ]\s*)\S.*"
)
_KNOWN = re.compile(
    r"(?<![/\w.-])(?:(?:hf|gh[opsu])_[A-Za-z0-9]{16,}|(?:sk|pk|glpat|xox[abp])[-_][A-Za-z0-9_-]{12,}|github_pat_\w{12,}"
    r"|wandb_v1_\w{12,}|AIza[\w-]{20,}|nvapi-[\w-]{12,}|(?:AKIA|ASIA)[A-Z0-9]{16}\b|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+)"
)
"""Forms of well-known services' keys; a part of a path is none."""
_WANDB_OR_COMMIT = re.compile(r"""(?<!revision=)(?<!revision=['"])(?<!revision: )(?<![/@])\b[0-9a-f]{40}\b(?!/)""")
"""W&B's older keys look like commits, which a revision and a part of a path are."""
_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def is_secret(name: str, value: str) -> bool:
    """Whether a variable looks as if nobody should read it: by its name, or by what it holds."""
    return bool(_SECRET_NAME.search(name)) or holds_secret(value)


def holds_secret(text: str) -> bool:
    """Whether `text` holds an address with a user or a password in it, or what has the form of a well-known service's key."""
    return bool(_IN_ADDRESS.search(text) or _KNOWN.search(text))


def holds_secret_override(override: str) -> bool:
    """Whether `key=value` looks as if nobody should read it: what `holds_secret`, a value for a key named like a secret, or
    ${oc.env:NAME} of a variable named like one, which would be written into the resolved configuration."""
    key, _, value = override.partition("=")
    if any(_SECRET_NAME.search(name) for name in _VARIABLE.findall(value)):
        return True
    return holds_secret(override) or bool(_SECRET_KEY.fullmatch(key.lstrip("+~")) and value not in ("", "null"))


def masked(line: str) -> str:
    """A line of ours, such as an error's, with what it may quote of a secret replaced: values of keys and variables named like
    one, forms of well-known keys, credentials in addresses. Other than `without_secrets` it leaves words of prose."""
    told, end = "", 0
    for found in _ASSIGNED.finditer(line):
        variable = found[1].rpartition(".")[2]
        is_named = _SECRET_KEY.fullmatch(found[1]) or (
            variable.isupper() and variable != FILE_VARIABLE and _SECRET_NAME.search(variable)
        )
        if is_named and found.start() >= end and (value := _VALUE.match(line, found.end())):
            told, end = f"{told}{line[end : found.end()]}{HIDDEN}", value.end()
    line = told + line[end:]
    for form in (_KNOWN, _IN_ADDRESS):
        line = form.sub(HIDDEN, line)
    return line


def without_secrets(argument: str) -> str:
    """An argument of a command line with what may be a secret replaced: whatever a variable of this process named like a
    secret holds, values of keys named like one, forms of well-known keys, credentials in addresses."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 8:
            argument = argument.replace(value, HIDDEN)
    argument = _NAMED.sub(rf"\1{HIDDEN}", argument)
    for form in (_KNOWN, _WANDB_OR_COMMIT, _IN_ADDRESS):
        argument = form.sub(HIDDEN, argument)
    return argument
