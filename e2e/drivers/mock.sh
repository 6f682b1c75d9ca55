#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs our control plane against the mock driver of Kubernetes' storage tests, as
# root:
#
#   e2e/drivers/mock.sh [FILTER]
#
# Where the driver cannot be had, a line `skip csi-mock: REASON` goes to the file
# that AV_SKIPS names.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$(dirname "$here")")
setup=$repo/e2e/tools/setup.sh

[ "$(id -u)" = 0 ] || { echo "e2e/drivers/mock.sh must run as root: the node agent looks at mounts" >&2; exit 1; }
"$setup" csi-mock
mock=$("$setup" --path csi-mock 2> /dev/null) || exit 0

cd "$repo"
cargo build --locked --workspace --bins
# Cargo names the test program by a hash; its own messages tell which.
program=$(cargo test --locked --workspace --no-run --test mock --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/mock-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "the test program was not built: cargo test --no-run --test mock" >&2; exit 1; }

work=$(mktemp -d /tmp/av-XXXX)
trap 'rm -rf --one-file-system -- "$work"' EXIT
trap 'exit 130' INT TERM HUP
# Namespaces of its own: their end is the end of all that was started in them.
# shellcheck disable=SC2016 # its variables are the inner shell's
AV_WORK=$work AV_MOCK=$mock/csi-mock setpriv --pdeathsig KILL \
    unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
    sh -c 'mount --make-rshared / && "$@"; exit $?' mock "$program" "$@"
