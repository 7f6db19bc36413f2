"""Builds the Grafana dashboards. `python -m grafana.build` from the top of the repository."""
