#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The first process of the machine whose power e2e/uml/power cuts. Its root is
# this machine's files with a tmpfs above; what outlives a cut is on two disks,
# /d and /s. Its commands come over the serial line. From the kernel's command line:
#   AV_MODULES AV_BUSYBOX AV_PROGRAM   modules, a static busybox, the test program
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

trap '"$AV_BUSYBOX" halt -f' EXIT

load() {
    line=$(grep "/$1\.ko:" "$AV_MODULES/modules.dep") || return 0
    files=
    for file in ${line%%:*} ${line#*:}; do files="$file $files"; done
    for file in $files; do
        name=$(basename "$file" .ko | tr - _)
        grep -q "^$name " /proc/modules || "$AV_BUSYBOX" insmod "$AV_MODULES/$file"
    done
}

if [ "${1:-}" != inside ]; then
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    load overlay
    load ext4
    load crc32c_generic
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
    cd /mnt/root
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t devtmpfs devtmpfs dev
    mkdir -p dev/pts dev/shm d s old
    mount -t devpts devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    mount -t tmpfs tmpfs run
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t ext4 /dev/ubda d
    mount -t ext4 -o errors=remount-ro /dev/ubdb s
    # Whoever enters a container's mount namespace starts at the root of that
    # namespace: it must be this one, which a chroot alone would not bring about.
    "$AV_BUSYBOX" pivot_root . old
    trap - EXIT
    exec chroot . /bin/sh "$0" inside
fi

umount -l /old
mount --make-rshared /
ip link set lo up
"$AV_BUSYBOX" stty -F /dev/ttyS0 raw -echo
"$AV_PROGRAM" inside < /dev/ttyS0 > /dev/ttyS0
