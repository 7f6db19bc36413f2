"""The command line: `cbk-gateway`. One file per group of commands; this one ties them together.

Exit codes: 0 done, 1 a check did not hold, 2 wrong usage, 3 unusable configuration, 4 failed at run time.
Errors go to stderr as one plain sentence with the remedy; a traceback is a defect.
"""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from cbk_gateway import __version__
from cbk_gateway.cli import audit, cache, completion, config, explain, limits, sandbox, serve, tenant, token
from cbk_gateway.cli import demo as demonstration
from cbk_gateway.cli.output import USAGE, complain, exit_code_of

HELP = """An API gateway for the ChatBotKit API: identity, limits, exact caching, provable audit.

Begin with `cbk-gateway demo`; `cbk-gateway COMMAND --help` describes each command with an example.

Files: the settings' file of `--config` and the tenants' file that it names. Secrets are never in them: they
are references such as env:NAME or file:PATH.

Environment: CBK_GATEWAY_SECTION__KEY overrides a setting, such as CBK_GATEWAY_LISTEN__PORT=8081.
CBK_GATEWAY_ADMIN_URL and CBK_GATEWAY_ADMIN_TOKEN reach a running gateway. NO_COLOR turns colours off.

Signals of `serve`: TERM and INT drain and end, HUP reads settings and tenants again, USR2 rolls the workers.

Exit codes: 0 done, 1 a check did not hold, 2 wrong usage, 3 unusable configuration, 4 failed at run time.
"""

app = App(
    name="cbk-gateway",
    help=HELP,
    version=__version__,
    version_flags=["--version"],
    # Ctrl-C is how following commands end: `main` gives it its exit code.
    suppress_keyboard_interrupt=False,
)
app.command(serve.serve)
app.command(demonstration.demo)
app.command(sandbox.sandbox)
app.command(explain.explain)
app.command(config.app)
app.command(token.app)
app.command(tenant.app)
app.command(limits.limit)
app.command(limits.quota)
app.command(cache.app)
app.command(audit.app)
completion.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    try:
        result = app(
            sys.argv[1:] if arguments is None else arguments,
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        complain(f"{_sentence(error)} See `cbk-gateway --help`.")
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(0)
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        sys.exit(code)
    sys.exit(result if isinstance(result, int) else 0)


def _sentence(error: CycloptsError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?", "!")) else text + "."
