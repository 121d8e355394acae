"""Events as plain data, and back; what a ledger keeps on disk."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dp.errors import LedgerMismatchError
from dp.events import EVENT_CLASSES, Event, check_event


def event_to_dict(event: Event) -> dict[str, object]:
    """Plain data (str, int, float, list, dict) from which `event_from_dict` rebuilds the event."""
    check_event("event", event)
    fields: dict[str, object] = {"type": type(event).__name__}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        plain = [_plain(part) for part in value] if isinstance(value, tuple) else _plain(value)
        fields[field.name] = plain
    return fields


def _plain(value: Any) -> object:
    """A field of `event_to_dict`: a nested event, or the value itself."""
    return event_to_dict(value) if type(value) in EVENT_CLASSES.values() else value


def event_from_dict(data: Mapping[str, object]) -> Event:
    """The event written by `event_to_dict`.

    Raises:
        LedgerMismatchError: unknown event, or fields that are not those of the event.
        ParameterError: a field outside its range.
    """
    if not isinstance(data, Mapping):
        raise LedgerMismatchError(f"event: got {type(data).__name__}, takes fields by name")
    kind = data.get("type")
    cls = EVENT_CLASSES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise LedgerMismatchError(f"type={kind!r}: takes one of {sorted(EVENT_CLASSES)}")
    given = {name: value for name, value in data.items() if name != "type"}
    if set(given) != {field.name for field in dataclasses.fields(cls)}:
        raise LedgerMismatchError(f"{kind}: fields {sorted(given)} are not its fields")
    # Any: each class checks the types of its own fields when it is made.
    made: dict[str, Any] = {name: _rebuilt(value) for name, value in given.items()}
    return cls(**made)


def _rebuilt(value: object) -> object:
    """A field of `event_from_dict`: nested events, tuples of events, or the value itself."""
    if isinstance(value, Mapping):
        return event_from_dict(value)
    if isinstance(value, list):
        return tuple(_rebuilt(part) for part in value)
    return value
