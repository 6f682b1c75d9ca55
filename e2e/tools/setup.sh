#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings the pinned test tools into a cache outside the clone, each once.
#
#   setup.sh [NAME...]     set up these, or all
#   setup.sh --path NAME   print the directory of NAME's programs, or fail
#   setup.sh --list        print what is there: name, version, directory
#   setup.sh --try NAME    run each of NAME's programs once, or fail
#
# A tool that this machine cannot have (no Go, no package source) is skipped by
# name: a line in the file that AV_SKIPS names. A tool that breaks is an error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${AV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/actor-volumes/tools}
# shellcheck source=versions.sh
. "$here/versions.sh"
# shellcheck source=debian.sh
. "$here/debian.sh"

all=(containerd-1.7 runc crun runsc busybox-static containerd-2.3 containerd-2.1 crictl csi-driver-host-path csi-sanity
    csi-mock csi-driver-nfs user-mode-linux nfs-utils kubelet runc-1.5 youki crun-1.21 criu)
gpath=github.com/containerd/containerd/v2
# The status of a tool that this machine cannot have.
cannot_have=75

fail() { echo "setup: $*" >&2; exit 1; }

skip() {
    echo "$1: skipped, $2"
    echo "skip $1: $2" >> "${AV_SKIPS:-/dev/null}"
    exit "$cannot_have"
}

# What a tool is made of: kind, then what the kind needs.
recipe() {
    case $1 in
        containerd-1.7) echo "deb $deb_containerd_1_7" ;;
        runc) echo "deb $deb_runc" ;;
        crun) echo "deb $deb_crun" ;;
        crun-1.21) echo "debn $deb_crun_1_21" ;;
        criu) echo "debn $deb_criu" ;;
        runsc) echo "deb $deb_runsc" ;;
        busybox-static) echo "deb $deb_busybox" ;;
        user-mode-linux) echo "deb $deb_user_mode_linux" ;;
        nfs-utils) echo "debs $deb_nfs_utils" ;;
        containerd-2.1) echo "go $containerd_2_1 $gpath/cmd/containerd $gpath/cmd/containerd-shim-runc-v2 $gpath/cmd/ctr" ;;
        containerd-2.3) echo "go $containerd_2_3 $gpath/cmd/containerd $gpath/cmd/containerd-shim-runc-v2 $gpath/cmd/ctr" ;;
        crictl) echo "go $cri_tools sigs.k8s.io/cri-tools/cmd/crictl" ;;
        csi-driver-host-path) echo "go $csi_driver_host_path github.com/kubernetes-csi/drivers/app/hostpathplugin" ;;
        csi-driver-nfs) echo "go $csi_driver_nfs github.com/kubernetes-csi/drivers/app/nfsplugin" ;;
        csi-mock) echo "go $csi_mock ." ;;
        runc-1.5) echo "go $runc_1_5 github.com/opencontainers/runc" ;;
        kubelet) echo "go $kubelet k8s.io/kubernetes/cmd/kubelet" ;;
        youki) echo "cargo $youki --no-default-features --features v1,v2" ;;
        csi-sanity) echo "go $csi_test github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity" ;;
        *) fail "no tool is named $1; there are: ${all[*]}" ;;
    esac
}

# find_tool NAME: sets recipe, prefix and bin. A directory is named by the
# version that it holds. For a Debian package that may be a later one than the
# pin: a file named by the pin tells which.
find_tool() {
    local line
    line=$(recipe "$1") || exit 1
    read -ra recipe <<< "$line"
    case ${recipe[0]} in
        deb*)
            pointer=$cache/$1-${recipe[3]}.got
            prefix=$cache/$1-$(cat "$pointer" 2> /dev/null || echo none)
            bin=$prefix/${recipe[4]}
            ;;
        go)
            prefix=$cache/$1-${recipe[1]#v}
            # What starts a library of others stands here, and has no version.
            [ ! -e "$here/go/$1/main.go" ] || prefix+=-$(cksum < "$here/go/$1/main.go" | cut -d ' ' -f 1)
            bin=$prefix/bin
            ;;
        cargo)
            prefix=$cache/$1-${recipe[1]}
            bin=$prefix/bin
            ;;
    esac
}

is_there() { find_tool "$1" && [ -e "$prefix/.done" ]; }

# Runs each program of the tool NAME in the directory BIN.
try() {
    local name=$1 bin=$2 said
    said=$(
        case $name in
            containerd-*) "$bin/containerd" --version && "$bin/ctr" --version && "$bin/containerd-shim-runc-v2" -v ;;
            runc-1.5 | crun-1.21) "$bin/${name%-*}" --version ;;
            runc | crun | runsc | crictl | youki | criu) "$bin/$name" --version ;;
            busybox-static) "$bin/busybox" true ;;
            csi-driver-host-path) "$bin/hostpathplugin" -help ;;
            csi-driver-nfs) "$bin/nfsplugin" --help ;;
            csi-mock) "$bin/csi-mock" -help ;;
            user-mode-linux) "$bin/linux.uml" --version ;;
            nfs-utils) LD_LIBRARY_PATH=$(nfs_libraries "$bin") "$bin/../../sbin/mount.nfs" -V ;;
            csi-sanity) "$bin/csi-sanity" -help ;;
            kubelet) "$bin/kubelet" --version ;;
        esac 2>&1
    ) || fail "$name does not run on this machine: $said"
}

# first_deb NAME TEMP PACKAGE SUITE WANTED BIN: unpacks the package that gives the
# tool its version; sets found.
first_deb() {
    local name=$1 temp=$2 package=$3 suite=$4 wanted=$5 bin=$6 deb status=0
    debian_download "$package" "$suite" "$temp" || status=$?
    [ "$status" -ne "$cannot_have" ] || skip "$name" "no Debian package source can be reached for $suite"
    [ "$status" -eq 0 ] || exit 1
    found=$(dpkg-deb --field "$deb" Version)
    # Without the epoch: its colon would part a PATH in two.
    found=${found#*:}
    case $found in
        "$wanted" | "$wanted"[!0-9]*) ;;
        *) echo "$name: the pin is $wanted, $suite has $found, which is taken" ;;
    esac
    dpkg-deb --extract "$deb" "$temp/out"
    [ -d "$temp/out/$bin" ] || fail "$package $found has no $bin"
    echo "$found" > "$temp/out/.version"
}

# more_debs TEMP DIR PACKAGE SUITE MORE...: unpacks what PACKAGE needs into DIR.
more_debs() {
    local temp=$1 dir=$2 package=$3 suite=$4 more deb
    shift 4
    for more in "$@"; do
        debian_download "$more" "$suite" "$temp" || fail "cannot download $more, which $package needs"
        dpkg-deb --extract "$deb" "$dir"
    done
}

# get_debs NAME TEMP PACKAGE SUITE WANTED BIN MORE...: all in one directory.
get_debs() {
    local found
    first_deb "${@:1:6}"
    more_debs "$2" "$2/out" "$3" "$4" "${@:7}"
}

# get_deb NAME TEMP PACKAGE SUITE WANTED BIN [LIBRARY...]
get_deb() {
    local temp=$2 package=$3 suite=$4 bin=$6 found
    first_deb "${@:1:6}"
    shift 6
    more_debs "$temp" "$temp/library" "$package" "$suite" "$@"
    if [ $# -gt 0 ]; then
        # The library lies beside the program, and a script of the program's name
        # shows the way. A program that executes itself again keeps it.
        mkdir "$temp/out/lib"
        find "$temp/library" -name '*.so.*' -exec cp -P -t "$temp/out/lib" {} +
        mkdir "$temp/out/real"
        mv "$temp/out/$bin/$package" "$temp/out/real/"
        # shellcheck disable=SC2016
        printf '#!/bin/sh\nup=${0%%/%s/*}\nLD_LIBRARY_PATH=$up/lib exec "$up/real/%s" "$@"\n' \
            "$bin" "$package" > "$temp/out/$bin/$package"
        chmod 0755 "$temp/out/$bin/$package"
    fi
}

# get_debn NAME TEMP PACKAGE SUITE WANTED BIN LIBRARY...: a program that needs a newer C
# library than the machine's. It is told where that lies: a script in between would not
# do, since it executes itself again.
get_debn() {
    local name=$1 temp=$2 package=$3 suite=$4 bin=$6 found lib
    first_deb "${@:1:6}"
    shift 6
    more_debs "$temp" "$temp/library" "$package" "$suite" "$@"
    more_debs "$temp" "$temp/patchelf" "$package" bookworm patchelf
    mkdir "$temp/out/lib"
    find "$temp"/library/usr/lib/*-linux-gnu -maxdepth 1 -name '*.so.*' -exec cp -P -t "$temp/out/lib" {} +
    lib=$cache/$name-$found/lib
    "$temp/patchelf/usr/bin/patchelf" --set-interpreter "$lib/$(basename "$temp"/out/lib/ld-linux-*.so.*)" \
        --force-rpath --set-rpath "$lib" "$temp/out/$bin/$package"
    # Until it lies there, which comes after it has been tried.
    ln -sfn "$temp/out" "$cache/$name-$found"
}

# nfs_libraries BIN: where the libraries of nfs-utils are.
nfs_libraries() {
    local libraries
    libraries=("$1"/../lib/*-linux-gnu*)
    echo "${libraries[0]}"
}

# have_go MINIMUM
have_go() {
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION 2> /dev/null) || return 1
    [ "$(printf '%s\n' "$1" "${version#go}" | sort -V | head -n 1)" = "$1" ]
}

have_cc() { command -v "${CC:-gcc}" > /dev/null; }

# get_go NAME TEMP VERSION PACKAGE...
get_go() {
    local name=$1 temp=$2 version=$3 minimum tags='' stamp='' cgo=0
    shift 3
    cd "$here/go/$name"
    minimum=$(awk '$1 == "go" {print $2}' go.mod)
    have_go "$minimum" || skip "$name" "Go $minimum or newer is not installed"
    case $name in
        containerd-*)
            tags="no_btrfs no_zfs no_devmapper no_tracing"
            stamp="-X $gpath/version.Version=${version#v}"
            ;;
        kubelet) stamp="-X k8s.io/component-base/version.gitVersion=$version" ;;
        runc-1.5)
            # It enters namespaces by a part in C: linked in, so that it needs no library.
            have_cc || skip "$name" "no C compiler is installed"
            cgo=1 tags="netgo osusergo"
            stamp="-extldflags -static -X main.version=${version#v}"
            ;;
        crictl) stamp="-X sigs.k8s.io/cri-tools/pkg/version.Version=$version" ;;
    esac
    export GOTOOLCHAIN=local GOFLAGS=-mod=readonly GOWORK=off CGO_ENABLED=$cgo
    mkdir -p "$temp/out/bin"
    if ! go build -tags "$tags" -trimpath -ldflags "-s -w $stamp" -o "$temp/out/bin/" "$@" 2> "$temp/log"; then
        # Only when modules were missed, and no other can be had either.
        if grep -qE ': Get "|dial tcp|lookup disabled' "$temp/log" &&
            ! go list -m golang.org/x/sys@latest > /dev/null 2>&1; then
            skip "$name" "no source of Go modules can be reached"
        fi
        tail -n 20 "$temp/log" >&2
        fail "cannot build $name"
    fi
    echo "$version" > "$temp/out/.version"
}

# get_cargo NAME TEMP VERSION ARGUMENT...: a program of the crate registry.
get_cargo() {
    local name=$1 temp=$2 version=$3
    shift 3
    command -v cargo > /dev/null || skip "$name" "cargo is not installed"
    have_cc || skip "$name" "no C compiler is installed"
    if ! CARGO_TARGET_DIR=$temp/target cargo install --quiet --locked --no-track --root "$temp/out" "$@" \
        "$name@$version" 2> "$temp/log"; then
        if grep -qE 'download of|failed to (get|fetch|download)|[Cc]ould not resolve host' "$temp/log"; then
            skip "$name" "no source of crates can be reached"
        fi
        tail -n 20 "$temp/log" >&2
        fail "cannot build $name"
    fi
    strip "$temp/out/bin/$name"
    echo "v$version" > "$temp/out/.version"
}

set_up() {
    local name=$1 temp start=$SECONDS status
    if is_there "$name"; then
        echo "$name: $(cat "$prefix/.version"), was there"
        return
    fi
    echo "$name: setting up"
    temp=$(mktemp -d "$cache/tmp.XXXXXX")
    # No condition around the subshell: in one, its own errors would be passed over.
    set +e
    (
        set -e
        "get_${recipe[0]}" "$name" "$temp" "${recipe[@]:1}"
        case ${recipe[0]} in
            deb*) try "$name" "$temp/out/${recipe[4]}" ;;
            go | cargo) try "$name" "$temp/out/bin" ;;
        esac
    )
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then
        if [[ ${recipe[0]} = deb* ]]; then
            prefix=$cache/$name-$(cat "$temp/out/.version")
        fi
        # The rename is the moment from which the tool is there.
        touch "$temp/out/.done"
        rm -rf -- "$prefix"
        mv -T "$temp/out" "$prefix"
        if [[ ${recipe[0]} = deb* ]]; then
            cp "$prefix/.version" "$temp/got"
            mv "$temp/got" "$pointer"
        fi
        echo "$name: $(cat "$prefix/.version"), $((SECONDS - start)) s"
    fi
    rm -rf -- "$temp"
    case $status in
        0 | "$cannot_have") ;;
        *) fail "$name could not be set up" ;;
    esac
}

case ${1:-} in
    --path | --try)
        is_there "${2:?a name}" || fail "$2 is not set up: run e2e/tools/setup.sh $2"
        if [ "$1" = --path ]; then echo "$bin"; else try "$2" "$bin"; fi
        ;;
    --list)
        for name in "${all[@]}"; do
            if is_there "$name"; then echo "$name $(cat "$prefix/.version") $bin"; fi
        done
        ;;
    -*) fail "usage: setup.sh [NAME...] | --path NAME | --list | --try NAME" ;;
    *)
        [ $# -gt 0 ] || set -- "${all[@]}"
        mkdir -p "$cache"
        for name in "$@"; do
            is_there "$name" || locked=${locked:-wanted}
        done
        if [ -n "${locked:-}" ]; then
            exec 9> "$cache/.lock"
            flock --nonblock 9 || { echo "waiting for another run of setup.sh"; flock 9; }
            # What an interrupted run left.
            rm -rf -- "$cache"/tmp.*
            trap 'rm -rf -- "$cache"/tmp.*' EXIT
        fi
        for name in "$@"; do set_up "$name"; done
        ;;
esac
