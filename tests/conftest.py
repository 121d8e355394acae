"""Settings shared by all tests."""

import os

import hypothesis

# "ci" repeats the same examples everywhere; "deep" searches further: HYPOTHESIS_PROFILE=deep.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
