"""``nmt serve``."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from nmt import options
from nmt.errors import NmtError

_LIMITS = "Limits"  # heading of the help


def serve(
    model: options.Model = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address: --host 0.0.0.0 is all.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port; 0 is a free one.")
    ] = 5000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar="NMT_API_KEY",
            help="Require this key, or one of several. Repeatable.",
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Allow another host than loopback without a key.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Use 8-bit integer matmuls: faster, CPU only.")
    ] = False,
    device: options.Device = "auto",
    char_limit: Annotated[
        int,
        typer.Option(
            "--char-limit",
            min=-1,
            metavar="N",
            help="Characters of a request; -1 is unlimited.",
            rich_help_panel=_LIMITS,
        ),
    ] = 20_000,
    batch_limit: Annotated[
        int,
        typer.Option(
            "--batch-limit",
            min=-1,
            metavar="N",
            help="Texts of a request; -1 is unlimited.",
            rich_help_panel=_LIMITS,
        ),
    ] = 256,
    rate_limit: Annotated[
        int | None,
        typer.Option(
            "--rate-limit",
            min=1,
            metavar="N",
            help="Requests of a client per minute; default: unlimited.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
) -> None:
    """Serve translations over HTTP, for clients of LibreTranslate and on a page.

    \b
      nmt serve                                  # http://127.0.0.1:5000/
      nmt serve --model runs/tatoeba --int8 --port 8080
      nmt serve --host 0.0.0.0 --api-key 7d1f0c… --rate-limit 60
      curl -d q=我爱中国 -d source=zh -d target=en http://127.0.0.1:5000/translate
    """
    from nmt.device import starting

    with contextlib.ExitStack() as stack:
        with starting():
            try:
                from nmt.serve.server import is_loopback, listen, run
            except ModuleNotFoundError as error:
                if error.name not in ("starlette", "uvicorn", "h11"):
                    raise
                raise NmtError(
                    f"nmt serve needs {error.name}", 'pip install "nmt-zh-en[serve]"'
                ) from None
            keys = tuple(key for key in api_key or () if key)
            if not keys and not public and not is_loopback(host):
                raise NmtError(
                    f"--host {host}: everyone on the network could use the server",
                    "add --api-key KEY, or --public to allow it",
                )
            listener = stack.enter_context(listen(host, port))  # before seconds of loading
            from nmt.run.models import default_model
            from nmt.serve.app import Settings, create_app
            from nmt.translate.translator import Translator

            translator = Translator.load(model or default_model(options.RUNS), device, int8=int8)
        settings = Settings(
            char_limit=None if char_limit < 0 else char_limit,
            batch_limit=None if batch_limit < 0 else batch_limit,
            rate_limit=rate_limit,
            api_keys=keys,
        )
        run(create_app(translator, settings), listener)
