"""What a notebook shows of records: a small table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def html_table(title: str, rows: Mapping[str, str]) -> str:
    """A table of two columns with a title; everything is escaped.

    >>> html_table("id-1", {"classes": "5 < 6"})
    '<table><caption>id-1</caption><tr><th>classes</th><td>5 &lt; 6</td></tr></table>'
    """
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<table><caption>{escape(title)}</caption>{body}</table>"
