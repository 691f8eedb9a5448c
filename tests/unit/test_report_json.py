# SPDX-License-Identifier: GPL-2.0-only
"""result.json: round trip, schema, and what a malformed file says."""

from __future__ import annotations

import copy
import dataclasses
import json
import stat
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InfraError, StorageError, UserError
from harness.model.kernel import ConfigRow
from harness.model.machine import MachineEnd
from harness.model.results import (
    Attempt,
    Baseline,
    CaseStatus,
    Change,
    Failure,
    HistoryPoint,
    KernelRecord,
    MachineRecord,
    Outcome,
    RunResult,
    SlowDown,
    Splat,
    SplatRecord,
    StageRecord,
    SubtestResult,
    TestHistory,
    TestResult,
    Verdict,
)
from harness.report import json_report
from tests.unit import report_samples

SAMPLES = report_samples.everything()


@pytest.mark.parametrize("name", SAMPLES)
def test_round_trip(name: str) -> None:
    result = SAMPLES[name]
    text = json.dumps(json_report.to_dict(result))
    assert json_report.from_dict(json.loads(text)) == result


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_valid(name: str) -> None:
    json_report.validate(json_report.to_dict(SAMPLES[name]))


@pytest.mark.parametrize("name", SAMPLES)
def test_write_then_load(name: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    json_report.write(path, SAMPLES[name])
    assert json_report.load(path) == SAMPLES[name]
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    assert path.read_bytes().isascii()
    assert stat.S_IMODE(path.stat().st_mode) & 0o400


@given(st.text(), st.text())
def test_any_string_survives(reason: str, name: str) -> None:
    test = report_samples.test_result("x", Outcome.FAIL, reason)
    test = dataclasses.replace(test, subtests=(SubtestResult((name,), Outcome.PASS, ""),))
    data = json_report.to_dict(report_samples.run(Verdict.FAIL, (test,)))
    json_report.validate(data)
    assert json_report.from_dict(json.loads(json.dumps(data))).tests == (test,)


RECORDS: dict[str, type] = {
    "kernel": KernelRecord,
    "machine": MachineRecord,
    "subtest": SubtestResult,
    "test": TestResult,
    "splat": Splat,
    "splat_record": SplatRecord,
    "failure": Failure,
    "stage": StageRecord,
    "config_row": ConfigRow,
    "attempt": Attempt,
    "case_status": CaseStatus,
    "slow_down": SlowDown,
    "baseline": Baseline,
    "history_point": HistoryPoint,
    "test_history": TestHistory,
}


def object_schemas() -> dict[str, dict[str, Any]]:
    schema = json_report.schema()
    found = {"": schema}
    found.update({name: schema["$defs"][name] for name in RECORDS})
    return found


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_report.schema())
    assert json_report.schema()["$schema"].endswith("2020-12/schema")


def test_schema_names_every_field_and_no_other() -> None:
    for name, schema in object_schemas().items():
        kind: Any = RECORDS.get(name, RunResult)
        fields = [field.name for field in dataclasses.fields(kind)]
        assert list(schema["properties"]) == fields, name
        assert schema["required"] == fields, name
        assert schema["additionalProperties"] is False, name


def test_schema_types_every_property() -> None:
    for name, schema in object_schemas().items():
        for key, prop in schema["properties"].items():
            assert {"type", "$ref", "enum", "const"} & set(prop), f"{name}.{key}"


def test_schema_enums_are_the_models() -> None:
    defs = json_report.schema()["$defs"]
    assert defs["outcome"]["enum"] == [o.value for o in Outcome]
    assert json_report.schema()["properties"]["verdict"]["enum"] == [v.value for v in Verdict]
    assert defs["machine"]["properties"]["end"]["enum"] == ["", *(e.value for e in MachineEnd)]
    counts = json_report.schema()["properties"]["counts"]["properties"]
    assert list(counts) == [o.value for o in Outcome]
    assert defs["change"]["enum"] == [c.value for c in Change]
    assert defs["outcome_or_none"]["enum"] == [*defs["outcome"]["enum"], None]


def broken(path: str, value: object) -> dict[str, Any]:
    """The failing sample with the key at `path` ("tests.6.outcome") replaced; None removes it."""
    data = copy.deepcopy(json_report.to_dict(SAMPLES["failing"]))
    *parents, last = path.split(".")
    place: Any = data
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return data


MALFORMED = [
    ("tests.6.outcome", "passs", r"tests\[6\]\.outcome: 'passs' is not one of"),
    ("tests.6.subtests", {}, r"tests\[6\]\.subtests: .*"),
    ("tests.0.duration_s", "1", r"tests\[0\]\.duration_s: .*"),
    ("tests.0.attempt", True, r"tests\[0\]\.attempt: .*"),
    ("splats.0.splat.kind", 3, r"splats\[0\]\.splat\.kind: .*"),
    ("verdict", "maybe", r"verdict: 'maybe' is not one of"),
    ("schema_version", 2, r"schema_version: 2 is newer than this harness reads"),
    ("controller.cpus", 4, r"controller\.cpus: .*"),
    ("counts.pass", 1.5, r"counts\.pass: .*"),
    ("kernels.0.surprise", "x", r"surprise"),
    ("run_id", None, r"run_id"),
    ("kernels.0.build_id", None, r"kernels\[0\].*build_id"),
]


@pytest.mark.parametrize(("path", "value", "message"), MALFORMED, ids=[m[0] for m in MALFORMED])
def test_malformed_names_the_key(path: str, value: object, message: str) -> None:
    data = broken(path, value)
    with pytest.raises(UserError, match=message):
        json_report.validate(data)
    with pytest.raises(UserError, match=message):
        json_report.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff", '{"a": 1', "[" * 100_000])
def test_load_of_garbage_names_the_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"result\.json: "):
        json_report.load(path)


def test_load_of_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    json_report.write(path, SAMPLES["failing"])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not JSON"):
        json_report.load(path)


def test_load_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        json_report.load(tmp_path / "result.json")


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf")])
def test_an_invalid_result_keeps_the_old_file(duration: float, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    json_report.write(path, SAMPLES["passing"])
    with pytest.raises(InfraError, match="duration_s"):
        json_report.write(path, dataclasses.replace(SAMPLES["failing"], duration_s=duration))
    assert json_report.load(path) == SAMPLES["passing"]
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_no_directory_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent/result\.json: cannot write"):
        json_report.write(tmp_path / "absent" / "result.json", SAMPLES["passing"])


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    json_report.write(path, SAMPLES["passing"])
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            json_report.write(path, SAMPLES["failing"])
            json_report.write(path, SAMPLES["passing"])

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        seen = {json_report.load(path).verdict for _ in range(30)}
    finally:
        stop.set()
        writer.join()
    assert seen <= {Verdict.PASS, Verdict.FAIL}


def test_older_files_may_lack_fields_with_defaults() -> None:
    data = broken("kernels.0.config_rows", None)
    assert json_report.from_dict(data).kernels[0].config_rows == ()


def test_a_file_of_an_older_harness_is_loaded(tmp_path: Path) -> None:
    data = json_report.to_dict(SAMPLES["failing"])
    for key in ("expression", "flaky_passes", "notes", "baseline", "slower", "history"):
        del data[key]
    for test in data["tests"]:
        del test["attempts"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(data))
    assert json_report.load(path) == SAMPLES["failing"]


def test_baseline_history_and_attempts_survive(tmp_path: Path) -> None:
    first = SAMPLES["failing"].tests[0]
    attempt = Attempt(1, "guest", Outcome.FAIL, "b", 1.0, 0.0, "ktap/a.ktap", 1)
    case = CaseStatus("guest", "tsm", "a", ("b",), Change.NEW_FAILURE, None, Outcome.FAIL, "r", "x")
    result = dataclasses.replace(
        SAMPLES["failing"],
        tests=(dataclasses.replace(first, attempts=(attempt, attempt)),),
        baseline=Baseline("r0", "2026-01-01T00:00:00Z", "why", (case,), {"same": 3}),
        slower=(SlowDown("guest:tsm:a", 9.0, 1.0, 2.0, 7),),
        history=(TestHistory("guest:tsm:a", (HistoryPoint("r0", "2026", Outcome.XPASS, 1.0),)),),
    )
    path = tmp_path / "result.json"
    json_report.write(path, result)
    assert json_report.load(path) == result
