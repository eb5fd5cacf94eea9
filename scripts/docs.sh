#!/usr/bin/env bash
# Build the documentation site into site/. Broken links and anchors fail the build.
# Arguments go to mkdocs: bash scripts/docs.sh --site-dir /tmp/site
set -euo pipefail
NMT_EXTRAS=docs
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

mkdocs build --strict "$@"
