"""The dashboards, one file each.

data       the dashboard *Data*: are the people who come now like those of the training?
model      the dashboard *Model*: does it still rank people well, and do outcomes follow its risks?
people     the dashboard *People*: for the people responsible for patients, in words and in people of 100
runbook    the runbook as a dashboard, so that links in messages need only this Grafana
service    the dashboard *Service*: are predictions given, quickly, and is the service watched?
variables  variables and words that several dashboards share
"""
