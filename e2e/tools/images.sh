#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the two images of the tests as OCI layouts, without a registry.
#
#   images.sh OUTDIR    writes OUTDIR/pause.tar and OUTDIR/busybox.tar
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: images.sh OUTDIR}
busybox=$("$here/setup.sh" --path busybox-static)/busybox
mkdir -p "$out"

# Both are one layer of busybox. What runs as process 1 ignores SIGTERM, so the
# images ask for SIGKILL, and stopping takes no time.
make_image() {
    local name=$1 command=$2 work digest size layer config manifest
    work=$(mktemp -d)
    mkdir -p "$work/root/bin" "$work/root/tmp" "$work/root/etc" "$work/image/blobs/sha256"
    cp "$busybox" "$work/root/bin/busybox"
    chmod 0755 "$work/root/bin/busybox"
    "$busybox" --list | grep -vx busybox | while read -r applet; do
        ln -s busybox "$work/root/bin/$applet"
    done
    printf 'root:x:0:0:root:/:/bin/sh\n' > "$work/root/etc/passwd"
    tar -C "$work/root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer" .

    # blob FILE: moves it into the image; sets digest and size.
    blob() {
        digest=$(sha256sum "$1" | cut -d ' ' -f 1)
        size=$(stat -c %s "$1")
        mv "$1" "$work/image/blobs/sha256/$digest"
    }
    blob "$work/layer"
    layer='"digest":"sha256:'$digest'","size":'$size
    printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":%s,"StopSignal":"SIGKILL"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$command" "$digest" > "$work/config"
    blob "$work/config"
    config='"digest":"sha256:'$digest'","size":'$size
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",%s}]}' \
        "$config" "$layer" > "$work/manifest"
    blob "$work/manifest"
    manifest='"digest":"sha256:'$digest'","size":'$size
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,"annotations":{"io.containerd.image.name":"localhost/actor-volumes/%s:1","org.opencontainers.image.ref.name":"1"}}]}' \
        "$manifest" "$name" > "$work/image/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' > "$work/image/oci-layout"
    tar -C "$work/image" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/$name.tar" .
    mv "$work/$name.tar" "$out/$name.tar"
    rm -rf -- "$work"
}

make_image pause '["/bin/busybox","sleep","2147483647"]'
make_image busybox '["/bin/busybox","sh"]'
