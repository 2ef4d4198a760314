"""The limits of the alert rules and of the dashboards' colours.

Drift and calibration have no number here: their limit, one false alarm a year for all of them together, is
the recorded series `version:model_evidence:limit`. The recording rules have the limits of error budgets.
"""

from monitoring.prometheus.service import MOST_DOWN, OBJECTIVES, SLOW_SECONDS

MOST = MOST_DOWN  # of the replicas: as many as that may be down before it is a page
QUEUE_SECONDS = 1.0
WAIT_SECONDS = 5.0
REFUSED_SHARE = 0.01  # of the requests of five minutes
FEWEST_REFUSED = 10
USUAL_REQUESTS = 20  # in the same hour of yesterday and of a week ago, so that none now says something
TRAFFIC_SHARE = 0.05  # of the usual
UNOBSERVED_SHARE = 0.05  # of the answers of 15 minutes
FEWEST_ANSWERS = 100  # by which that share is reckoned at least: one odd body is no share
MISSING_SHARE = 0.05  # above the training rows' own share, with a confidence of 0.999
BAD_SHARE = 0.01  # out of range or of no known level, likewise
ROC_AUC_DROP = 0.02  # under the validation rows' value, two standard errors allowed for
STANDARD_ERRORS = 2
FEWEST_LABELS = 1  # in 7 days, once there were any in 90
OLDEST_MODEL_DAYS = 180
FREE_MEMORY_SHARE = 0.10
FREE_DISK_SHARE = 0.10
RESTARTS = 2  # of one job's processes in an hour
BUDGET_ALARM = 1  # the recorded burn alarm is 1 where both of its windows burn too fast
EVIDENCE_ALARM = 1  # evidence as a multiple of its limit

LATENCY_OBJECTIVE_SECONDS = float(SLOW_SECONDS)
MAY_FAIL = {slo: 1 - objective for slo, objective in OBJECTIVES.items()}
PSI_SMALL, PSI_LARGE = 0.1, 0.25
# Fewest rows, and labels, for a figure on a dashboard.
FEWEST_ROWS_SHOWN, FEWEST_LABELS_SHOWN = 300, 100
DAY = 86_400
