"""Examples of hypothesis per property: few in `make test`, more in `make test-all`, where a test does not say its own."""

from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.load_profile("quick")
