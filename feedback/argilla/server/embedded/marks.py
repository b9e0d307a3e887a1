"""Lets a mark reach the end of a text with emoji: Argilla's page counts UTF-16 units, and its server characters."""

from types import SimpleNamespace
from typing import Any

from argilla_server.validators.response_values import SpanQuestionResponseValueValidator as Validator

_check = Validator._validate_start_end_are_within_record_field_limits


def _check_as_the_page_counts(self: Any, settings: Any, record: Any) -> None:
    units = len(record.fields[settings.field].encode("utf-16-le", "surrogatepass")) // 2
    _check(self, settings, SimpleNamespace(fields={settings.field: " " * units}))


def count_as_the_page() -> None:
    """Measure texts as the page does."""
    Validator._validate_start_end_are_within_record_field_limits = _check_as_the_page_counts
