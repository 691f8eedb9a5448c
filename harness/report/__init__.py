# SPDX-License-Identifier: GPL-2.0-only
"""Writers of a run's reports. They read model objects and write files."""
