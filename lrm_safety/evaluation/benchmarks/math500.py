"""MATH500 (Hendrycks et al. 2021; the 500 of Lightman et al. 2023; HuggingFaceH4/MATH-500, MIT).

Protocol of DeepSeek-R1: "reason step by step" and a boxed answer; 4 samples a question, pass@1 their mean.
"""

from __future__ import annotations

from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
HUB_ID = "HuggingFaceH4/MATH-500"
REVISION = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"


@benchmark("math500", kind="reasoning", scoring="math", samples=4)
def load(data: str | None = None, revision: str | None = REVISION) -> Questions:
    """MATH500's problems. `data`: test.jsonl; default LRM_SAFETY_DATA, then the hub at `revision`. DataError when absent
    or wrong."""
    fields: dict[str, type | tuple[type, ...]] = {"problem": str, "answer": str, "subject": str, "level": (int, str)}
    found, source = rows("math500", "test.jsonl", data, fields, hub_rows(HUB_ID, revision=revision), prompt="problem")
    return questions(
        (
            Question(
                id=f"math500-{number:03d}",
                prompt=f"{row['problem']}\n\n{INSTRUCTION}",
                request=row["problem"],
                target=row["answer"],
                groups={"subject": row["subject"], "level": str(row["level"])},
            )
            for number, row in enumerate(found)
        ),
        source,
    )
