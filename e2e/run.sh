#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the end-to-end suite on real containerds, as root:
#
#   e2e/run.sh [VERSION…] [FILTER] [-- ARGUMENTS OF THE TEST PROGRAM]
#
# VERSION is 1.7, 2.1 or 2.3; all of them by default. FILTER is a part of the
# names of the cases to run. The whole list runs on 2.3 (on the first version
# that is there, where 2.3 is not), what depends on the version on the others.
#
# Environment:
#   AV_SKIPS        a file; each skip is added to it as a line `skip NAME: REASON`
#   AV_E2E_THREADS  how many cases run at a time (2)
#   AV_E2E_LOGS     a directory in which the logs of all nodes are kept
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")

say() { printf '%s\n' "$*" >&2; }
die() { say "e2e/run.sh: $*"; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root: it makes namespaces, mounts and containers"

wanted=() arguments=()
while [ $# -gt 0 ]; do
    case $1 in
    1.7 | 2.1 | 2.3) wanted+=("$1") ;;
    --) shift; arguments+=("$@"); break ;;
    *) arguments+=("$1") ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(2.3 2.1 1.7)

own_skips=
if [ -z "${AV_SKIPS:-}" ]; then
    own_skips=$(mktemp)
    AV_SKIPS=$own_skips
fi
export AV_SKIPS

# --- tools, images, binaries
tools=()
for version in "${wanted[@]}"; do tools+=("containerd-$version"); done
"$here/tools/setup.sh" "${tools[@]}" runc crun busybox-static csi-driver-host-path kubelet runsc runc-1.5 crun-1.21 youki

versions=()
for version in "${wanted[@]}"; do
    if "$here/tools/setup.sh" --path "containerd-$version" >/dev/null 2>&1; then
        versions+=("$version")
    fi
done
[ ${#versions[@]} -gt 0 ] || die "no containerd of the versions ${wanted[*]} could be set up"
main=${versions[0]}
for version in "${versions[@]}"; do [ "$version" != 2.3 ] || main=2.3; done

cd "$repo"
# One that dies where a case tells it to, and the one that is delivered.
{ read -r AV_E2E_CRASH_PROGRAM; } < <("$here/tools/mortal.sh")
export AV_E2E_CRASH_PROGRAM
[ -x "$AV_E2E_CRASH_PROGRAM" ] || die "the program with crash points was not built"
target=$(dirname "$(dirname "$AV_E2E_CRASH_PROGRAM")")
# For containers from an empty root file system.
packaging/static.sh
export AV_E2E_STATIC=$target/static/out/actor-volumes
# Cargo names the test program by a hash; its own messages tell which.
program=$(cargo test --locked --workspace --no-run --test e2e --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/e2e-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || die "the test program was not built: cargo test --no-run --test e2e"

# --- a place of its own
cgroup=/actor-volumes-e2e-$$
loops_before=$(losetup -n -O NAME 2>/dev/null | sort || true)
export AV_E2E_VERSIONS="${versions[*]}" AV_E2E_MAIN_VERSION=$main
export AV_E2E_BASE=/run/av AV_E2E_IMAGES=/run/av-images AV_E2E_CGROUP=$cgroup
[ -z "${AV_E2E_LOGS:-}" ] || mkdir -p "$AV_E2E_LOGS"

inner=
clean_up() {
    if [ -n "$inner" ]; then
        # unshare itself is deaf to gentler signals.
        kill -KILL "$inner" 2>/dev/null || true
        wait "$inner" 2>/dev/null || true
    fi
    # Children first. What was just killed may take a moment to leave its own;
    # what stays is told below.
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*$cgroup*" -exec rmdir {} + 2>/dev/null || true
        [ -n "$(find /sys/fs/cgroup -type d -path "/sys/fs/cgroup/*$cgroup*" 2>/dev/null)" ] || break
        sleep "0.$try"
    done
    [ -z "$own_skips" ] || rm -f "$own_skips"
}
trap clean_up EXIT

# Everything happens in mount and process namespaces of the suite's own: when
# the first process ends, the kernel ends all others and takes the mounts down,
# whatever happened. /run is the suite's own because shims and runc keep their
# sockets and state there, and so does a real containerd of this machine; the
# nodes' directories lie there too. /tmp is private, so that a driver may have
# one of its own. The shell stays as the first process: it reaps what the shims
# leave to it.
# shellcheck disable=SC2016 # its variables are the inner shell's
inside='
    tools=$1
    shift
    mount --make-rshared / &&
    mount --bind /tmp /tmp &&
    mount --make-private /tmp &&
    mount -t tmpfs -o mode=755 actor-volumes-e2e /run &&
    mkdir "$AV_E2E_BASE" &&
    "$tools/images.sh" "$AV_E2E_IMAGES" &&
    "$@"
    exit $?
'
say "containerd ${versions[*]}, whole list on $main"
status=0
# They end with this script, however it ends.
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
    sh -c "$inside" e2e "$here/tools" \
    "$program" --test-threads "${AV_E2E_THREADS:-2}" ${arguments[@]+"${arguments[@]}"} &
inner=$!
trap 'exit 130' INT TERM HUP
wait "$inner" || status=$?
inner=

[ -z "$own_skips" ] || cat "$own_skips" >&2
clean_up
left=$(find /sys/fs/cgroup -type d -path "/sys/fs/cgroup/*$cgroup*" 2>/dev/null || true)
loops_after=$(losetup -n -O NAME 2>/dev/null | sort || true)
[ "$loops_after" = "$loops_before" ] || left+=" loop devices: $loops_after"
if [ -n "$left" ]; then
    say "left behind by the suite: $left"
    status=1
fi
exit "$status"
