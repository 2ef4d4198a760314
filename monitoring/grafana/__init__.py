"""Dashboards and alert rules, written from short descriptions: `python -m monitoring.grafana`.

__main__  writes what Grafana is provisioned with: the dashboards and the alert rules
lint      what Grafana would not say, or would say too late, about the files that it is provisioned with
style     Grafana's classic dashboard JSON (schema version 42) from short descriptions
"""
