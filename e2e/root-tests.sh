#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The tests that need root: those marked `#[ignore = "needs root…"]`, in a mount
# namespace of their own, so that whatever they mount ends with them. The daemon is
# built with crash points for them.
set -euo pipefail
cd "$(dirname "$0")/.."
exec unshare --mount --propagation private sh -c '
    mount --make-rshared / &&
    exec cargo test --locked --workspace --no-fail-fast --features actor-volumes/crash-points -- --ignored'
