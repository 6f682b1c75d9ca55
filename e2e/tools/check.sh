#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows that each containerd of the tool cache runs a pod here, driven by crictl,
# and that nothing is left afterwards. Prints `ok NAME VERSION` lines.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" != inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo "check.sh must run as root" >&2; exit 1; }
    work=$(mktemp -d /tmp/av-XXXX)
    "$here/images.sh" "$work/images"
    # A mount and process namespace of its own: their end is the end of all that
    # was started and mounted in them.
    status=0
    unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
        sh -c 'mount --make-rshared / && exec "$0" inside "$1"' "$0" "$work" || status=$?
    rm -rf --one-file-system -- "$work"
    exit "$status"
fi

work=$2
"$here/setup.sh" --list | sed 's/ [^ ]*$//; s/^/ok /'
crictl=$("$here/setup.sh" --path crictl 2> /dev/null)/crictl || crictl=

for version in 1.7 2.1 2.3; do
    bin=$("$here/setup.sh" --path "containerd-$version" 2> /dev/null) || continue
    dir=$work/$version
    mkdir -p "$dir"
    "$here/node.sh" config "$dir" "$version"
    PATH=$bin:$PATH "$bin/containerd" --config "$dir/containerd.toml" > "$dir/log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do
        "$bin/ctr" -a "$dir/c.sock" -n k8s.io images list > /dev/null 2>&1 && break
        kill -0 "$daemon" 2> /dev/null || break
        sleep 0.1
    done
    "$here/node.sh" import "$dir" "$version" "$work/images" > /dev/null || {
        tail -n 20 "$dir/log" >&2
        exit 1
    }
    if [ -n "$crictl" ]; then
        cri() { "$crictl" --runtime-endpoint "unix://$dir/c.sock" --image-endpoint "unix://$dir/c.sock" --timeout 20s "$@"; }
        cat > "$dir/pod.json" << EOF
{"metadata": {"name": "check", "namespace": "default", "uid": "check"}, "log_directory": "$dir",
 "linux": {"cgroup_parent": "/actor-volumes-check", "security_context": {"namespace_options": {"network": 2}}}}
EOF
        cat > "$dir/container.json" << EOF
{"metadata": {"name": "main"}, "image": {"image": "localhost/actor-volumes/busybox:1"},
 "command": ["sleep", "1000"], "log_path": "main.log", "linux": {"security_context": {"namespace_options": {"network": 2}}}}
EOF
        pod=$(cri runp "$dir/pod.json")
        container=$(cri create --no-pull "$pod" "$dir/container.json" "$dir/pod.json")
        cri start "$container" > /dev/null
        [ "$(cri exec "$container" echo alive)" = alive ]
        cri stopp "$pod" > /dev/null
        cri rmp "$pod" > /dev/null
        echo "ok pod on $("$bin/containerd" --version | cut -d ' ' -f 2-3), by crictl"
    else
        echo "ok $("$bin/containerd" --version | cut -d ' ' -f 2-3) starts; without crictl no pod was run"
    fi
    kill "$daemon"
    wait "$daemon" || true
    # What a stopped pod may leave is below the node's own directory.
    awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/self/mounts | sort -r | xargs -r umount
done
find /sys/fs/cgroup -depth -type d -path '*/actor-volumes-check*' -exec rmdir {} + 2> /dev/null || true
left=$(grep -c " $work/" /proc/self/mounts || true)
[ "$left" -eq 0 ] || { echo "mounts are left below $work" >&2; exit 1; }
