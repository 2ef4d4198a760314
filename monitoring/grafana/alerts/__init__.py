"""The alert rules and what they share with the dashboards.

queries     promQL that both an alert rule and a panel need
rules       the alert rules, one entry each
thresholds  the limits of alert rules and of dashboards' colours
"""
