# SPDX-License-Identifier: GPL-2.0-only
"""Frozen dataclasses and enums shared by every layer. Standard library only, no I/O."""
