"""The dashboard *Service*: are predictions given, quickly, and does anybody watch?"""

from __future__ import annotations

from monitoring.grafana.alerts import queries, thresholds
from monitoring.grafana.boards.variables import INSTANCE, REPLICAS, happened
from monitoring.grafana.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Look,
    Panel,
    Range,
    Scale,
    Size,
    above,
    alert_list,
    dashboard,
    graph,
    heatmap,
    labels_table,
    marks,
    query,
    row,
    stat,
    style,
    verdict,
)

UID = "service"
VERSION_CHANGE = marks(
    "Model versions",
    "count by (model_name, model_version) (model_info)"
    # Not where the sidecar was only away.
    " unless count by (model_name, model_version) (last_over_time(model_info[1d] offset 2m))",
    "{{model_name}} version {{model_version}}",
    colour=BLUE,
)
_STATUS_COLOURS = [
    style("2xx", color=GREEN),
    style("3xx", color=BLUE),
    style("4xx", color=ORANGE),
    style("5xx", color=RED),
]
_QUANTILES = [
    style("half", color="semi-dark-blue"),
    style("95 of 100", color=ORANGE),
    style("99 of 100", color=RED),
    style("objective", color=GREY, dash=True, fill=0),
]
# From milliseconds to the objective, which is a line and not a threshold: an axis reaches its lines.
_TIMES = Scale(unit="s", log="positive")
_OBJECTIVE = query(f"vector({thresholds.LATENCY_OBJECTIVE_SECONDS})", "objective")
# None of them is bad, so none is red.
_BATCH_COLOURS = [
    style("idle", color=GREEN),
    style("upstream_free", color=BLUE),
    style("clients_back", color="light-blue"),
    style("wait_over", color="purple"),
    style("full", color="yellow"),
    style("alone", color=GREY),
    style("after_failure", color=ORANGE),
]
# Ours in warm colours, the client's in cold ones; ten of the palette's own would repeat.
_REFUSAL_COLOURS = [
    style("upstream", color=RED),
    style("internal", color="dark-red"),
    style("overload", color=ORANGE),
    style("stopping", color="yellow"),
    style("guard", color="purple"),
    style("malformed", color=BLUE),
    style("too_large", color="dark-blue"),
    style("unauthorized", color="light-blue"),
    style("method", color="super-light-blue"),
    style("not_found", color=GREY),
]


def _budget(slo: str) -> str:
    """0 while the budget lasts, 1 while it burns at a ticket's rate, 2 or more at a page's."""
    page, ticket = queries.burn(slo, "page"), queries.burn(slo, "ticket")
    return f"2 * ({page} >= bool 1) + ({ticket} >= bool 1)"


def _quantile_queries(metric: str) -> list[Panel]:
    names = {"0.5": "half", "0.95": "95 of 100", "0.99": "99 of 100"}
    return [
        query(f'quantile:{metric}:rate5m{{quantile="{quantile}"}}', name) for quantile, name in names.items()
    ]


_SERVED = "model_name, model_version, synthetic, family, data_kind"
# Kept for an hour, so that the page says what ran while the sidecar is away.
_STARTED = "(last_over_time(process_start_time_seconds[1h]) * 1000)"


def _well() -> list[Panel]:
    burning: list[Range] = [
        (0, 0.5, "OK", GREEN),
        (0.5, 1.5, "SLOW BURN", ORANGE),
        (1.5, None, "FAST BURN", RED),
    ]
    return [
        verdict(
            *("Model", "Has the model answered within a minute, for every replica?", queries.MODELS_DOWN),
            [
                (0, 0.001, "UP", GREEN),
                (0.001, thresholds.MOST + 0.001, "SOME DOWN", ORANGE),
                (thresholds.MOST + 0.001, None, "DOWN", RED),
            ],
        ),
        verdict(
            *("Sidecar", "Can every replica be scraped?", queries.SIDECARS_UP),
            [
                (1, None, "UP", GREEN),
                (thresholds.MOST, 1, "SOME DOWN", ORANGE),
                (None, thresholds.MOST, "DOWN", RED),
            ],
        ),
        verdict(
            "Pair",
            "Does the container give the scores that the sidecar's reference knows for its golden rows?",
            queries.PAIR_MATCHES,
            [(1, None, "MATCHES", GREEN), (None, 1, "MISMATCH", RED)],
        ),
        verdict(
            "Error budget",
            "99.5 % of requests shall get no 5xx. Does the month's budget of failures burn too fast?",
            *(_budget("availability"), burning),
        ),
        verdict(
            "Latency",
            "99 % of answers shall take at most 250 ms. Does the month's budget of slow ones burn too fast?",
            *(_budget("latency"), burning),
        ),
        verdict(
            "Load",
            "Is anybody refused, or does the oldest waiting request wait for longer than a second?",
            f"(({queries.OVERLOAD}) >= bool {thresholds.REFUSED_SHARE}) * 2\n"
            f"+ ({queries.WAITING} > bool {thresholds.QUEUE_SECONDS:g})",
            [(0, 0.5, "OK", GREEN), (0.5, 1.5, "QUEUEING", ORANGE), (1.5, None, "REFUSING", RED)],
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        row("Requests and errors"),
        graph(
            "Requests",
            "Requests for predictions, by status class.",
            [query("status:sidecar_requests:rate5m", "{{status}}")],
            look=Look(stacked=True),
            overrides=_STATUS_COLOURS,
            scale=Scale(unit="reqps"),
        ),
        graph(
            "Burn rate of the error budget",
            "Share of bad answers as a multiple of what the objective allows: 1 spends the month's "
            "budget in a month, 14.4 spends 2 % of it in an hour.",
            [
                query('slo_window:sidecar_error_budget:burn_rate{window=~"1h|6h|3d"}', "{{slo}} {{window}}"),
            ],
            scale=Scale(steps=above(1, 14.4), decimals=2),
        ),
        graph(
            "Failing and slow answers",
            "Share of requests answered with 5xx, and of answers slower than 250 ms, in the last hour.",
            [
                query('slo_window:sidecar_requests_bad:ratio{slo="availability",window="1h"}', "5xx"),
                query(
                    'slo_window:sidecar_requests_bad:ratio{slo="latency",window="1h"}', "slower than 250 ms"
                ),
            ],
            overrides=[style("5xx", color=RED), style("slower than 250 ms", color=ORANGE)],
            scale=Scale(unit="percentunit", at_least=0.02),
        ),
        graph(
            "Refused requests",
            "Answers of the sidecar's own making, by reason; overload is 503, upstream is 502 or 504.",
            [
                query(
                    happened("reason", "rate", f"sidecar_requests_refused_total{REPLICAS}", "5m"),
                    "{{reason}}",
                )
            ],
            look=Look(stacked=True),
            overrides=_REFUSAL_COLOURS,
            scale=Scale(unit="reqps", at_least=1, nothing="none"),
        ),
        graph(
            "Calls of the model that failed",
            "Calls of the container that got no answer, by cause.",
            [
                query(
                    happened("cause", "rate", f"sidecar_upstream_failures_total{REPLICAS}", "5m"), "{{cause}}"
                )
            ],
            scale=Scale(unit="cps", at_least=1, nothing="none"),
        ),
        graph(
            "Rows",
            "Rows with a prediction; one request may hold many.",
            [query('sum(rate(sidecar_rows_total{instance=~"$instance"}[5m]))', "rows")],
            scale=Scale(unit="cps"),
        ),
    ]


def _latency() -> list[Panel]:
    return [
        row("Latency"),
        graph(
            "Time to answer",
            "Half, 95 and 99 of 100 requests are answered within this time. The dashed line is the "
            "objective.",
            [*_quantile_queries("sidecar_request_duration_seconds"), _OBJECTIVE],
            overrides=_QUANTILES,
            scale=_TIMES,
        ),
        graph(
            "Time of the model itself",
            "The part of it that the container takes for one call, which may hold many requests.",
            [*_quantile_queries("sidecar_upstream_duration_seconds"), _OBJECTIVE],
            overrides=_QUANTILES,
            scale=_TIMES,
        ),
        heatmap(
            "Times to answer",
            "How many requests took how long; the bar below says which colour is more.",
            'sum by (le) (increase(sidecar_request_duration_seconds_bucket{instance=~"$instance"}'
            "[$__rate_interval]))",
        ),
        graph(
            "Waiting",
            "Clients' connections, requests in the sidecar, those that wait to be sent, and for how long.",
            [
                query('sum(sidecar_connections{instance=~"$instance"})', "connections"),
                query('sum(sidecar_queue_requests{instance=~"$instance"})', "waiting"),
                query('sum(sidecar_requests_in_flight{instance=~"$instance"})', "in the sidecar"),
                query('max(sidecar_queue_oldest_wait_seconds{instance=~"$instance"})', "oldest wait"),
            ],
            overrides=[style("oldest wait", unit="s", right_axis=True, color=ORANGE, at_least=1)],
            scale=Scale(unit="short", at_least=2),
        ),
    ]


def _batching() -> list[Panel]:
    return [
        row("Batching"),
        graph(
            "Requests in a batch",
            "Mean number of requests that travelled together; 1 while there is little traffic.",
            [
                query(
                    'sum(rate(sidecar_batch_requests_sum{instance=~"$instance"}[5m]))'
                    ' / sum(rate(sidecar_batch_requests_count{instance=~"$instance"}[5m]))',
                    "requests",
                )
            ],
            size=Size(8, 8),
            scale=Scale(decimals=1),
        ),
        graph(
            "Why batches were sent",
            "idle: nothing was in flight; upstream_free: the last call came back; clients_back: those just "
            "answered had returned; wait_over: the longest wait was over; full; alone: not to be merged.",
            [query('sum by (reason) (rate(sidecar_batches_total{instance=~"$instance"}[5m]))', "{{reason}}")],
            look=Look(stacked=True),
            overrides=_BATCH_COLOURS,
            size=Size(8, 8),
            scale=Scale(unit="cps"),
        ),
        graph(
            "Forms that travel alone",
            "Forms of request whose answers did not hold one prediction a row: for a minute they are not"
            " merged.",
            [query('sum(sidecar_batching_suspended_forms{instance=~"$instance"})', "forms")],
            scale=Scale(decimals=0, at_least=2),
            size=Size(8, 8),
        ),
    ]


def _replicas() -> list[Panel]:
    chosen = '{instance=~"$instance"}'
    buckets = f"sidecar_request_duration_seconds_bucket{chosen}"
    return [
        row("One replica by another"),
        graph(
            "Requests of each replica",
            "Requests for predictions that each sidecar answered.",
            [
                query(
                    "sum by (instance) (rate(sidecar_requests_total"
                    '{endpoint="invocations",instance=~"$instance"}[5m]))',
                    "{{instance}}",
                )
            ],
            scale=Scale(unit="reqps", at_least=1),
            size=Size(8, 7),
        ),
        graph(
            "Time to answer of each replica",
            "99 of 100 requests are answered within this time.",
            [
                query(
                    f"histogram_quantile(0.99, sum by (instance, le) (rate({buckets}[5m])))", "{{instance}}"
                ),
                _OBJECTIVE,
            ],
            legend="below",
            overrides=_QUANTILES[-1:],
            scale=_TIMES,
            size=Size(8, 7),
        ),
        graph(
            "Since the model last answered",
            "Each sidecar asks its model every few seconds, also without traffic.",
            [
                query(
                    f"max by (instance) (time() - sidecar_upstream_contact_timestamp_seconds{chosen})",
                    "{{instance}}",
                )
            ],
            scale=Scale(unit="s", at_least=60),
            size=Size(8, 7),
        ),
    ]


def _host() -> list[Panel]:
    return [
        row("Host and processes"),
        graph(
            "Processor in use",
            "Share of the host's processors that work.",
            [query('1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m]))', "processors")],
            size=Size(6, 8),
            scale=Scale(unit="percentunit", maximum=1, nothing="not watched", steps=above(0.8, 0.95)),
        ),
        graph(
            "Memory in use",
            "Share of the host's memory that is neither free nor can be freed at once.",
            [query(f"1 - {queries.FREE_MEMORY}", "memory")],
            size=Size(6, 8),
            scale=Scale(
                unit="percentunit",
                maximum=1,
                nothing="not watched",
                steps=above(0.8, 1 - thresholds.FREE_MEMORY_SHARE),
            ),
        ),
        graph(
            "Disk in use",
            "Share of each disk that is taken.",
            [
                query(f"1 - {queries.FREE_DISK}", "{{mountpoint}}"),
            ],
            size=Size(6, 8),
            scale=Scale(
                unit="percentunit",
                maximum=1,
                nothing="not watched",
                steps=above(0.8, 1 - thresholds.FREE_DISK_SHARE),
            ),
        ),
        graph(
            "Restarts in an hour",
            "How often what Prometheus scrapes was started again in the last hour.",
            [query(queries.RESTARTED, "{{job}}")],
            size=Size(6, 8),
            scale=Scale(
                steps=above(1, thresholds.RESTARTS + 1), at_least=thresholds.RESTARTS + 2, decimals=0
            ),
        ),
        graph(
            "Memory of the processes",
            "What each process holds that Prometheus scrapes; the model tells none.",
            [query("sum by (job) (process_resident_memory_bytes)", "{{job}}")],
            scale=Scale(unit="bytes"),
        ),
        graph(
            "Processor of the processes",
            "Processors that each of them keeps busy.",
            [query("sum by (job) (rate(process_cpu_seconds_total[5m]))", "{{job}}")],
            scale=Scale(unit="none", decimals=3),
        ),
    ]


def _now() -> list[Panel]:
    return [
        labels_table(
            "Served",
            "Each model that a sidecar stands before, with when it was last deployed; one line while nothing"
            " is being deployed.",
            f"max by ({_SERVED}) (last_over_time(model_info[1h])"
            f" * on (job, instance) group_left () {_STARTED})",
            {
                "model": "model_name",
                "version": "model_version",
                "since": "Value",
                "made-up people": "synthetic",
                "family": "family",
                "data": "data_kind",
            },
            size=Size(16, 5),
            overrides=[
                style("model", column_width=170),
                style("version", column_width=65),
                style("since", column_width=115, unit="dateTimeFromNow"),
            ],
        ),
        stat(
            "Left of the error budgets",
            "Of 30 days: 1,000 requests may hold 5 failures, and 100 answers one slower than 250 ms. Below 0"
            " the budget is overspent.",
            [query("slo:sidecar_error_budget:remaining_ratio", "{{slo}}", instant=True)],
            text="value_and_name",
            size=Size(8, 5),
            scale=Scale(unit="percentunit", decimals=0, steps=((None, RED), (0, ORANGE), (0.25, GREEN))),
        ),
        alert_list("Critical", "Somebody has to act now.", severity="critical"),
        alert_list("Warnings", "For the next working day.", severity="warning"),
    ]


def _watching() -> list[Panel]:
    return [
        row("Who watches"),
        stat(
            "Scraped",
            "Targets that Prometheus can scrape, and all of them.",
            [query("sum(up)", "up", instant=True), query("count(up)", "of", instant=True)],
            text="value_and_name",
            size=Size(6, 7),
        ),
        graph(
            "Evaluations that failed",
            "Evaluations of recording rules and of alert rules that failed or were missed in 11 minutes.",
            [query(queries.RULES_FAIL, "evaluations")],
            size=Size(9, 7),
            scale=Scale(steps=above(None, 1), at_least=2, decimals=0),
        ),
        graph(
            "Messages that failed",
            "Messages of alerts that were not delivered in an hour, by channel.",
            [query(queries.MESSAGES_FAIL, "{{integration}}")],
            size=Size(9, 7),
            scale=Scale(nothing="none", steps=above(None, 1), at_least=2, decimals=0),
        ),
        graph(
            "What the sidecar could not observe",
            "Bodies it could not read, answers it could not count, tokens it could not sign. "
            "Forwarding is not touched.",
            [
                query(
                    happened("part", "increase", f"sidecar_observation_failures_total{REPLICAS}", "1h"),
                    "{{part}}",
                )
            ],
            size=Size(8, 7),
            scale=Scale(steps=above(None, 1), at_least=2, decimals=0, nothing="none"),
        ),
        graph(
            "Rows and labels dropped at a stop",
            "Those of lots that were not full yet, in a day: fewer than ten of a kind and group. A sidecar"
            " counts them in its last moment, so Prometheus sees them only if it scrapes then.",
            [
                query(
                    happened("kind", "increase", f"sidecar_lot_rows_dropped_total{REPLICAS}", "1d"),
                    "{{kind}}",
                )
            ],
            scale=Scale(decimals=0, at_least=10, nothing="none"),
            size=Size(8, 7),
        ),
        graph(
            "The sidecar's own load",
            "The sidecar's own processor and memory.",
            [
                query(
                    'sum(rate(process_cpu_seconds_total{job="exporter",instance=~"$instance"}[5m]))',
                    "processors",
                ),
                query('sum(process_resident_memory_bytes{job="exporter",instance=~"$instance"})', "memory"),
            ],
            overrides=[style("memory", unit="bytes", right_axis=True)],
            size=Size(8, 7),
            scale=Scale(decimals=2, at_least=0.1),
        ),
    ]


def board() -> Panel:
    """The whole dashboard."""
    return dashboard(
        UID,
        "Service",
        "Are predictions given, quickly, and does anybody watch?",
        [*_now(), *_well(), *_traffic(), *_latency(), *_batching(), *_replicas(), *_host(), *_watching()],
        variables=[INSTANCE],
        annotations=[VERSION_CHANGE],
        since="now-6h",
    )
