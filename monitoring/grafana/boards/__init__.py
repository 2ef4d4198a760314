"""The dashboards, one file each.

data       the dashboard *Data*: are the people who come now like those of the training?
model      the dashboard *Model*: does it still rank people well, and do outcomes follow its risks?
people     the dashboard *People*: for whoever answers for the patients, in words and in people of 100
runbook    the runbook as a dashboard, so that a link in a message needs nothing but this Grafana
service    the dashboard *Service*: are predictions given, quickly, and does anybody watch?
variables  variables and words that several dashboards share
"""
