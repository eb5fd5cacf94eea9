#!/usr/bin/env bash
# From a fresh clone to a translator: installs, trains on the built-in sample (at most four
# minutes), scores it, translates 我爱中国 and shows what it attended to. Run it again: what
# is done already is not done twice.
set -euo pipefail
NMT_EXTRAS=sample
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

nmt prepare --config configs/quickstart.yaml
nmt train --config configs/quickstart.yaml
echo
nmt evaluate runs/quickstart
echo
nmt translate --model runs/quickstart --show-attention "我爱中国"
