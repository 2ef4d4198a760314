"""Scenarios as live traffic or as a simulated past, and the alerts that they should fire.

__main__      play a scenario
alert_states  the state of a Grafana alert for one series: `for`, keep firing, no data, failure
expected      the alerts that a simulation should fire, computed from its requests, without PromQL
history       a simulated past in a real Prometheus
people        a cohort of people who do not exist
traffic       live traffic of a scenario through the sidecar
world         a simulated service
"""
