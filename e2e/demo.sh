#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows the main job on a real containerd, as root: an actor writes to its
# volume, is suspended, is resumed in a new sandbox, finds its data there, and
# is deleted together with its volume.
#
#   e2e/demo.sh
#
# Needs Rust and Debian packages (brought into a cache by e2e/tools/setup.sh),
# nothing else. Everything runs in mount and process namespaces of its own and
# ends with them. The exit status is 0 when all was as promised.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")

fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# Lines that begin with a dollar sign are the commands, as you would type them.
show() {
    local word line='$'
    for word; do
        case $word in
            *' '*) line+=" '$word'" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '%s\n' "$line"
}

# run COMMAND...: shows it, runs it, shows what it prints.
run() {
    show "$@"
    "$@" | sed 's/^/  /'
}

# let_be NAME COMMAND...: shows it, runs it, keeps what it prints in $NAME.
let_be() {
    local -n kept=$1
    shift
    show "$@"
    kept=$("$@")
    printf '%s\n' "$kept" | sed 's/^/  /'
}

# wait_for WHAT COMMAND...: until it succeeds, for at most 20 seconds.
wait_for() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 400 ]; then
            tail -n 20 "$base"/logs/*.log >&2 || true
            fail "not within 20 s: $what"
        fi
        sleep 0.05
    done
}

wrong=0
# promised WHAT WANTED FOUND: what must be so.
promised() {
    if [ "$2" = "$3" ]; then
        printf '  ok: %s\n' "$1"
    else
        printf '  NOT SO: %s: wanted "%s", found "%s"\n' "$1" "$2" "$3"
        wrong=$((wrong + 1))
    fi
}

outside() {
    [ "$(id -u)" = 0 ] || fail "must run as root: it makes namespaces, mounts and containers"
    "$here/tools/setup.sh" containerd-1.7 runc busybox-static
    "$here/tools/setup.sh" --path containerd-1.7 >/dev/null ||
        fail "containerd could not be set up: is a Debian package source in reach?"
    (cd "$repo" && cargo build --locked --workspace --bins)
    local status=0
    # What runs inside ends with this script, however it ends.
    trap 'exit 130' INT TERM HUP
    setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --mount-proc --kill-child \
        "$BASH" "$here/demo.sh" inside &
    wait "$!" || status=$?
    find /sys/fs/cgroup -depth -type d -path "/sys/fs/cgroup/*$cgroup*" -exec rmdir {} + 2>/dev/null || true
    exit "$status"
}

base=/run/demo
cgroup=/actor-volumes-demo

# Everything below runs as the first process of its own namespaces.
inside() {
    mount --make-rshared /
    # Shims and runc keep their sockets and state there, and so do we.
    mount -t tmpfs -o mode=755 demo /run
    mkdir -p "$base/logs" "$base/tmp"
    export TMPDIR=$base/tmp
    bring_up
    cd "$base"
    the_story
    say "the end: everything is stopped"
    kill -TERM "$serve" "$driver"
    wait "$serve" || wrong=$((wrong + 1))
    promised "nothing of a volume is mounted on the node" "" "$(ls -A m)"
    echo
    if [ "$wrong" -gt 0 ]; then
        fail "$wrong of the promises were not kept"
    fi
    echo "demo: all was as promised"
}

bring_up() {
    local containerd
    say "a containerd, with NRI switched on, and two images made on the spot"
    "$here/tools/images.sh" "$base/images"
    "$here/tools/node.sh" config "$base" 1.7
    containerd=$("$here/tools/setup.sh" --path containerd-1.7)
    show containerd --config containerd.toml '&'
    PATH=$containerd:$PATH containerd --config "$base/containerd.toml" >"$base/logs/containerd.log" 2>&1 &
    export PATH=$repo/target/debug:$PATH
    wait_for "containerd is ready" cri version
    "$here/tools/node.sh" import "$base" 1.7 "$base/images" >"$base/logs/import.log"
    run cri version

    say "a CSI driver: the one that is built in; any other would do"
    show actor-volumes local-driver --socket csi.sock --root backend '&'
    actor-volumes local-driver --socket "$base/csi.sock" --root "$base/backend" >"$base/logs/driver.log" 2>&1 &
    driver=$!

    say "our daemon: control plane and node agent in one process"
    cat >"$base/config.toml" <<-END
		[node]
		name = "node-a"
		state_dir = "$base/av"
		run_dir = "$base/run"
		mount_root = "$base/m"

		[runtime]
		nri_socket = "$(sed -n 's/^ *socket_path *= *["'\'']\(.*\)["'\'']/\1/p' "$base/containerd.toml" | head -n 1)"
		cri_socket = "$base/c.sock"

		[[driver]]
		name = "local.actor-volumes.dev"
		endpoint = "unix://$base/csi.sock"
		END
    run cat "$base/config.toml"
    show actor-volumes serve --config config.toml '&'
    actor-volumes serve --config "$base/config.toml" >"$base/logs/serve.log" 2>&1 &
    serve=$!
    export ACTOR_VOLUMES_SOCKET=$base/run/actor-volumes.sock
    wait_for "actor-volumes serves" actor-volumes actor ls
    wait_for "containerd let the plugin in" grep -q 'actor-volumes.*connected' "$base/logs/containerd.log"
    run actor-volumes driver ls
}

# The runtime's own verbs, as a kubelet or an actor platform would call them.
cri() { testkit-cri "$base/c.sock" --cgroup-parent "$cgroup" "$@"; }

the_story() {
    local pod agent found

    say "the operator says where volumes come from"
    cat >class.yaml <<-'END'
		apiVersion: storage.k8s.io/v1
		kind: StorageClass
		metadata:
		  name: storage-pool1
		provisioner: local.actor-volumes.dev
		END
    run cat class.yaml
    run actor-volumes storageclass apply -f class.yaml

    say "the developer says what an actor of this kind needs"
    cat >template.yaml <<-'END'
		kind: ActorTemplate
		metadata:
		  name: my-agent-template
		spec:
		  containers:
		  - image: my-agent-image:v1.2.3
		    volumeMounts:
		    - name: vol1
		      mountPath: /my-data
		  volumes:
		  - name: vol1
		    externalVolumeTemplate:
		      capacity: 5Gi
		      storageClassName: storage-pool1
		END
    run cat template.yaml
    run actor-volumes template apply -f template.yaml

    say "an actor is created, and its volume with it"
    run actor-volumes actor create agents/my-agent-1 --template my-agent-template --wait
    run actor-volumes volume ls
    promised "the backend has one volume" 1 "$(find backend/volumes -mindepth 1 -maxdepth 1 | wc -l)"

    say "it is resumed on this node: the answer is what its pod must carry"
    show actor-volumes actor resume agents/my-agent-1 --node node-a '>' annotations.json
    actor-volumes actor resume agents/my-agent-1 --node node-a >annotations.json
    run cat annotations.json

    say "a pod with these annotations; nothing else in it speaks of volumes"
    let_be pod cri run-pod agents first-pod annotations.json
    let_be agent cri run "$pod" agent
    run cri exec "$agent" /bin/busybox sh -c 'echo "what I learned today" > /my-data/memory && ls -l /my-data'

    say "the pod ends and the actor is suspended"
    run cri stop-pod "$pod"
    run cri rm-pod "$pod"
    run actor-volumes actor suspend agents/my-agent-1 --wait
    promised "nothing of the volume is mounted any more" "" "$(grep -o " $base/m/[^ ]*" /proc/self/mountinfo || true)"

    say "it is resumed in a new sandbox, and its data is there"
    show actor-volumes actor resume agents/my-agent-1 --node node-a '>' annotations.json
    actor-volumes actor resume agents/my-agent-1 --node node-a >annotations.json
    let_be pod cri run-pod agents second-pod annotations.json
    let_be agent cri run "$pod" agent
    let_be found cri exec "$agent" /bin/busybox cat /my-data/memory
    promised "the actor finds what it wrote" "what I learned today" "$found"

    say "a running actor is not deleted"
    show actor-volumes actor delete agents/my-agent-1
    if actor-volumes actor delete agents/my-agent-1 2>&1 | sed 's/^/  /'; then
        promised "the delete is refused" refused 'carried out'
    else
        promised "the delete is refused" refused refused
    fi

    say "suspended, it is deleted together with its volume"
    run cri stop-pod "$pod"
    run cri rm-pod "$pod"
    run actor-volumes actor suspend agents/my-agent-1 --wait
    run actor-volumes actor delete agents/my-agent-1 --wait
    run actor-volumes volume ls
    promised "the backend is empty" "" "$(ls -A backend/volumes)"
}

case ${1:-} in
    inside) inside ;;
    "") outside ;;
    *) fail "usage: e2e/demo.sh" ;;
esac
