# SPDX-License-Identifier: GPL-2.0-only
"""source -> patch -> config -> build -> boot -> deploy -> selftest -> collect, one file each."""
