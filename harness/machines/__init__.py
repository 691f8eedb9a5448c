# SPDX-License-Identifier: GPL-2.0-only
"""Machines that boot kernels: QEMU on the controller, QEMU on a host machine, lab machines."""
