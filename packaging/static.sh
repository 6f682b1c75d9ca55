#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the program without any library beside it, for an image from scratch:
#
#   packaging/static.sh [--release]    writes target/static/out/actor-volumes
#
# With musl where the toolchain has that target or rustup can bring it, else with glibc.
# AV_STATIC_TARGET names another target.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=dev directory=debug
if [ "${1:-}" = --release ]; then
    profile=release directory=release
fi
machine=$(rustc --print host-tuple 2> /dev/null || rustc -vV | sed -n 's/^host: //p')
machine=${machine%%-*}
has() { [ -n "$(ls "$(rustc --print target-libdir --target "$1")" 2> /dev/null)" ]; }
target=${AV_STATIC_TARGET:-$machine-unknown-linux-musl}
if [ -z "${AV_STATIC_TARGET:-}" ] && ! has "$target"; then
    timeout 180 rustup target add "$target" || true
    has "$target" || target=$machine-unknown-linux-gnu
fi
if [[ $target == *-musl ]] && ! command -v musl-gcc > /dev/null; then
    # What is in C takes nothing of libc but its freestanding headers.
    export "CC_${target//-/_}=${CC:-cc}"
fi
base=${CARGO_TARGET_DIR:-target}/static
mkdir -p "$base/out"

# A directory of its own: other flags would have all built anew each time. No path of this
# machine goes into the program, so that it is the same wherever it is built. Of a debug
# build only that it is static is of interest.
export RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static \
--remap-path-prefix=$PWD=/actor-volumes \
--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
export CARGO_PROFILE_RELEASE_STRIP=symbols
export CARGO_TARGET_DIR=$base CARGO_PROFILE_DEV_DEBUG=false CARGO_PROFILE_DEV_STRIP=symbols
cargo build --locked --bin actor-volumes --target "$target" --profile "$profile"
built=$base/$target/$directory/actor-volumes
if LC_ALL=C readelf --program-headers "$built" | grep -q INTERP; then
    echo "static.sh: $built wants a loader: $target cannot be linked without libraries here" >&2
    exit 1
fi
# Renamed into place: it may be running.
cp "$built" "$base/out/new.$$"
mv "$base/out/new.$$" "$base/out/actor-volumes"
echo "$base/out/actor-volumes: static, for $target"
