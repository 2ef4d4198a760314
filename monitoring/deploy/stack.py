"""Start every service of the stack that this machine can run, each independently of the others.

No service waits for another: alerting must start even if the model does not. A service is left out with a
warning if its image is not available. So is a service with a profile, which only watches the machine, if the
engine refuses its mounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitoring.deploy.docker import (
    COMPOSE,
    Service,
    containers,
    docker,
    have_image,
    seconds_to_health,
    services,
)
from steps.data.errors import UserError

START_SECONDS = 240.0
WITHOUT = {
    "prometheus": "nothing is counted and no alert can fire",
    "grafana": "there are no dashboards and no alerts",
    "node-exporter": "memory and disks of this machine are not watched",
}


def bring_up(environment: Mapping[str, str]) -> list[str]:
    """Start every available service and wait until it is healthy; returns a warning for each missing service.

    Raises:
        UserError: model, sidecar, Prometheus or Grafana did not become healthy. The other services run.
    """
    available, warnings = with_images(services(environment))
    started: list[Service] = []
    for service in available:
        try:
            docker(
                *(*COMPOSE, "up", "--detach", "--no-deps", "--pull", "never", service.name),
                environment=environment,
            )
        except UserError as error:
            if not service.profiles:
                raise
            warnings.append(left_out(service, error))
        else:
            started.append(service)
    problems = [problem for service in started for problem in unhealthy(service, environment)]
    if problems:
        raise UserError("\n".join([*problems, *warnings, "Everything else runs, and alerts about it"]))
    return warnings


def with_images(all_services: Sequence[Service]) -> tuple[list[Service], list[str]]:
    """The services whose image is here or can be pulled, and a warning for each other service."""
    available, warnings = [], []
    for service in all_services:
        try:
            have_image(service.image)
        except UserError as error:
            warnings.append(left_out(service, error))
        else:
            available.append(service)
    return available, warnings


def left_out(service: Service, error: UserError) -> str:
    """The warning about a service that does not run, its consequence and the engine's reason."""
    reason = str(error).splitlines()[-1]
    consequence = WITHOUT.get(service.name, "predictions fail")
    return f"warning: {service.name} ({service.image}) does not run, so {consequence}: {reason}"


def unhealthy(service: Service, environment: Mapping[str, str]) -> list[str]:
    """A line with the end of the log for each container of a service that is not healthy in time."""
    problems = []
    for container in containers(service.name, environment):
        try:
            seconds_to_health(container, START_SECONDS)
        except UserError as error:
            problems.append(f"{service.name}: {error}")
    return problems


def addresses(environment: Mapping[str, str]) -> list[str]:
    """Addresses of the running services, for callers and people."""
    lines = []
    for service, port, purpose in (
        ("exporter", "8000", "/invocations takes predictions"),
        (
            "grafana",
            "3000",
            "is Grafana: admin, password in monitoring/deploy/secrets/grafana_admin_password",
        ),
    ):
        for container in sorted(containers(service, environment)):
            published = docker("port", container, f"{port}/tcp").splitlines()[0]
            lines.append(f"http://{published}{'' if purpose.startswith('/') else ' '}{purpose}")
    return lines
