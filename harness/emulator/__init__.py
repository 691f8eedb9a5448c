# SPDX-License-Identifier: GPL-2.0-only
"""The emulated TEE-IO platform: pure state machines and a thin vfio-user server."""
