"""Dashboards and alert rules, generated from short descriptions: `python -m monitoring.grafana`.

__main__  writes the files that Grafana is provisioned with: dashboards and alert rules
lint      checks the files that Grafana is provisioned with, for faults that it hides or reports too late
style     Grafana's classic dashboard JSON (schema version 42) from short descriptions
"""
