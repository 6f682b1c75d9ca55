#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the user-mode Linux that e2e/uml/run.sh boots on this
# machine's own files. It gets a root that may be written to, of which nothing
# reaches those files; starts an NFS server; runs the test program; halts.
# What it is told comes from the kernel's command line as environment:
#   AV_UML AV_NFS AV_BUSYBOX  directories of tools
#   AV_NFSPLUGIN AV_PROGRAM   the driver, the test program
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

busybox=$AV_BUSYBOX/busybox
modules=$AV_UML/../lib/uml/modules/$(uname -r)

# load MODULE: after those that it needs, which the line names last first.
load() {
    line=$(grep "/$1\.ko:" "$modules/modules.dep")
    files=
    for file in ${line%%:*} ${line#*:}; do files="$file $files"; done
    for file in $files; do
        name=$(basename "$file" .ko | tr - _)
        grep -q "^$name " /proc/modules || "$busybox" insmod "$modules/$file"
    done
}

# Whatever happens, the machine ends: run.sh waits for it.
# shellcheck disable=SC2154 # set by the trap itself
trap 'status=$?; echo "uml: status $status"; "$busybox" halt -f' EXIT

if [ "${1:-}" != inside ]; then
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    load overlay
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
    cd /mnt/root
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t devtmpfs devtmpfs dev
    mount -t tmpfs tmpfs run
    trap - EXIT
    exec chroot . /bin/sh "$0" inside
fi

mount --make-rshared /
ip link set lo up
load nfsd
load nfsv4

tools=$AV_NFS/../..
for libraries in "$tools"/usr/lib/*-linux-gnu*; do
    export LD_LIBRARY_PATH="$libraries"
done
# Where mount(8) looks for it.
ln -sf "$tools/sbin/mount.nfs" /sbin/mount.nfs
mkdir -p /var/lib/nfs/v4recovery /run/export
: > /var/lib/nfs/etab
[ -e /etc/netconfig ] || cp "$tools/etc/netconfig" /etc/
mount -t tmpfs tmpfs /run/export
echo '/run/export 127.0.0.1(rw,fsid=0,no_root_squash,no_subtree_check,insecure)' > /etc/exports
mount -t nfsd nfsd /proc/fs/nfsd
# The shortest that the server takes: clients that are gone are soon forgotten.
echo 10 > /proc/fs/nfsd/nfsv4leasetime
echo 10 > /proc/fs/nfsd/nfsv4gracetime
"$AV_NFS/exportfs" -r
"$AV_NFS/rpc.mountd" -N 2 -N 3
# The test program starts and stops its threads.
echo '-2 -3 +4' > /proc/fs/nfsd/versions

mkdir -p /run/av /run/tmp
export TMPDIR=/run/tmp RUST_BACKTRACE=0
"$AV_PROGRAM" --color never
