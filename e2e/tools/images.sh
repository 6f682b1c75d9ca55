#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the two images of the tests as OCI layouts, without a registry. The same
# busybox gives the same bytes.
#
#   images.sh OUTDIR    writes OUTDIR/pause.tar and OUTDIR/busybox.tar
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: images.sh OUTDIR}
busybox=$("$here/setup.sh" --path busybox-static)/busybox
architecture=$(dpkg --print-architecture)
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

# pack DIRECTORY FILE
pack() {
    tar -C "$1" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$2" .
}

make_root() {
    mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp"
    chmod 1777 "$work/root/tmp"
    install -m 0755 "$busybox" "$work/root/bin/busybox"
    "$busybox" --list | grep -vx busybox | while read -r applet; do
        ln -s busybox "$work/root/bin/$applet"
    done
    printf 'root:x:0:0:root:/:/bin/sh\n' > "$work/root/etc/passwd"
    pack "$work/root" "$work/layer"
}

# blob FILE: puts it into the image; sets digest, and descriptor for who names it.
blob() {
    local size
    digest=sha256:$(sha256sum "$1" | cut -d ' ' -f 1)
    size=$(stat -c %s "$1")
    cp "$1" "$work/$name/blobs/sha256/${digest#sha256:}"
    descriptor='"digest":"'$digest'","size":'$size
}

# What runs as process 1 does not hear SIGTERM unless it handles it, and sleep
# and sh do not: the images ask for SIGKILL, so that stopping takes no time. (A
# sandbox is killed by containerd in any case.)
make_image() {
    local name=$1 command=$2 digest descriptor layer config
    mkdir -p "$work/$name/blobs/sha256"
    blob "$work/layer"
    layer=$descriptor
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":%s,"StopSignal":"SIGKILL"},"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
        "$architecture" "$command" "$digest" > "$work/json"
    blob "$work/json"
    config=$descriptor
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}' \
        "$config" "$layer" > "$work/json"
    blob "$work/json"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"localhost/actor-volumes/%s:1","org.opencontainers.image.ref.name":"1"}}]}' \
        "$descriptor" "$name" > "$work/$name/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' > "$work/$name/oci-layout"
    pack "$work/$name" "$work/$name.tar"
    mv "$work/$name.tar" "$out/$name.tar"
}

make_root
make_image pause '["/bin/busybox","sleep","2147483647"]'
make_image busybox '["/bin/busybox","sh"]'
