"""Scenarios as live traffic or as a past, and which alerts they should make fire.

__main__      play a scenario
alert_states  what Grafana's alerting makes of one series of values: `for`, keep firing, no data, failure
expected      which alerts a simulation should make fire, computed from what was sent, without PromQL
history       A simulated past in a real Prometheus
people        A cohort of people who do not exist
traffic       live traffic of a scenario through the sidecar
world         A simulated service
"""
