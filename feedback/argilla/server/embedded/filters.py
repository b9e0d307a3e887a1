"""Argilla's filters and orders as SQL over its own tables; Elasticsearch's behaviour is the reference.

Whatever is filtered or sorted by is a set of values that a record has: of its metadata, of all answers to a question,
of the scores that a suggestion gives. A filter asks for one value among them, an order for the least or the greatest.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any, TypeAlias

import sqlalchemy as sa
from argilla_server.enums import ResponseStatusFilter, SortOrder
from argilla_server.errors.future import UnprocessableEntityError
from argilla_server.models import Dataset, Question, Record, Response, Suggestion
from argilla_server.search_engine import (
    AndFilter,
    Filter,
    FilterScope,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)

Condition: TypeAlias = "sa.ColumnElement[bool]"


@dataclass(frozen=True)
class Values:
    """The values that a record has in some respect: one column, and the rows where it stands."""

    value: sa.ColumnElement[Any]
    rows: sa.FromClause
    conditions: tuple[Condition, ...] = ()

    def any(self, condition: Condition) -> Condition:
        """Whether one of them meets the condition."""
        return sa.exists(self._select(sa.literal(1)).where(condition))

    def one(self, aggregate: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """What stands for all of them; NULL where there are none."""
        return self._select(aggregate).scalar_subquery()

    def _select(self, column: sa.ColumnElement[Any]) -> sa.Select[Any]:
        return sa.select(column).select_from(self.rows).where(*self.conditions).correlate(Record)


def condition(dataset: Dataset, wanted: Filter) -> Condition:
    """The records that a filter lets through.

    Raises:
        UnprocessableEntityError: the filter asks for something that can't be filtered by, or for a date that is none.
    """
    if isinstance(wanted, AndFilter):
        return sa.and_(sa.true(), *(condition(dataset, part) for part in wanted.filters))
    scope = wanted.scope
    if isinstance(scope, RecordFilterScope):
        return _record_condition(wanted, str(scope.property))
    if isinstance(scope, ResponseFilterScope) and scope.question is None and isinstance(wanted, TermsFilter):
        return _response_status(dataset, wanted, scope)
    values = _values(dataset, scope)
    return values.any(_matches(values.value, wanted))


def order(dataset: Dataset, wanted: Order) -> sa.ColumnElement[Any]:
    """What to sort by; records without a value come last in either direction."""
    scope = wanted.scope
    if isinstance(scope, RecordFilterScope):
        key = getattr(Record, str(scope.property))
    else:
        values = _values(dataset, scope)
        extreme = sa.func.max if wanted.order == SortOrder.desc else sa.func.min
        key = extreme(values.value)
        if isinstance(scope, ResponseFilterScope) and scope.question is not None:
            # Of several people's ratings the mean counts.
            key = sa.func.coalesce(sa.func.avg(sa.case((_is_number(values.value), values.value))), key)
        key = values.one(key)
    return (key.desc() if wanted.order == SortOrder.desc else key.asc()).nulls_last()


def metadata(name: str) -> Values:
    """The values of a metadata property."""
    return _in_json(Record.metadata_, path=f'$."{name}"')


def number(name: str) -> sa.ColumnElement[float]:
    """The one number of a metadata property: read in half the time of `metadata`, which may hold several values."""
    text = json_text(Record.metadata_)
    return sa.case((sa.func.json_valid(text) == 1, sa.func.json_extract(text, f'$."{name}"')))


def json_text(column: Any) -> sa.ColumnElement[str]:
    """A JSON column as the text that is stored, which SQLite's own JSON functions read."""
    return sa.type_coerce(column, sa.String)


def _in_json(column: Any, rows: sa.FromClause | None = None, path: str = "$", *conditions: Condition) -> Values:
    # A number without end (1e999) is stored as Infinity, which is no JSON and would fail every search: it is no value.
    valid = sa.case((sa.func.json_valid(json_text(column)) == 1, json_text(column)))
    # json_each makes a row of a single value, and one of each value in a list.
    each = sa.func.json_each(valid, path).table_valued("value")
    return Values(each.c.value, each if rows is None else rows.join(each, sa.true()), conditions)


def _values(dataset: Dataset, scope: FilterScope) -> Values:
    if isinstance(scope, MetadataFilterScope):
        return metadata(scope.metadata_property)
    if isinstance(scope, SuggestionFilterScope):
        question = sa.select(Question.id).where(Question.dataset_id == dataset.id, Question.name == scope.question)
        conditions: tuple[Condition, ...] = (
            Suggestion.record_id == Record.id,
            Suggestion.question_id == question.scalar_subquery(),
        )
        if scope.property in ("agent", "type"):
            column = sa.type_coerce(getattr(Suggestion, scope.property), sa.String)
            return Values(column, Suggestion.__table__, conditions)
        column = Suggestion.score if scope.property == "score" else Suggestion.value
        return _in_json(column, Suggestion.__table__, "$", *conditions)
    if isinstance(scope, ResponseFilterScope):
        conditions = (Response.record_id == Record.id,)
        if scope.user is not None:
            conditions += (Response.user_id == scope.user.id,)
        if scope.question is not None:
            return _in_json(Response.values, Response.__table__, f'$."{scope.question}".value', *conditions)
        if scope.property == "status":
            return Values(sa.type_coerce(Response.status, sa.String), Response.__table__, conditions)
    raise UnprocessableEntityError("a filter or order by answers has to name a question or the property 'status'")


def _response_status(dataset: Dataset, wanted: TermsFilter, scope: ResponseFilterScope) -> Condition:
    """The status of answers; "pending" is that there is none."""
    values = _values(dataset, scope)
    given = values.any(values.value.in_([v for v in wanted.values if v != ResponseStatusFilter.pending]))
    if ResponseStatusFilter.pending in wanted.values:
        return sa.or_(sa.not_(values.any(sa.true())), given)
    return given


def _record_condition(wanted: TermsFilter | RangeFilter, name: str) -> Condition:
    column = getattr(Record, name)
    if name in ("inserted_at", "updated_at"):
        if isinstance(wanted, TermsFilter):
            return column.in_([_moment(value) for value in wanted.values])
        return _range(column, _moment(wanted.ge), _moment(wanted.le, end=True))
    # A UUID is stored without its hyphens.
    spell = (lambda text: text.replace("-", "").lower()) if name == "id" else str
    column = sa.type_coerce(column, sa.String)
    if isinstance(wanted, TermsFilter):
        return column.in_([spell(value) for value in wanted.values])
    return _range(column, *(bound if bound is None else spell(str(bound)) for bound in (wanted.ge, wanted.le)))


def _matches(value: sa.ColumnElement[Any], wanted: TermsFilter | RangeFilter) -> Condition:
    """Terms and bounds come as text, also those for numbers: they are compared as both."""
    if isinstance(wanted, TermsFilter):
        numbers = [number for term in wanted.values if (number := _number(term)) is not None]
        return value.in_([*wanted.values, *numbers])
    low, high = (bound if bound is None else str(bound) for bound in (wanted.ge, wanted.le))
    as_text = sa.and_(sa.func.typeof(value) == "text", _range(value, low, high))
    least, most = _number(low), _number(high)
    if (least is None) == (low is None) and (most is None) == (high is None):
        return sa.or_(as_text, sa.and_(_is_number(value), _range(value, least, most)))
    return as_text


def _range(value: sa.ColumnElement[Any], low: Any, high: Any) -> Condition:
    return sa.and_(
        sa.true() if low is None else value >= low,
        sa.true() if high is None else value <= high,
    )


def _is_number(value: sa.ColumnElement[Any]) -> Condition:
    return sa.func.typeof(value).in_(["integer", "real"])


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _moment(text: Any, end: bool = False) -> datetime | None:
    """A date in ISO 8601 or milliseconds since 1970 in UTC, as Argilla stores it; with `end` a day means its end."""
    if text is None:
        return None
    try:
        if (milliseconds := _number(text)) is not None:
            return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)
        moment = datetime.fromisoformat(text)
        if end and len(text) == len("2026-11-24"):
            return datetime.combine(moment, time.max)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError, OSError):
        raise UnprocessableEntityError(f"{text!r} is no date; write it like 2026-11-24T12:00:00") from None
