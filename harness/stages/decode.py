# SPDX-License-Identifier: GPL-2.0-only
"""Call traces of the splats found, with the source lines that the builds know."""

from __future__ import annotations

from collections.abc import Mapping

from harness.adapters.symbols import Decoder
from harness.core.kconfig import parse_config
from harness.model.kernel import KernelBuild, Role
from harness.stages.recorder import Recorder

_MAX_TRACES = 200  # per role


def decode_traces(recorder: Recorder, builds: Mapping[Role, KernelBuild]) -> None:
    """Record what the traces mean; one that cannot be decoded stays without. Never raises."""
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for role, build in builds.items():
        records = [
            record
            for record in recorder.result.splats
            if record.role == role.value and record.splat.trace
        ][:_MAX_TRACES]
        if not records:
            continue
        # the table's addresses are those of a kernel that was not moved at boot
        moved = parse_config(build.config.read_text()).get("RANDOMIZE_BASE") == "y"
        table = None if moved else build.system_map
        decoder = Decoder(build.vmlinux, table, build.modules)
        decoded = decoder.decode([record.splat.trace for record in records])
        for record, trace in zip(records, decoded, strict=True):
            if trace != record.splat.trace:
                found[record.machine, record.splat.start_line] = trace
    if found:
        recorder.decoded(found)
