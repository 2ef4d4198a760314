"""The alert rules and what they share with the dashboards.

queries     promQL that both an alert rule and a panel need
rules       the alert rules, one entry each
thresholds  from where on a figure is a matter for people
"""
