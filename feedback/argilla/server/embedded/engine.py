"""Argilla's search engine over Argilla's own SQLite database: there is no second store that could disagree with it."""

import sqlite3
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.models import Dataset, MetadataProperty, Record, Response, User, Vector, VectorSettings
from argilla_server.search_engine import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from sqlalchemy.ext.asyncio import AsyncSession

from . import filters, similarity, text_index, text_query

NAME = "sqlite"
# The title of the metadata property whose greatest values raters see first, where a dataset has it (argilla/order.py).
FIRST = "Uncertainty of the judges"
# Raters who see the same order would label the same records: within one of so many steps each has an own order.
STEPS = 10


@SearchEngine.register(engine_name=NAME)
class SqliteEngine(SearchEngine):
    """Answers from the tables themselves: there is nothing to write, but the text index is brought up to date."""

    @classmethod
    async def new_instance(cls) -> "SqliteEngine":
        return cls()

    async def close(self) -> None: ...

    async def ping(self) -> bool:
        async with AsyncSessionLocal() as db:
            return await db.scalar(sa.select(1)) == 1

    async def info(self) -> dict:
        return {"name": NAME, "version": sqlite3.sqlite_version}

    async def create_index(self, dataset: Dataset) -> None: ...

    async def delete_index(self, dataset: Dataset) -> None:
        await _catch_up()

    async def configure_metadata_property(self, dataset: Dataset, metadata_property: MetadataProperty) -> None: ...

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None: ...

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        await _catch_up()

    async def partial_record_update(self, record: Record, **update: Any) -> None: ...

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        await _catch_up()

    async def update_record_response(self, response: Response) -> None: ...

    async def delete_record_response(self, response: Response) -> None: ...

    async def update_record_suggestion(self, suggestion: Any) -> None: ...

    async def delete_record_suggestion(self, suggestion: Any) -> None: ...

    async def get_dataset_progress(self, dataset: Dataset) -> dict:
        """How many records there are, in all and by their status."""
        return await _progress(dataset, sa.select(Record.status).where(Record.dataset_id == dataset.id))

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict:
        """How many answers a user has given, in all and by their status."""
        answers = sa.select(Response.status).join(Record, Record.id == Response.record_id)
        return await _progress(dataset, answers.where(Record.dataset_id == dataset.id, Response.user_id == user.id))

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,  # noqa: A002 (Argilla's name)
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | None = None,
    ) -> SearchResponses:
        """A page of records: in the order asked for, else the dataset's and a user's own, else that of arrival."""
        conditions = _conditions(dataset, query, filter)
        order = _order(dataset, sort, user_id)
        async with AsyncSessionLocal() as db:
            if query is not None:
                await text_index.catch_up(db)
            total = await _count(db, conditions)
            if offset >= total:
                found = []
            elif user_id is None or order:
                found = await _page(db, conditions, [*order, Record.id], offset, limit)
            else:
                found = await _round(db, conditions, user_id, offset, min(limit, total - offset))
        return SearchResponses(items=[SearchResponseItem(record_id=each, score=1.0) for each in found], total=total)

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,  # noqa: A002 (Argilla's name)
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """The records whose vectors point most, or least, in the direction of a vector or of another record's."""
        conditions = _conditions(dataset, query, filter)
        if record is not None:
            value = record.vector_value_by_vector_settings(vector_settings)
            conditions.append(Record.id != record.id)
        vectors = sa.select(Record.id, filters.json_text(Vector.value)).join(Vector, Vector.record_id == Record.id)
        vectors = vectors.where(Vector.vector_settings_id == vector_settings.id, *conditions)
        nearest = similarity.Nearest(value or [], vector_settings.dimensions, order, max_results, threshold)
        async with AsyncSessionLocal() as db:
            if query is not None:
                await text_index.catch_up(db)
            async for part in (await db.stream(vectors)).partitions(similarity.PART):
                nearest.look_at(part)
        items = [SearchResponseItem(record_id=each, score=score) for each, score in nearest.found]
        return SearchResponses(items=items, total=len(items))

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """How often each term occurs, or between which bounds the numbers are."""
        values = filters.metadata(metadata_property.name)
        rows = sa.select().select_from(Record).join(values.rows, sa.true())
        rows = rows.where(Record.dataset_id == metadata_property.dataset_id, values.value.is_not(None))
        async with AsyncSessionLocal() as db:
            if metadata_property.type != MetadataPropertyType.terms:
                bounds = rows.add_columns(sa.func.min(values.value), sa.func.max(values.value))
                low, high = (await db.execute(bounds)).one()
                integer = metadata_property.type == MetadataPropertyType.integer
                return (IntegerMetadataMetrics if integer else FloatMetadataMetrics)(min=low, max=high)
            count = sa.func.count().label("count")
            terms = rows.add_columns(values.value, count).group_by(values.value).order_by(count.desc(), values.value)
            counts = [TermsMetrics.TermCount(term=str(term), count=n) for term, n in await db.execute(terms)]
        return TermsMetrics(total=sum(each.count for each in counts), values=counts)


async def _catch_up() -> None:
    # Each search does so too; here it is whoever made the change that waits for it.
    async with AsyncSessionLocal() as db:
        await text_index.catch_up(db)


def _conditions(dataset: Dataset, query: TextQuery | str | None, wanted: Filter | None) -> list[filters.Condition]:
    conditions = [Record.dataset_id == dataset.id]
    if wanted is not None:
        conditions.append(filters.condition(dataset, wanted))
    if query is not None:
        text = TextQuery(q=query) if isinstance(query, str) else query
        conditions.append(text_query.condition(text.q, text.field and _column(dataset, text.field)))
    return conditions


def _column(dataset: Dataset, field: str) -> str:
    """Where the text index has a field: it numbers them in the order in which they were made, without the images."""
    fields = sorted(dataset.fields, key=lambda each: (each.inserted_at, each.id.hex))
    names = [each.name for each in fields if not each.is_image or each.name == field]
    return text_index.COLUMNS[min(names.index(field), len(text_index.COLUMNS) - 1)]


def _order(dataset: Dataset, sort: list[Order] | None, user_id: UUID | None) -> list[Any]:
    """What to sort by before the ids; nothing where a rater is to go round."""
    if sort:
        return [filters.order(dataset, each) for each in sort]
    if user_id is None:
        return [Record.inserted_at]
    for first in (each.name for each in dataset.metadata_properties if each.title == FIRST):
        # By its steps, the greatest first; within a step as in `_round`.
        step = sa.cast(filters.number(first) * STEPS, sa.Integer)
        return [step.desc().nulls_last(), Record.id < user_id]
    return []


async def _count(db: AsyncSession, conditions: list[filters.Condition]) -> int:
    return await db.scalar(sa.select(sa.func.count()).select_from(Record).where(*conditions)) or 0


async def _page(
    db: AsyncSession, conditions: list[filters.Condition], order: list[Any], offset: int, limit: int
) -> list[UUID]:
    page = sa.select(Record.id).where(*conditions).order_by(*order).offset(offset).limit(limit)
    return list((await db.scalars(page)).all())


async def _round(
    db: AsyncSession, conditions: list[filters.Condition], start: UUID, offset: int, limit: int
) -> list[UUID]:
    """The ids from a place on, then those before it: ids are random, so raters who begin apart stay apart for long.

    Those before it are asked for when the others have come to their end: a question costs as much as the text search
    in it, however few records are wanted.
    """
    later, earlier = [*conditions, Record.id >= start], [*conditions, Record.id < start]
    page = await _page(db, later, [Record.id], offset, limit)
    if len(page) < limit:
        passed = offset + len(page) if page else await _count(db, later)
        page += await _page(db, earlier, [Record.id], max(0, offset - passed), limit - len(page))
    return page


async def _progress(dataset: Dataset, statuses: sa.Select) -> dict:
    if dataset.is_draft:
        return {}
    (status,) = statuses.selected_columns
    async with AsyncSessionLocal() as db:
        counts = (await db.execute(statuses.add_columns(sa.func.count()).group_by(status))).all()
    return {"total": sum(n for _, n in counts), **{status.value: n for status, n in counts}}
