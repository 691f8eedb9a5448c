# SPDX-License-Identifier: GPL-2.0-only
"""One outside resource per file. process.py is the only place that starts processes."""
