"""The few words of roff that a manual page needs. Text is escaped here and nowhere else."""

from __future__ import annotations

import inspect

_AS_IT_STANDS = "\b"  # click's mark of a paragraph whose lines are kept


def text(words: str) -> str:
    """A paragraph's words, safe wherever a line breaks."""
    return "\n".join(_escaped(line.strip()) for line in words.strip().splitlines())


def bold(words: str) -> str:
    return f".B {_escaped(words)}"


def section(title: str, *body: str) -> str:
    return "\n".join([f".SH {_escaped(title)}", *body])


def heading(title: str) -> str:
    return f".SS {_escaped(title)}"


def item(term: str, body: str) -> str:
    """One entry of a list: the term, and what it means below it."""
    return "\n".join([".TP", bold(term), body])


def prose(help_text: str) -> str:
    """Paragraphs as click has them, those that are kept as they stand too."""
    paragraphs = (part.strip("\n") for part in inspect.cleandoc(help_text).split("\n\n"))
    return "\n.PP\n".join(_paragraph(part) for part in paragraphs if part.strip())


def _paragraph(part: str) -> str:
    first, _, rest = part.partition("\n")
    if first.strip(" ") != _AS_IT_STANDS:
        return text(part)
    return "\n".join([".nf", *(_escaped(line.removeprefix("    ")) for line in rest.splitlines()), ".fi"])


def _escaped(line: str) -> str:
    safe = line.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
