"""Settings for every test: property tests have no deadline, since the machine may be busy."""

try:
    from hypothesis import settings
except ImportError:  # not every environment that drives a browser has it
    pass
else:
    settings.register_profile("normviz", deadline=None)
    settings.load_profile("normviz")
