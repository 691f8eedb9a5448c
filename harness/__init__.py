# SPDX-License-Identifier: GPL-2.0-only
"""Linux kernel-tree test harness for device trust in confidential VMs (TDISP)."""

__version__ = "0.1.0"
