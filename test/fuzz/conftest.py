"""How long the fuzzing takes: a moment in `make test`, as long as FUZZ_EXAMPLES says in `make fuzz`."""

from __future__ import annotations

import os

import hypothesis

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))

# A long run looks for new examples every time; the short one is the same everywhere.
hypothesis.settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    max_examples=EXAMPLES,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
