#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs csi-sanity, the CSI project's own test of drivers, on `actor-volumes
# local-driver`, as root:
#
#   e2e/sanity.sh [ARGUMENTS OF csi-sanity]
#
# Tests of what the driver does not advertise are left out by csi-sanity itself.
# Where the tool cannot be had, a line `skip csi-sanity: REASON` goes to the file
# that AV_SKIPS names.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
binary=$repo/target/debug/actor-volumes

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" = 0 ] || { echo "e2e/sanity.sh must run as root: the driver mounts" >&2; exit 1; }
    "$here/tools/setup.sh" csi-sanity
    sanity=$("$here/tools/setup.sh" --path csi-sanity 2> /dev/null) || exit 0
    cd "$repo"
    cargo build --locked --workspace --bins
    work=$(mktemp -d /tmp/av-XXXX)
    # A mount and process namespace of its own: their end is the end of all that
    # was started and mounted in them.
    status=0
    unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
        sh -c 'mount --make-rshared / && exec "$0" inside "$@"' "$0" "$work" "$sanity" "$@" || status=$?
    rm -rf --one-file-system -- "$work"
    exit "$status"
fi

work=$2
sanity=$3
shift 3
"$binary" local-driver --socket "$work/csi.sock" --root "$work/root" > "$work/log" 2>&1 &
driver=$!
for _ in $(seq 100); do
    [ ! -S "$work/csi.sock" ] || break
    kill -0 "$driver" || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done

# The directories are csi-sanity's to make: it makes them again for each test.
status=0
"$sanity/csi-sanity" -csi.endpoint="unix://$work/csi.sock" \
    -csi.mountdir="$work/target" -csi.stagingdir="$work/staging" "$@" || status=$?

# What csi-sanity does not look at: nothing may be left.
if grep -F " $work/" /proc/self/mountinfo; then
    echo "the mounts above were left behind" >&2
    status=1
fi
for dir in volumes trash; do
    left=$(find "$work/root/$dir" -mindepth 1 -maxdepth 1)
    [ -z "$left" ] || { printf 'left behind: %s\n' "$left" >&2; status=1; }
done
kill "$driver"
wait "$driver" || status=1
if [ -e "$work/csi.sock" ]; then
    echo "the driver left its socket behind" >&2
    status=1
fi
[ "$status" = 0 ] || tail -n 20 "$work/log" >&2
exit "$status"
