"""Watching a served model: the sidecar, Prometheus, Grafana, the simulation and the deployment.

predict    risk for one person given as options, or for all people in a CSV file, from the served model
reference  the reference of a model (`reference.json`, format 1) and the binning of rows
"""
