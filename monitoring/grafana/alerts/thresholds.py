"""From where on a figure is a matter for people: the alert rules and the dashboards' colours both read this.

Drift and calibration have no number here: their limit, one false alarm a year for all of them together, is
the recorded series `version:model_evidence:limit`; what burns an error budget is the recording rules' matter.
"""

SILENT_SECONDS = 60  # the health check asks the model every 10 s
QUEUE_SECONDS = 1.0
FEWEST_REQUESTS = 1  # in an hour
MISSING_SHARE = 0.05  # above the training rows' own share, with a confidence of 0.999
BAD_SHARE = 0.01  # out of range or of no known level, likewise
ROC_AUC_DROP = 0.02  # under the validation rows' value, two standard errors allowed for
STANDARD_ERRORS = 2
FEWEST_LABELS = 1  # in 7 days, once there were any in 90
OLDEST_MODEL_DAYS = 180
FREE_MEMORY_SHARE = 0.10
FREE_DISK_SHARE = 0.10
RESTARTS = 2  # of one container in an hour
BUDGET_ALARM = 1  # the recorded burn alarm is 1 where both of its windows burn too fast
EVIDENCE_ALARM = 1  # evidence as a multiple of its limit

LATENCY_OBJECTIVE_SECONDS = 0.25
PSI_SMALL, PSI_LARGE = 0.1, 0.25
DAY = 86_400
