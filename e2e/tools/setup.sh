#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings the pinned test tools into a cache outside the clone, each once.
#
#   setup.sh [NAME...]     set up these, or all
#   setup.sh --path NAME   print the directory of NAME's programs, or fail
#   setup.sh --list        print what is there: name, version, directory
#
# A tool that this machine cannot have (no Go, no package source) is skipped by
# name: a line in the file that AV_SKIPS names. A tool that breaks is an error.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=versions.sh
. "$here/versions.sh"

cache=${AV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/actor-volumes/tools}
all=(containerd-1.7 runc crun busybox-static containerd-2.3 containerd-2.1 crictl csi-driver-host-path csi-sanity)
gpath=github.com/containerd/containerd/v2/cmd

fail() { echo "setup: $*" >&2; exit 1; }

skip() {
    echo "$1: skipped, $2"
    echo "skip $1: $2" >> "${AV_SKIPS:-/dev/null}"
}

# What a tool is made of: kind, then what the kind needs.
recipe() {
    case $1 in
        containerd-1.7) echo "deb $deb_containerd_1_7 usr/bin" ;;
        runc) echo "deb $deb_runc usr/sbin" ;;
        crun) echo "deb $deb_crun usr/bin" ;;
        busybox-static) echo "deb $deb_busybox bin" ;;
        containerd-2.1) echo "go $containerd_2_1 $gpath/containerd $gpath/containerd-shim-runc-v2 $gpath/ctr" ;;
        containerd-2.3) echo "go $containerd_2_3 $gpath/containerd $gpath/containerd-shim-runc-v2 $gpath/ctr" ;;
        crictl) echo "go $cri_tools sigs.k8s.io/cri-tools/cmd/crictl" ;;
        csi-driver-host-path) echo "go $csi_driver_host_path github.com/kubernetes-csi/drivers/app/hostpathplugin" ;;
        csi-sanity) echo "go $csi_test github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity" ;;
        *) fail "no tool is named $1; there are: ${all[*]}" ;;
    esac
}

# The directory of a tool: keyed by the pin, so that a new pin is a new tool.
prefix() {
    local kind a b c
    # shellcheck disable=SC2034
    read -r kind a b c _ <<< "$(recipe "$1")"
    if [ "$kind" = deb ]; then echo "$cache/$1-$c"; else echo "$cache/$1-${a#v}"; fi
}

bindir() {
    local kind rest
    read -r kind rest <<< "$(recipe "$1")"
    if [ "$kind" = deb ]; then echo "$(prefix "$1")/${rest##* }"; else echo "$(prefix "$1")/bin"; fi
}

# A private view of one Debian suite: mirror and key are those that the machine's
# own apt uses, nothing of the machine's is changed.
apt_for() {
    local suite=$1 dir=$cache/apt-$1 site key
    apt_options=(
        -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache"
        -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Acquire::Languages=none
    )
    [ -e "$dir/.done" ] && return 0
    command -v apt-get > /dev/null || return 1
    # The site that serves Debian's main archive, and not security alone.
    site=$(apt-get indextargets --format '$(SITE) $(CODENAME) $(COMPONENT) $(CREATED_BY)' 2> /dev/null |
        awk '$3 == "main" && $2 !~ /security|updates|backports/ && $4 == "Packages" {print $1; exit}')
    [ -n "$site" ] || return 1
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$key" ] || return 1
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    echo "deb [signed-by=$key] $site $suite main" > "$dir/sources.list"
    apt-get "${apt_options[@]}" -qq update || return 1
    touch "$dir/.done"
}

get_deb() {
    local name=$1 package=$2 suite=$3 wanted=$4 bin=$5 temp=$6 found
    if ! apt_for "$suite"; then
        skip "$name" "no Debian package source can be reached"
        return 1
    fi
    if ! (cd "$temp" && apt-get "${apt_options[@]}" -qq download "$package" > /dev/null); then
        # The lists may be older than the archive.
        rm -f "$cache/apt-$suite/.done"
        apt_for "$suite" && (cd "$temp" && apt-get "${apt_options[@]}" -qq download "$package" > /dev/null) ||
            fail "cannot download $package of $suite"
    fi
    found=$(dpkg-deb --field "$temp"/*.deb Version)
    case $found in
        "$wanted"* | *:"$wanted"*) ;;
        *) echo "$name: the pin is $wanted, $suite now has $found, which is taken" ;;
    esac
    mkdir "$temp/out"
    dpkg-deb --extract "$temp"/*.deb "$temp/out"
    [ -d "$temp/out/$bin" ] || fail "$package $found has no $bin"
    echo "$found" > "$temp/out/.version"
}

# have_go MINIMUM
have_go() {
    command -v go > /dev/null || return 1
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION)
    [ "$(printf '%s\n' "$1" "${version#go}" | sort -V | head -n 1)" = "$1" ]
}

get_go() {
    local name=$1 version=$2 temp=$3
    shift 3
    local minimum
    minimum=$(awk '$1 == "go" {print $2}' "$here/go/$name/go.mod")
    if ! have_go "$minimum"; then
        skip "$name" "Go $minimum or newer is not installed"
        return 1
    fi
    mkdir -p "$temp/out/bin"
    cd "$here/go/$name"
    export GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0
    if ! go mod download > "$temp/log" 2>&1; then
        if ! go list -m golang.org/x/sys@latest > /dev/null 2>&1; then
            skip "$name" "no source of Go modules can be reached"
            return 1
        fi
        cat "$temp/log" >&2
        fail "cannot download the modules of $name"
    fi
    local tags=()
    case $name in containerd-*) tags=(-tags "no_btrfs no_zfs no_devmapper no_tracing") ;; esac
    go build "${tags[@]}" -trimpath -ldflags "-s -w -X main.version=$version -X github.com/containerd/containerd/v2/version.Version=${version#v}" \
        -o "$temp/out/bin/" "$@" || fail "cannot build $name"
    echo "$version" > "$temp/out/.version"
}

set_up() {
    local name=$1 prefix kind temp start=$SECONDS
    prefix=$(prefix "$name")
    if [ -e "$prefix/.done" ]; then
        echo "$name: $(cat "$prefix/.version"), was there"
        return 0
    fi
    echo "$name: setting up"
    temp=$(mktemp -d "$cache/tmp.XXXXXX")
    local parts
    read -ra parts <<< "$(recipe "$name")"
    kind=${parts[0]}
    if (
        if [ "$kind" = deb ]; then
            get_deb "$name" "${parts[@]:1}" "$temp"
        else
            get_go "$name" "${parts[1]}" "$temp" "${parts[@]:2}"
        fi
    ); then
        rm -rf -- "$prefix"
        mv "$temp/out" "$prefix"
        touch "$prefix/.done"
        echo "$name: $(cat "$prefix/.version"), $((SECONDS - start)) s"
    elif ! grep -q "^skip $name:" "${AV_SKIPS:-/dev/null}" 2> /dev/null && [ -n "${AV_SKIPS:-}" ]; then
        rm -rf -- "$temp"
        fail "$name could not be set up"
    fi
    rm -rf -- "$temp"
}

case ${1:-} in
    --path)
        [ -e "$(prefix "$2")/.done" ] || fail "$2 is not set up: run e2e/tools/setup.sh $2"
        bindir "$2"
        ;;
    --list)
        for name in "${all[@]}"; do
            if [ -e "$(prefix "$name")/.done" ]; then
                echo "$name $(cat "$(prefix "$name")/.version") $(bindir "$name")"
            fi
        done
        ;;
    -*) fail "usage: setup.sh [NAME...] | --path NAME | --list" ;;
    *)
        mkdir -p "$cache"
        exec 9> "$cache/.lock"
        flock 9
        rm -rf -- "$cache"/tmp.*
        [ $# -gt 0 ] || set -- "${all[@]}"
        for name in "$@"; do set_up "$name"; done
        ;;
esac
