"""``nmt translate``."""

from __future__ import annotations

import logging

from nmt import options
from nmt.translate.request import Request, check

logger = logging.getLogger(__name__)


@options.takes(Request)
def translate(request: Request) -> None:
    """Translate: one line of output for each line of input, in order.

    Lines of several sentences that are longer than the median dev line are split and joined again.

    \b
      nmt translate "我爱中国"
      nmt translate --show-attention "我爱中国"
      nmt translate --input zh.txt --output en.txt --model runs/tatoeba
      cat zh.txt | nmt translate --int8 > en.txt
      nmt translate --json --input zh.txt | jq 'select(.flags != [])'
      nmt translate --align pharaoh "我爱中国"      # I love China. ||| 0-0 1-1 2-2 3-2
      nmt translate --attention attention.html --input zh.txt --output en.txt
    """
    from nmt.device import starting

    check(request)
    with starting():
        if request.threads is not None:
            import torch

            torch.set_num_threads(request.threads)
        from nmt.run.models import default_model
        from nmt.translate.run import run
        from nmt.translate.translator import Translator

        models = request.model or [default_model(options.RUNS)]
        translator = Translator.load(models, request.device, int8=request.int8)
        translator.change_search(request.search)
        if request.protect == "none":
            translator.protect(None)
        elif request.protect_pattern:
            translator.protect([*(translator.patterns or []), *request.protect_pattern])
    try:
        run(translator, request)
    except KeyboardInterrupt:
        output = options.none_if_stdout(request.output)
        logger.info("interrupted" if output is None else f"interrupted; {output} was not written")
        raise
