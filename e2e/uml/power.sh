#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cuts the power of machines in user-mode Linux that run containerd, the embedded
# driver and `actor-volumes serve`, and looks what is there after the next boot.
# As root:
#
#   e2e/uml/power.sh [TEST]
#
# Where a tool cannot be had, a line `skip power: REASON` goes to the file that
# AV_SKIPS names.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$(dirname "$here")")
setup=$repo/e2e/tools/setup.sh
# Seconds after which everything is ended, whatever it does.
bound=540

die() { echo "e2e/uml/power.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root: it boots on files that only root may read"
tools=(user-mode-linux busybox-static containerd-1.7 runc)
"$setup" "${tools[@]}"
for tool in "${tools[@]}"; do
    if ! "$setup" --path "$tool" > /dev/null 2>&1; then
        echo "skip power: $tool is not there" >> "${AV_SKIPS:-/dev/null}"
        exit 0
    fi
done
if ! command -v mkfs.ext4 > /dev/null; then
    echo "skip power: mkfs.ext4 is not installed" >> "${AV_SKIPS:-/dev/null}"
    exit 0
fi

cd "$repo"
# The daemon dies at points of the test's choice.
{ read -r AV_MORTAL; read -r program; } < <(e2e/tools/mortal.sh)
export AV_MORTAL
[ -x "$program" ] || die "the test program was not built: cargo test --no-run --test power"

work=$(mktemp -d /tmp/av-XXXX)
mkdir "$work/memory"
trap 'rm -rf --one-file-system -- "$work"' EXIT
trap 'exit 130' INT TERM HUP
# Disks and memories of the machines lie in a tmpfs, and everything runs in a
# process namespace: both end with the program, however it ends.
export AV_WORK=$work/memory RUST_BACKTRACE=0
AV_UML=$("$setup" --path user-mode-linux)
AV_BUSYBOX=$("$setup" --path busybox-static)/busybox
AV_CONTAINERD=$("$setup" --path containerd-1.7)
export AV_UML AV_BUSYBOX AV_CONTAINERD
export AV_INIT=$here/power-init.sh AV_NODE=$repo/e2e/tools/node.sh
status=0
# shellcheck disable=SC2016 # its variables are the inner shell's
setpriv --pdeathsig KILL unshare --pid --fork --mount --propagation private --mount-proc --kill-child \
    sh -c 'mount -t tmpfs -o mode=700 memory "$AV_WORK" && "$1/images.sh" "$AV_WORK/images" && shift && exec "$@"' power \
    "$repo/e2e/tools" timeout --kill-after 5 "$bound" \
    "$program" --color never --test-threads "${AV_POWER_THREADS:-2}" "$@" < /dev/null || status=$?
case $status in
    0) ;;
    124 | 137) die "not done within $bound s" ;;
    *) die "the tests did not end well" ;;
esac
