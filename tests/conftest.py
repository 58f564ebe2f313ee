"""Settings for every test; shared fixtures."""

from __future__ import annotations

import os

# Nothing may reach for a model hub, and parallel workers must not fight over the cores. Both are
# read when the libraries are first imported, so they are set before any test module is.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
