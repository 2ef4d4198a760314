"""The recording rules, written from formulas: `python -m monitoring.prometheus`.

__main__     writes the recording rules
by_group     who is flagged, found and missed, by the groups of people that the schema names
drift        drift of features and of the score: PSI, evidence, the alarm, and when it ends
performance  how well the model does: expected without labels, and realised by labels that come late
promql       what all recording rules are written with
service      rate, errors, latency and error budget of /invocations, and whether the model answers at all
"""
