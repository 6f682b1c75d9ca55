#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A containerd for a test, all of it below one directory. Sourced, it gives the
# functions node_config, node_import, node_up and node_down; run, it is
#
#   node.sh config DIR VERSION          write DIR/containerd.toml; VERSION is 1.7, 2.1 or 2.3
#   node.sh import DIR VERSION IMAGES   import IMAGES/*.tar into the containerd that runs there
#   node.sh up DIR VERSION [IMAGES]     config, start in the background, wait, import
#   node.sh down DIR                    end and remove all that runs, is mounted and lies there
#
# AV_NRI=0 turns NRI off, AV_NRI_REQUEST_TIMEOUT (2s) is how long a plugin may
# take, AV_VALIDATOR=1 enables NRI's default validator (2.3), AV_GUARD is the guard
# in runc's place, set up as packaging/containerd says, AV_RUNC (runc) the tool that
# is runc, or its path, AV_BASE_SPEC what every container's specification begins as.
set -euo pipefail
node_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

node_fail() { echo "node.sh: $*" >&2; return 1; }

# node_dir DIR: as the kernel names it. Sockets have 107 bytes for their path.
node_dir() {
    local dir
    dir=$(realpath -m -- "$1")
    if [ ${#dir} -gt 80 ] || [ "$dir" = / ]; then
        node_fail "the directory must not be / and its path have at most 80 bytes: $dir" || return
    fi
    echo "$dir"
}

# node_config DIR VERSION
node_config() {
    local dir version=$2 toml
    dir=$(node_dir "$1") || return
    toml=$(node_toml) || return
    mkdir -p "$dir"
    echo "$toml" > "$dir/containerd.toml"
    [ -z "${AV_GUARD:-}" ] || node_drop_in actor-volumes-guard > "$dir/guard.toml"
}

# node_drop_in NAME: the file of packaging/containerd, with the guard in $AV_GUARD.
node_drop_in() {
    sed "s#^BinaryName = .*#BinaryName = \"$AV_GUARD\"#" "$node_here/../../packaging/containerd/$1.toml"
}

# The configuration for $version in $dir.
node_toml() {
    local runc nri_off=false schema images runtime
    case ${AV_RUNC:-runc} in
        /*) runc=$AV_RUNC ;;
        *) runc=$("$node_here/setup.sh" --path "${AV_RUNC:-runc}")/runc || return ;;
    esac
    [ "${AV_NRI:-1}" = 1 ] || nri_off=true
    case $version in
        1.7) schema=2 images=io.containerd.grpc.v1.cri runtime=io.containerd.grpc.v1.cri ;;
        2.1 | 2.3) schema=3 images=io.containerd.cri.v1.images runtime=io.containerd.cri.v1.runtime ;;
        *) node_fail "no configuration is known for containerd $version" || return ;;
    esac
    # Without CAP_SYS_RESOURCE, as on small virtual machines, an OOM score cannot
    # be lowered: restrict_oom_score_adj, and no score for containerd itself.
    cat << EOF
version = $schema
$([ -z "${AV_GUARD:-}" ] || [ "$version" = 1.7 ] || echo "imports = [\"$dir/guard.toml\"]")
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
        if [ "$version" != 2.3 ]; then
            node_fail "containerd $version has no default validator of NRI: AV_VALIDATOR=1 needs 2.3" || return
        fi
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
    echo
    if [ -n "${AV_GUARD:-}" ] && [ "$version" = 1.7 ]; then
        # What 1.7 imports would take the place of all that is above.
        node_drop_in actor-volumes-guard-1.7 | grep -v '^version'
    else
        cat << EOF
[plugins."$runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
$([ -z "${AV_BASE_SPEC:-}" ] || cat << MORE
base_runtime_spec = "$AV_BASE_SPEC"
pod_annotations = ["actor-volumes.dev/*"]
container_annotations = ["actor-volumes.dev/*"]
MORE
)

[plugins."$runtime".containerd.runtimes.runc.options]
BinaryName = "$runc"
EOF
    fi
    # runc's state lies here too, so that node_down finds every container.
    echo "Root = \"$dir/runc\""
}

# node_import DIR VERSION IMAGES
node_import() {
    local dir ctr image
    dir=$(node_dir "$1") || return
    ctr=$("$node_here/setup.sh" --path "containerd-$2")/ctr || return
    for image in pause busybox; do
        "$ctr" -a "$dir/c.sock" -n k8s.io images import "${3:?a directory of images}/$image.tar" || return
    done
}

# node_up DIR VERSION [IMAGES]
node_up() {
    local dir bin pid
    dir=$(node_dir "$1") || return
    # Its end removes the directory with all that is in it.
    if [ -n "$(ls -A "$dir" 2> /dev/null)" ]; then
        node_fail "$dir is not empty; a node that was left there ends with: node.sh down $dir" || return
    fi
    bin=$("$node_here/setup.sh" --path "containerd-$2") || return
    node_config "$dir" "$2" || return
    touch "$dir/made-by-node-up"
    # containerd looks for its shim in PATH.
    PATH=$bin:$PATH setsid "$bin/containerd" --config "$dir/containerd.toml" \
        > "$dir/containerd.log" 2>&1 < /dev/null &
    pid=$!
    disown "$pid"
    # CRI answers a moment after the socket does, when it starts to stream.
    for _ in {1..300}; do
        if grep -q 'Start streaming server' "$dir/containerd.log" &&
            "$bin/ctr" -a "$dir/c.sock" -n k8s.io images list > /dev/null 2>&1; then
            [ -z "${3:-}" ] || node_import "$dir" "$2" "$3"
            return
        fi
        kill -0 "$pid" 2> /dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/containerd.log" >&2
    node_fail "containerd $2 did not come up in $dir: node.sh down $dir"
}

# node_processes OPTION VALUE: those that were started with it, as two words.
node_processes() {
    local process word before
    for process in /proc/[0-9]*; do
        before=
        while IFS= read -r -d '' word; do
            if [ "$before" = "$1" ] && [ "$word" = "$2" ]; then
                echo "${process#/proc/}"
            fi
            before=$word
        done < <(cat "$process/cmdline" 2> /dev/null)
    done
}

# node_end SECONDS OPTION VALUE SIGNAL: until no such process is left, or fails.
node_end() {
    local pids tries=$(($1 * 10))
    while pids=$(node_processes "$2" "$3") && [ -n "$pids" ]; do
        [ $((tries--)) -gt 0 ] || return 1
        # shellcheck disable=SC2086
        kill -s "$4" $pids 2> /dev/null || true
        sleep 0.1
    done
}

# node_mounts DIR: mount points below it, the latest first, as the kernel writes
# them: a space and its like as an octal number.
node_mounts() {
    awk -v dir="$1/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | tac
}

# node_down DIR: works whatever became of containerd, in the mount and process
# namespaces in which it was brought up. What does not belong to DIR is never
# touched: processes are told by their command line, containers by runc's state.
node_down() {
    local dir runc namespace id file socket point
    dir=$(node_dir "$1") || return
    [ -e "$dir" ] || return 0
    [ -e "$dir/made-by-node-up" ] || node_fail "there is no node of node.sh up in $dir" || return
    # First containerd, which would start shims to clean up after shims.
    node_end 5 --config "$dir/containerd.toml" TERM || node_end 5 --config "$dir/containerd.toml" KILL ||
        node_fail "containerd of $dir does not end" || return
    # A shim that is gone leaves its containers alive: runc ends them.
    runc=$("$node_here/setup.sh" --path runc)/runc || return
    for file in "$dir"/runc/*/*/state.json; do
        [ -e "$file" ] || continue
        file=${file%/state.json}
        id=${file##*/}
        namespace=$(basename "${file%/*}")
        "$runc" --root "$dir/runc/$namespace" delete --force "$id" ||
            node_fail "container $id of $dir does not end" || return
    done
    node_end 5 -address "$dir/c.sock" KILL || node_fail "a shim of $dir does not end" || return
    # The shims' sockets lie elsewhere; their address is in their bundles.
    for file in "$dir"/state/io.containerd.runtime.v2.task/*/*/{address,bootstrap.json}; do
        [ -e "$file" ] || continue
        socket=$(grep -o 'unix://[^"]*' "$file" || true)
        [ -z "$socket" ] || rm -f -- "${socket#unix://}"
    done
    while IFS= read -r point; do
        umount -- "$(printf '%b' "${point//\\/\\0}")" || node_fail "cannot unmount $point" || return
    done < <(node_mounts "$dir")
    # Nothing may be removed through a mount.
    [ -z "$(node_mounts "$dir")" ] || node_fail "mounts are left below $dir" || return
    rm -rf --one-file-system -- "$dir"
}

[ "${BASH_SOURCE[0]}" = "$0" ] || return 0
case ${1:-} in
    config | import | up | down) "node_$1" "${2:?a directory}" "${@:3}" ;;
    *)
        echo "usage: node.sh config|up|import|down DIR [VERSION [IMAGES]]" >&2
        exit 2
        ;;
esac
