"""Long texts for people: beginning and end stay, where the place and the remedy are. Pure, and lean."""

from __future__ import annotations

MARK = " [...] "
MASK = "***"


def middle(shown: str, limit: int, *, unmasked: bool = False) -> str:
    """The text without its middle, so that it has at most `limit` characters; a mask is never cut.

    Args:
        shown: The text.
        limit: Characters; more than `MARK` has.
        unmasked: Secrets aren't masked yet, so it is cut between words only: of half a secret
            nobody would know later that it is one.
    """
    if len(shown) <= limit:
        return shown
    room = limit - len(MARK)
    begin, end = room - room // 3, len(shown) - room // 3
    head, tail = shown[:begin], shown[end:]
    if unmasked:
        head = _without_last_word(head) if not shown[begin].isspace() else head
        tail = _without_last_word(tail[::-1])[::-1] if not shown[end - 1].isspace() else tail
    else:
        star = MASK[0]
        head = head.rstrip(star) if shown[begin] == star else head
        tail = tail.lstrip(star) if shown[end - 1] == star else tail
    return f"{head.rstrip()}{MARK}{tail.lstrip()}".strip()


def _without_last_word(text: str) -> str:
    end = len(text)
    while end and not text[end - 1].isspace():
        end -= 1
    return text[:end]
