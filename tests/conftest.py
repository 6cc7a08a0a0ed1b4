"""How all tests use Hypothesis.

The examples are the same in every run, so that a change fails by what it changed alone;
`pytest --hypothesis-profile=search` looks for others.
"""

from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")
