"""What people type into the search box, in Elasticsearch's simple query syntax, as a condition on records.

`a b` both, `a | b` either, `-a` not, `"a b"` in a row, `a*` as a beginning, `( )` groups, `\\` takes a character as it
is. Operators bind from left to right. Nothing is a mistake: what has no meaning is passed over, also the `~` of words
that resemble each other. Punctuation, symbols and emoji are no part of a word.
"""

import re
import unicodedata
from dataclasses import dataclass

import sqlalchemy as sa
from argilla_server.errors.future import UnprocessableEntityError

from .text_index import searchable

MOST_CHARACTERS = 20_000
MOST_LEVELS = 20

_MARKS = re.compile(r'\\.|[()"]', re.DOTALL)
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)
# A star at the end asks for a beginning; how far a word may be misspelt (~1) is passed over.
_TERM = re.compile(r"""(?P<word>(?:\\.?+|[^\s"|+()\\])*?)(?P<star>\*?)(?:~\d*)?(?=[\s"|+()]|$)""", re.DOTALL)

_text = sa.table("veritune_text", sa.column("rowid"), sa.column("veritune_text"))


@dataclass(frozen=True)
class Phrase:
    """Words in a row, in FTS5's spelling."""

    fts: str


@dataclass(frozen=True)
class Not:
    """Whatever the part does not match."""

    part: "Node"


@dataclass(frozen=True)
class Group:
    """All ("AND") or any ("OR") of the parts."""

    operator: str
    parts: tuple["Node", ...]


Node = Phrase | Not | Group


def condition(query: str, column: str | None = None) -> sa.ColumnElement[bool]:
    """The records that a query asks for.

    Args:
        query: what was typed.
        column: the index's column to look in; all where it is None.

    Raises:
        UnprocessableEntityError: the query is too long or nested too deep.
    """
    if len(query) > MOST_CHARACTERS:
        raise UnprocessableEntityError(f"the text to search for has more than {MOST_CHARACTERS:,} characters")
    node = _Parser(query.replace("\0", " ")).parse()
    # Like Elasticsearch: a query without a word finds nothing.
    if node is None:
        return sa.false()
    words, negated = _fts(node)
    match = _text.c.veritune_text.op("MATCH")(f"{{{column}}} : ({words})" if column else words)
    found = sa.literal_column("records.rowid").in_(sa.select(_text.c.rowid).where(match))
    return sa.not_(found) if negated else found


def _fts(node: Node, levels: int = 0) -> tuple[str, bool]:
    """The node in FTS5's own syntax, and whether it is what that does not match: FTS5 has no "all but"."""
    if levels > MOST_LEVELS:
        raise _too_deep()
    if isinstance(node, Phrase):
        return node.fts, False
    if isinstance(node, Not):
        words, negated = _fts(node.part, levels + 1)
        return words, not negated
    parts = dict.fromkeys(_fts(part, levels + 1) for part in node.parts)
    given, excluded = ([words for words, negated in parts if negated is side] for side in (False, True))
    # By De Morgan: (a or not b) is not (b, not a).
    wanted, unwanted = (given, excluded) if node.operator == "AND" else (excluded, given)
    if not wanted:
        return f"({' OR '.join(unwanted)})", node.operator == "AND"
    both = f"({' AND '.join(wanted)})"
    return f"({both} NOT ({' OR '.join(unwanted)}))" if unwanted else both, node.operator == "OR"


def _too_deep() -> UnprocessableEntityError:
    return UnprocessableEntityError(f"the text to search for has more than {MOST_LEVELS} brackets in each other")


class _Parser:
    """Follows Lucene's SimpleQueryParser, the one behind Elasticsearch's simple_query_string, but for fuzziness."""

    def __init__(self, text: str, levels: int = 0) -> None:
        if levels > MOST_LEVELS:
            raise _too_deep()
        self._text, self._at, self._levels = text, 0, levels
        # Where the bracket or quotation that begins at a place ends; no entry for one that doesn't.
        self._ends: dict[int, int] = {}
        brackets: list[int] = []
        quotation = -1
        for mark in _MARKS.finditer(text):
            if mark[0] == "(":
                brackets.append(mark.start())
            elif mark[0] == ")" and brackets:
                self._ends[brackets.pop()] = mark.start()
            elif mark[0] == '"':
                self._ends[quotation], quotation = mark.start(), mark.start()

    def parse(self) -> Node | None:
        tree: Node | None = None
        operator = ""
        negated = False
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "-":
                negated = not negated
                self._at += 1
                continue
            if character in "+|":
                operator = operator or {"+": "AND", "|": "OR"}[character]
                self._at += 1
            elif character.isspace() or character == ")" or (character in '("' and self._at not in self._ends):
                self._at += 1
            else:
                part = {"(": self._group, '"': self._quoted}.get(character, self._term)()
                if part is not None:
                    tree = _joined(tree, operator or "AND", Not(part) if negated else part)
                operator = ""
            negated = False
        return tree

    def _group(self) -> Node | None:
        return _Parser(self._inside(), self._levels + 1).parse()

    def _quoted(self) -> Node | None:
        return _phrase(_ESCAPE.sub(r"\1", self._inside()))

    def _inside(self) -> str:
        start, end = self._at + 1, self._ends[self._at]
        self._at = end + 1
        return self._text[start:end]

    def _term(self) -> Node | None:
        term = _TERM.match(self._text, self._at)
        assert term is not None  # It matches nothing at all, too.
        self._at = term.end()
        return _phrase(_ESCAPE.sub(r"\1", term["word"]), begins=bool(term["star"]))


def _joined(tree: Node | None, operator: str, part: Node) -> Node:
    if tree is None:
        return part
    if isinstance(tree, Group) and tree.operator == operator:
        return Group(operator, (*tree.parts, part))
    return Group(operator, (tree, part))


def _phrase(words: str, begins: bool = False) -> Phrase | None:
    if not any(unicodedata.category(character)[0] in "LN" for character in words):
        return None
    quoted = searchable(words).replace('"', '""')
    return Phrase(f'"{quoted}"*' if begins else f'"{quoted}"')
