"""Examples of hypothesis per property that does not set its own: few in `make test`, more in `make test-all`."""

from hypothesis import settings

settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.load_profile("quick")
