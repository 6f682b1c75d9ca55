#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows that the release is reproducible: builds what is committed twice, from nothing,
# in two directories with names of different lengths, and compares the programs byte by
# byte. Takes minutes. AV_STATIC_TARGET is that of static.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

# It may move meanwhile.
commit=$(git rev-parse HEAD)
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
sums=()
for directory in one/here another/place/with/a/longer/name; do
    at=$work/$directory
    mkdir -p "$at"
    git archive "$commit" | tar -x -C "$at"
    env -u CARGO_TARGET_DIR -u RUSTFLAGS "$at/packaging/static.sh" --release
    sums+=("$(sha256sum < "$at/target/static/out/actor-volumes" | cut -d ' ' -f 1)")
done
if [ "${sums[0]}" != "${sums[1]}" ]; then
    echo "reproducible.sh: the two builds differ: ${sums[*]}" >&2
    exit 1
fi
echo "reproducible: sha256 ${sums[0]}, with $(rustc --version)"
