#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the NFS driver of Kubernetes CSI against a real NFS server in user-mode
# Linux, which has the NFS that this machine's kernel may lack. As root:
#
#   e2e/uml/run.sh
#
# Where a tool cannot be had, a line `skip nfs: REASON` goes to the file that
# AV_SKIPS names.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$(dirname "$here")")
setup=$repo/e2e/tools/setup.sh
# Seconds after which the kernel is ended, whatever it does.
bound=240

die() { echo "e2e/uml/run.sh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "must run as root: it boots on files that only root may read"
tools=(user-mode-linux nfs-utils busybox-static csi-driver-nfs)
"$setup" "${tools[@]}"
for tool in "${tools[@]}"; do
    if ! "$setup" --path "$tool" > /dev/null 2>&1; then
        echo "skip nfs: $tool is not there" >> "${AV_SKIPS:-/dev/null}"
        exit 0
    fi
done
uml=$("$setup" --path user-mode-linux)

cd "$repo"
cargo build --locked --workspace --bins
# Cargo names the test program by a hash; its own messages tell which.
program=$(cargo test --locked --workspace --no-run --test nfs --message-format=json-render-diagnostics |
    sed -n 's/.*"executable":"\([^"]*\/nfs-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || die "the test program was not built: cargo test --no-run --test nfs"

work=$(mktemp -d /tmp/av-XXXX)
mkdir "$work/memory"
trap 'rm -rf --one-file-system -- "$work"' EXIT
trap 'exit 130' INT TERM HUP
# Its root is this machine's, read-only. Its memory is a file in TMPDIR. It is
# many processes: a process namespace of their own ends them all.
export TMPDIR=$work/memory
status=0
# shellcheck disable=SC2016 # its variables are the inner shell's
setpriv --pdeathsig KILL unshare --pid --fork --mount --propagation private --mount-proc --kill-child \
    sh -c 'mount -t tmpfs -o mode=700 memory "$TMPDIR" && exec "$@"' uml \
    timeout --kill-after 5 "$bound" \
    "$uml/linux.uml" mem=768M rootfstype=hostfs rootflags=/ ro init="$here/init.sh" quiet \
    con=null con0=null,fd:1 uml_dir="$TMPDIR/" umid=nfs \
    "AV_UML=$uml" "AV_NFS=$("$setup" --path nfs-utils)" \
    "AV_BUSYBOX=$("$setup" --path busybox-static)" \
    "AV_NFSPLUGIN=$("$setup" --path csi-driver-nfs)/nfsplugin" "AV_PROGRAM=$program" \
    < /dev/null 2>&1 | tr -d '\r' | tee "$work/console" || status=$?
case $status in
    124 | 137) die "not done within $bound s" ;;
esac
# The kernel's own exit status tells nothing of the tests.
grep -qx 'uml: status 0' "$work/console" || die "the tests did not end well"
