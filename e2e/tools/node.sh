#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A containerd for a test, all of it below one directory.
#
#   node.sh config DIR VERSION          write DIR/containerd.toml; VERSION is 1.7, 2.1 or 2.3
#   node.sh import DIR VERSION IMAGES   import IMAGES/*.tar into the containerd that runs there
#
# AV_NRI=0 turns NRI off, AV_NRI_REQUEST_TIMEOUT (2s) is how long a plugin may
# take, AV_VALIDATOR=1 enables NRI's default validator (2.3).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
verb=${1:?usage: node.sh config|import DIR VERSION [IMAGES]}
dir=${2:?a directory}
version=${3:?a version of containerd}

config() {
    local runc nri_off=false schema images runtime
    runc=$("$here/setup.sh" --path runc)/runc
    [ "${AV_NRI:-1}" = 1 ] || nri_off=true
    case $version in
        1.7) schema=2 images=io.containerd.grpc.v1.cri runtime=io.containerd.grpc.v1.cri ;;
        2.*) schema=3 images=io.containerd.cri.v1.images runtime=io.containerd.cri.v1.runtime ;;
        *)
            echo "node.sh: no configuration is known for containerd $version" >&2
            exit 1
            ;;
    esac
    # Without CAP_SYS_RESOURCE, as on small virtual machines, an OOM score cannot
    # be lowered: restrict_oom_score_adj, and no score for containerd itself.
    cat << EOF
version = $schema
root = "$dir/root"
state = "$dir/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = "$dir/c.sock"

[ttrpc]
address = "$dir/c.sock.ttrpc"

[plugins."io.containerd.internal.v1.opt"]
path = "$dir/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = $nri_off
socket_path = "$dir/nri.sock"
plugin_path = "$dir/nri-plugins"
plugin_config_path = "$dir/nri-conf"
plugin_request_timeout = "${AV_NRI_REQUEST_TIMEOUT:-2s}"
EOF
    if [ "${AV_VALIDATOR:-0}" = 1 ]; then
        cat << EOF

[plugins."io.containerd.nri.v1.nri".default_validator]
enable = true
EOF
    fi
    if [ "$version" = 1.7 ]; then
        cat << EOF

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/actor-volumes/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
EOF
    else
        cat << EOF

[plugins."$images"]
snapshotter = "overlayfs"

[plugins."$images".pinned_images]
sandbox = "localhost/actor-volumes/pause:1"

[plugins."io.containerd.grpc.v1.cri"]
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."$runtime"]
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."$runtime".containerd]
default_runtime_name = "runc"
EOF
    fi
    cat << EOF

[plugins."$runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."$runtime".containerd.runtimes.runc.options]
BinaryName = "$runc"
EOF
}

case $verb in
    config) config > "$dir/containerd.toml" ;;
    import)
        ctr=$("$here/setup.sh" --path "containerd-$version")/ctr
        for image in pause busybox; do
            "$ctr" -a "$dir/c.sock" -n k8s.io images import "${4:?a directory of images}/$image.tar"
        done
        ;;
    *)
        echo "node.sh: no verb is named $verb" >&2
        exit 2
        ;;
esac
