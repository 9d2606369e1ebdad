"""What every tier shares: one thread for each library that would take all cores, and no hub but the ones that a test makes."""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
for name in [
    name
    for name in os.environ
    if name.startswith("MODELYARD_") and name not in {"MODELYARD_REAL_HUBS", "MODELYARD_TEST_CLUSTER", "MODELYARD_REGENERATE"}
]:
    del os.environ[name]  # a developer's own defaults are no part of a test
