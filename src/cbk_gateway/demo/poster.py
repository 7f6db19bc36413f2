"""What a person sees of the demo: where everything is, lines to paste, and how the tour went."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cbk_gateway.demo.stage import Stage
from cbk_gateway.demo.tour import Step


def show_stage(stage: Stage, console: Console) -> None:
    """Print URLs, tenants, tokens, and lines to try."""
    gateway = stage.gateway
    places = Table("what", "where", title="cbk-gateway demo", title_justify="left")
    places.add_row("API (base URL for SDKs)", gateway.url)
    places.add_row("operators", f"{gateway.admin_url}/metrics  /readyz  /healthz")
    places.add_row("sandbox behind it", f"{stage.sandbox_url}/_sandbox/requests")
    places.add_row("audit journal", str(stage.audit_directory))
    console.print(places)
    tenants = Table("tenant", "scopes", "limit", title="tenants", title_justify="left")
    for tenant in gateway.parts.registry.all().values():
        rate = tenant.limits.rates[0]
        limit = f"{rate.per_second:g} requests/s, burst {rate.burst:g}"
        tenants.add_row(tenant.id, " ".join(tenant.scopes), limit)
    console.print(tenants)
    # Tokens and lines to paste are printed bare: a border or a wrap would break them.
    for name, token in stage.tokens.items():
        console.print(f"\nexport {name.upper()}={token}", soft_wrap=True, highlight=False, markup=False)
    for line in _lines(gateway.url, gateway.admin_url):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print("\nRunning. Ctrl-C stops everything and leaves nothing behind.")


def show_step(step: Step, console: Console) -> None:
    """Print one step of the tour."""
    mark = "[green]ok  [/green]" if step.held else "[red]FAIL[/red]"
    console.print(f"{mark} {step.name}: {step.saw}", soft_wrap=True, highlight=False)


def _lines(url: str, admin_url: str) -> tuple[str, ...]:
    bearer = '-H "Authorization: Bearer $ACME"'
    return (
        "\n# Try it:",
        f"curl -s {bearer} {url}/api/v1/bot/list",
        f'curl -s {bearer} --json \'{{"name":"Ada"}}\' {url}/api/v1/bot/create',
        f"curl -s {admin_url}/metrics | grep cbk_gateway_requests_total",
        "\n# With the official SDK (npm install @chatbotkit/sdk), two words change:",
        'import { ChatBotKit } from "@chatbotkit/sdk"',
        f'const cbk = new ChatBotKit({{ secret: process.env.ACME, baseUrl: "{url}" }})',
        "console.log(await cbk.bot.list())",
    )
