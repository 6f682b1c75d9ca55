#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the program that dies at crash points, with the tests of power cuts, and puts
# it where no other build takes it away: cargo has one place for a program, whatever its
# features, and stages run beside one another. The delivered one is put back there.
#
#   e2e/tools/mortal.sh    prints the path of the program and that of the test program
#
# Where AV_MORTAL_BUILT names a file, they are built once for all that name the same.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
mortal=$target/debug/actor-volumes-mortal
mkdir -p "$target/debug"
exec 9> "$mortal.lock"
flock 9
if [ -s "${AV_MORTAL_BUILT:-}" ]; then
    exec cat "$AV_MORTAL_BUILT"
fi
for _ in 1 2 3; do
    program=$(cargo test --locked --workspace --features actor-volumes/crash-points --no-run --test power --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\/power-[^"]*\)".*/\1/p' | tail -n 1)
    cp "$target/debug/actor-volumes" "$mortal.new"
    # Another build may have come between.
    if grep -q ACTOR_VOLUMES_CRASH_AT "$mortal.new"; then
        mv "$mortal.new" "$mortal"
        cargo build --locked --workspace --bins
        printf '%s\n%s\n' "$mortal" "$program" | tee ${AV_MORTAL_BUILT:+"$AV_MORTAL_BUILT"}
        exit 0
    fi
done
echo "mortal.sh: other builds took the program away three times" >&2
exit 1
