# SPDX-License-Identifier: GPL-2.0-only
"""result.json: RunResult to JSON and back, checked against result.schema.json.

The mapping follows the dataclasses of model.results: a field is a key of the same name, a tuple an
array, an enum its value. All keys are always written.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import InfraError, UserError
from harness.model.results import SCHEMA_VERSION, RunResult
from harness.report import atomic

if TYPE_CHECKING:
    import jsonschema

SCHEMA_FILE = "result.schema.json"


def to_dict(result: RunResult) -> dict[str, Any]:
    """The JSON object of a result. Holds only dict, list, str, int, float, bool and None."""
    encoded = _encode(result)
    assert isinstance(encoded, dict)
    return encoded


def from_dict(data: Mapping[str, Any]) -> RunResult:
    """The RunResult of a JSON object. Raises UserError naming the key, e.g. "tests[3].outcome"."""
    if not isinstance(data, Mapping):
        raise UserError(f"top level: expected an object, found {_json_name(data)}")
    _check_version(data)
    result = _decode(RunResult, data, "")
    assert isinstance(result, RunResult)
    return result


def validate(data: Mapping[str, Any]) -> None:
    """Check a JSON object against the schema. Raises UserError naming the first wrong key."""
    if isinstance(data, Mapping):
        _check_version(data)
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    error = best_match(_validator().iter_errors(data))
    if error is not None:
        raise UserError(
            f"{_join_path(error.absolute_path) or 'top level'}: {_shorten(error.message)}",
            hint=f"the format is described in harness/report/{SCHEMA_FILE}",
        )


def write(path: Path, result: RunResult) -> None:
    """Validate, then replace `path` in one step; a partial result of a running run is fine.

    Raises InfraError when the result breaks the schema (the old file stays), StorageError when the
    file cannot be written.
    """
    data = to_dict(result)
    try:
        _check_finite(data, "")
        validate(data)
    except UserError as error:
        raise InfraError(
            f"{path}: not written, the result breaks the schema: {error.message}",
            hint="this is a defect of the harness; please report it",
        ) from error
    _replace(path, data, sync=True)


def write_draft(path: Path, result: RunResult) -> None:
    """The result of a running run, at each of its many changes: not validated and not synced, which
    takes long.

    A run ends with `write`. Raises StorageError when the file cannot be written.
    """
    _replace(path, to_dict(result), sync=False)


def _replace(path: Path, data: Mapping[str, Any], *, sync: bool) -> None:
    # ASCII only: keeps odd characters of console text visible, and lone surrogates representable.
    atomic.write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n", sync=sync)


def load(path: Path) -> RunResult:
    """Read and validate a result.json. Raises UserError naming the file and the key."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"{path}: cannot read: {error.strerror or error}",
            hint="name a run directory or the result.json in it",
        ) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise UserError(f"{path}: not JSON: {error}") from error
    try:
        # fills in the fields that a file of an older harness lacks
        result = from_dict(data)
        validate(to_dict(result))
        return result
    except UserError as error:
        raise UserError(f"{path}: {error.message}", hint=error.hint) from error


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of result.json."""
    text = resources.files("harness.report").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    loaded = json.loads(text)
    assert isinstance(loaded, dict)
    return loaded


def prepare() -> None:
    """Load what `write` needs and a run's begin can do without: a tenth of a second."""
    _validator()


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    import jsonschema  # noqa: PLC0415

    return jsonschema.Draft202012Validator(schema())


def _check_version(data: Mapping[str, Any]) -> None:
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"schema_version: {version} is newer than this harness reads ({SCHEMA_VERSION})",
            hint="use the harness that wrote it, or a later one",
        )


def _check_finite(value: object, where: str) -> None:
    """JSON has no NaN and no infinity, and JSON Schema lets Python's pass."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {value} is not a number that JSON can hold")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, _key(where, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_finite(item, f"{where}[{index}]")


def _encode(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, one of the field types that model.results uses."""
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [member.value for member in kind]
        if value not in choices:
            raise UserError(f"{where}: {value!r} is not one of {', '.join(map(str, choices))}")
        return kind(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        items = _expect(value, list, where)
        return tuple(_decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        table = _expect(value, dict, where)
        return {key: _decode(arguments[1], item, _key(where, key)) for key, item in table.items()}
    if origin is types.UnionType:  # the model only has "T | None"
        inner = next(a for a in arguments if a is not types.NoneType)
        return None if value is None else _decode(inner, value, where)
    if kind is float:
        return float(_expect(value, (int, float), where))
    return _expect(value, kind, where)


@functools.cache
def _field_types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _decode_record(kind: Any, value: Any, where: str) -> Any:
    table = _expect(value, dict, where)
    hints = _field_types(kind)
    for key in table:
        if key not in hints:
            raise UserError(f"{_key(where, key)}: unknown key")
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in table:
            there = _key(where, field.name)
            arguments[field.name] = _decode(hints[field.name], table[field.name], there)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{_key(where, field.name)}: missing")
    return kind(**arguments)


def _expect(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # bool is an int to Python, not to JSON
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(_JSON_NAMES[k] for k in kinds)
        raise UserError(f"{where}: expected {wanted}, found {_json_name(value)}")
    return value


_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    types.NoneType: "null",
}


def _json_name(value: object) -> str:
    return _JSON_NAMES.get(type(value), type(value).__name__)


def _key(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _join_path(parts: typing.Iterable[str | int]) -> str:
    where = ""
    for part in parts:
        where = f"{where}[{part}]" if isinstance(part, int) else _key(where, part)
    return where


def _shorten(message: str, limit: int = 300) -> str:
    """jsonschema quotes the whole instance, which may be a megabyte of console."""
    return message if len(message) <= limit else f"{message[:200]} ... {message[-80:]}"
