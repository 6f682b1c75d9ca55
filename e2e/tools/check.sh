#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows that the tools of the cache run here: each program starts, each containerd
# runs a pod that crictl drives, and nothing is left afterwards, also when
# containerd and a shim were killed. Prints `ok NAME VERSION` lines.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=node.sh
. "$here/node.sh"

fail() {
    echo "check.sh: $*" >&2
    [ ! -e "${dir:-}/containerd.log" ] || tail -n 20 "$dir/containerd.log" >&2
    exit 1
}

# The empty file keeps crictl from looking for a configuration of this machine.
cri() { "$crictl" --config "$work/crictl.yaml" --runtime-endpoint "unix://$dir/c.sock" --image-endpoint "unix://$dir/c.sock" --timeout 60s "$@"; }

# quickly COMMAND...: that it took less than ten seconds; an image that did not
# ask for SIGKILL would take the thirty that the call allows.
quickly() {
    local start=$SECONDS
    "$@" > /dev/null
    [ $((SECONDS - start)) -lt 10 ] || fail "$* took $((SECONDS - start)) s: the image's StopSignal is not honoured"
}

# Starts a pod with a container in it; sets pod and container. As under kubelet
# the container has a process namespace of its own, in which it is process 1.
start_pod() {
    cat > "$dir/pod.json" << EOF
{"metadata": {"name": "check", "namespace": "default", "uid": "check"}, "log_directory": "$dir",
 "linux": {"cgroup_parent": "$cgroup", "security_context": {"namespace_options": {"network": 2, "pid": 1}}}}
EOF
    cat > "$dir/container.json" << EOF
{"metadata": {"name": "main"}, "image": {"image": "localhost/actor-volumes/busybox:1"},
 "command": ["sleep", "1000"], "log_path": "main.log", "linux": {"security_context": {"namespace_options": {"network": 2, "pid": 1}}}}
EOF
    pod=$(cri runp "$dir/pod.json") || fail "no sandbox on containerd $version"
    container=$(cri create --no-pull "$pod" "$dir/container.json" "$dir/pod.json") || fail "no container on containerd $version"
    cri start "$container" > /dev/null || fail "the container does not start on containerd $version"
    [ "$(cri exec "$container" echo alive)" = alive ] || fail "exec says something else on containerd $version"
}

# processes PATTERN: those whose whole name matches. There may be no ps.
processes() { grep -sxE "$1" /proc/[0-9]*/comm || true; }

# What there is that a node could leave: mounts, processes (by number and name),
# loop devices made of its files, sockets of shims, cgroups.
seen() {
    sort /proc/self/mountinfo
    processes 'containerd.*|ctr|crictl|runc|sleep|busybox'
    losetup --noheadings --output BACK-FILE 2> /dev/null | grep -F "$work" || true
    find /run/containerd -type s 2> /dev/null || true
    find /sys/fs/cgroup -mindepth 2 -maxdepth 2 -type d -name "${cgroup#/}" -exec find {} -mindepth 1 -type d \;
}

nothing_left() {
    local after
    # A process that was killed needs a moment to be gone.
    for _ in {1..50}; do
        after=$(seen)
        [ "$after" != "$before" ] || break
        sleep 0.1
    done
    [ "$after" = "$before" ] ||
        fail "containerd $version, $1, left: $(diff <(echo "$before") <(echo "$after") | sed -n 's/^[<>]/&/p')"
    [ ! -e "$dir" ] || fail "containerd $version, $1, left $dir"
}

check_node() {
    dir=$work/n-$version
    before=$(seen)
    node_up "$dir" "$version" "$work/images" > /dev/null
    if [ -z "$crictl" ]; then
        node_down "$dir"
        nothing_left "without a pod"
        echo "ok node $version: starts, takes images and ends; no pod was run, for crictl is not there"
        return
    fi
    start_pod
    quickly cri stop --timeout 30 "$container"
    cri rm "$container" > /dev/null || fail "the container cannot be removed"
    quickly cri stopp "$pod"
    cri rmp "$pod" > /dev/null || fail "the sandbox cannot be removed"
    node_down "$dir"
    nothing_left "after an orderly end"

    node_up "$dir" "$version" "$work/images" > /dev/null
    start_pod
    node_end 5 --config "$dir/containerd.toml" KILL || fail "containerd does not die"
    [ -n "$(node_processes -address "$dir/c.sock")" ] || fail "no shim outlives containerd: this checks nothing"
    # As a driver would leave them: one mount in another, a name with a space.
    mkdir "$dir/left here"
    mount -t tmpfs left "$dir/left here"
    mkdir "$dir/left here/deeper"
    mount -t tmpfs deeper "$dir/left here/deeper"
    node_down "$dir"
    nothing_left "after a kill of containerd"

    node_up "$dir" "$version" "$work/images" > /dev/null
    start_pod
    node_end 5 --config "$dir/containerd.toml" KILL || fail "containerd does not die"
    node_end 5 -address "$dir/c.sock" KILL || fail "the shim does not die"
    [ -n "$(processes sleep)" ] || fail "no container outlives its shim: this checks nothing"
    node_down "$dir"
    nothing_left "after a kill of containerd and shim"
    echo "ok node $version: a pod by crictl, an orderly end, ends after kills"
}

inside() {
    local name
    # Shims keep their sockets there, and so does a containerd of this machine.
    mount -t tmpfs -o mode=755 actor-volumes-check /run
    crictl=$("$here/setup.sh" --path crictl 2> /dev/null)/crictl || crictl=
    : > "$work/crictl.yaml"
    for version in 1.7 2.1 2.3; do
        for name in "containerd-$version" runc busybox-static; do
            if ! "$here/setup.sh" --path "$name" > /dev/null 2>&1; then
                echo "no node $version: $name is not there"
                continue 2
            fi
        done
        check_node
    done
}

outside() {
    local name bin number status=0
    [ "$(id -u)" -eq 0 ] || fail "must run as root"
    "$here/setup.sh"
    "$here/setup.sh" --list | while read -r name number bin; do
        "$here/setup.sh" --try "$name"
        echo "ok $name $number"
    done
    work=$(mktemp -d /tmp/av-XXXX)
    cgroup=/actor-volumes-check-$$
    export work cgroup
    trap clean_up EXIT
    if "$here/setup.sh" --path busybox-static > /dev/null 2>&1; then
        "$here/images.sh" "$work/images"
        "$here/images.sh" "$work/again"
        diff -r "$work/images" "$work/again" || fail "images.sh gives other bytes a second time"
        rm -rf -- "$work/again"
    fi
    # Mount and process namespaces of its own: even where this check fails, their
    # end is the end of all that was started and mounted in them.
    # shellcheck disable=SC2016
    unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
        sh -c 'mount --make-rshared / && "$0" inside; exit $?' "$here/check.sh" || status=$?
    clean_up
    trap - EXIT
    [ "$status" -eq 0 ] || exit "$status"
    [ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "${cgroup#/}")" ] || fail "cgroups are left: $cgroup"
}

clean_up() {
    find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*$cgroup*" -exec rmdir {} + 2> /dev/null || true
    rm -rf --one-file-system -- "$work"
}

case ${1:-} in
    inside) inside ;;
    "") outside ;;
    *) fail "usage: check.sh" ;;
esac
