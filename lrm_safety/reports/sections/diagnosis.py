"""Findings with their evidence and remedies, and what the audits of the reward model said."""

from __future__ import annotations

from html import escape

from ...results import Audit
from ..album import Album
from ..analyses import audit_by
from ..findings import Seen, diagnose_study
from ..folders import Analysis, Study
from ..html import cell, folded, table

FOLDED_ABOVE = 4
"""More figures than this are shown when the reader asks for them."""


def diagnosis(study: Study, album: Album) -> str:
    """Findings first, failures before warnings; then the audits."""
    nothing = (
        '<p class="fine">No failure signature was found in the figures that are here. '
        "Rules whose figures are absent say nothing.</p>"
    )
    audits = "".join(_audit(one, i) for i, one in enumerate(study.of_kind(Audit)))
    return ("".join(map(_card, diagnose_study(study))) or nothing) + audits


def _card(seen: Seen) -> str:
    one = seen.finding
    often = (
        f' <span class="note">seen in {seen.num_seen} of {seen.num_runs} runs, the worst shown</span>'
        if seen.num_runs > 1
        else ""
    )
    evidence = f"<ul>{''.join(f'<li>{escape(str(measured))}</li>' for measured in one.evidence)}</ul>"
    if len(one.evidence) > FOLDED_ABOVE:
        evidence = folded(f"{len(one.evidence)} figures", evidence)
    return (
        f'<article class="finding {one.level}"><h3><span class="level">{one.level.upper()}</span>{escape(seen.subject)}: '
        f"<code>{one.rule}</code></h3><p>{escape(one.text)}{often}</p>{evidence}"
        f"<p><b>Remedy.</b> {escape(one.remedy)}</p></article>"
    )


def _audit(audit: Analysis[Audit], position: int) -> str:
    """A reward-model audit: verdict, reasons, and where the reward separates."""
    parts = [f"<h3>Reward-model audit, <code>{escape(str(audit.folder))}</code>: {escape(audit.results.verdict)}</h3>"]
    for model, one in audit.results.models.items():
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in one.reasons) or "<li>no reason to doubt it</li>"
        parts.append(f"<p>{escape(model)}: <b>{escape(one.verdict)}</b></p><ul>{reasons}</ul>")
    separation = audit_by(audit.results, "by_category") | audit_by(audit.results, "by_family")
    rows = [[escape(name), escape(model), escape(view), cell(auc)] for (model, view, name), auc in separation.items()]
    if rows:
        head = ["category or family", "reward model", "view", "AUC"]
        caption = "How well the reward tells safe from unsafe texts: 1 is always, 0.5 is a coin."
        parts.append(table(caption, head, rows, identity=f"audit-{position}", figures=[3]))
    return "".join(parts)
