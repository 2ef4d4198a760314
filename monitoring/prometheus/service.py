"""Rate, errors, latency and error budget of /invocations, and whether the model answers."""

from __future__ import annotations

from monitoring.prometheus.promql import Counted, Rule, day_windows, rule, short_windows

SHORT = ("5m", "30m", "1h", "2h", "6h")
DAYS = ("1d", "3d", "30d")

# Share of /invocations answered without a 5xx, and share answered within SLOW_SECONDS (the edge of a bucket).
OBJECTIVES = {"availability": 0.995, "latency": 0.99}
SLOW_SECONDS = "0.25"
# Severity, long window, short window, burn rate: they spend 2, 5, 10 and 10 % of a 30-day error budget (Beyer
# et al., The Site Reliability Workbook, 2018, chapter 5). One error in ten requests is no fire, nor in
# 33: the long window has to hold MIN_REQUESTS requests, and MIN_BAD that missed the objective.
BURN_ALARMS = (
    ("page", "1h", "5m", 14.4),
    ("page", "6h", "30m", 6),
    ("ticket", "1d", "2h", 3),
    ("ticket", "3d", "6h", 1),
)
MIN_REQUESTS = 20
MIN_BAD = 5
# A sidecar asks a model that has been silent for 15 s, and is scraped every 15 s.
SILENT_SECONDS = 60
# As many of the replicas may be down, and the error budget's alarms speak; above it "Model down" does.
MOST_DOWN = 0.5

_INVOCATIONS, _FAILED = '{endpoint="invocations"}', '{endpoint="invocations",status="5xx"}'
_DURATION = "sidecar_request_duration_seconds"
COUNTED = {
    part: Counted(f"window:{name}:increase", f"{name}:increase1d", counter)
    for part, name, counter in (
        ("requests", "sidecar_requests", f"sidecar_requests_total{_INVOCATIONS}"),
        ("errors", "sidecar_request_errors", f"sidecar_requests_total{_FAILED}"),
        ("timed", "sidecar_requests_timed", f"{_DURATION}_count"),
        ("fast", "sidecar_requests_fast", f'{_DURATION}_bucket{{le="{SLOW_SECONDS}"}}'),
    )
}
MODEL_DOWN = "job:sidecar_upstream_down:ratio"


def day_rules() -> list[Rule]:
    """Requests in windows of days."""
    return [day_rule for counted in COUNTED.values() for day_rule in day_windows(counted, DAYS)]


def rules() -> list[Rule]:
    """Rates, shares and alarms; those of windows of days read the series of `day_rules`."""
    requests, errors, timed, fast = (COUNTED[part].name for part in ("requests", "errors", "timed", "fast"))
    bad, burn = "slo_window:sidecar_requests_bad:ratio", "slo_window:sidecar_error_budget:burn_rate"
    silent = f"time() - sidecar_upstream_contact_timestamp_seconds > bool {SILENT_SECONDS}"
    return [
        rule(
            "status:sidecar_requests:rate5m",
            f"sum by (status) (rate(sidecar_requests_total{_INVOCATIONS}[5m]))",
        ),
        *(
            rule(
                f"quantile:{metric}:rate5m",
                f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket[5m])))",
                quantile=quantile,
            )
            for metric in (_DURATION, "sidecar_upstream_duration_seconds")
            for quantile in ("0.5", "0.95", "0.99")
        ),
        # The share of sidecars whose model has given no answer for a minute.
        rule(MODEL_DOWN, f"avg({silent})"),
        *(short for counted in COUNTED.values() for short in short_windows(counted, SHORT)),
        # 0 without requests.
        rule(bad, f"{errors} / ({requests} > 0) or 0 * {requests}", slo="availability"),
        rule(bad, f"1 - {fast} / ({timed} > 0) or 0 * {timed}", slo="latency"),
        *(
            rule(burn, f'{bad}{{slo="{slo}"}} / {1 - objective:.4g}', slo=slo)
            for slo, objective in OBJECTIVES.items()
        ),
        # The remaining budget of 30 days: 1 is all of it, below 0 it is overspent.
        rule("slo:sidecar_error_budget:remaining_ratio", f'1 - sum by (slo) ({burn}{{window="30d"}})'),
        *(_burn_alarm(burn, bad, requests, *alarm) for alarm in BURN_ALARMS),
    ]


def _burn_alarm(
    burn: str, bad: str, requests: str, severity: str, long: str, short: str, factor: float
) -> Rule:
    """From 1 on both windows of a pair burn too fast.

    0 while most models are down and until that has left the short window, since another alarm reports it.
    """
    in_long = f'{{window="{long}"}}'
    count = f"sum by (slo) ({bad}{in_long} * on () group_left () {requests}{in_long})"
    return rule(
        "severity_slo_windows:sidecar_error_budget:burn_alarm",
        f'min by (slo) ({burn}{{window=~"{long}|{short}"}}) / {factor}\n'
        f"* on () group_left () ({requests}{in_long} >= bool {MIN_REQUESTS})\n"
        # Half a request less, since a count is what an increase makes of it.
        f"* on (slo) ({count} >= bool {MIN_BAD - 0.5})\n"
        f"* on () group_left () (max_over_time({MODEL_DOWN}[{short}]) <= bool {MOST_DOWN} or vector(1))",
        severity=severity,
        windows=f"{long} {short}",
    )
