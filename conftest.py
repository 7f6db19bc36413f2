"""Where the suites' shared plugins are named; pytest allows it at the root only."""

pytest_plugins = ["stage_fixtures"]
