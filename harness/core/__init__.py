# SPDX-License-Identifier: GPL-2.0-only
"""Pure logic: text or model in, model out. No I/O, no clock, no randomness."""
