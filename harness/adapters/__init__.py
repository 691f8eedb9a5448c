# SPDX-License-Identifier: GPL-2.0-only
"""One outside resource per file. process.py is the only place that starts processes."""

import sys

# paramiko imports invoke, where it is installed, for `Match exec` in files of ssh_config, which
# nobody reads here. With it come asyncio and unittest.mock, which takes longer than the rest.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
