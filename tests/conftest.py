"""Hypothesis profiles of all tests.

The default profile draws the same examples in every run, so that only a change to the code can
make a test fail. `pytest --hypothesis-profile=search` draws others.
"""

from hypothesis import HealthCheck, settings

# No deadline: the time of an example depends on the machine, not on the code.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")
