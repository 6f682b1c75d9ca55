#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The soak, as root: AV_SOAK_MINUTES (8) of random pods, kills and hangs on a real
# containerd. AV_SEED repeats what is random.
set -euo pipefail
AV_SOAK_MINUTES=${AV_SOAK_MINUTES:-8} exec bash "$(dirname "$0")/run.sh" 2.3 "$@"
