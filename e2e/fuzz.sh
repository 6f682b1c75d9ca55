#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets on the stable toolchain and runs each for a while, from its
# committed corpus on. What is found stays below fuzz/artifacts, and fails.
#
#   e2e/fuzz.sh [TARGET…]
#
# Environment:
#   AV_FUZZ_SECONDS  how long each target runs (10)
#   AV_FUZZ_JOBS     how many run at a time (one for each core)
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${AV_FUZZ_SECONDS:-10}
jobs=${AV_FUZZ_JOBS:-$(nproc)}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# What cargo-fuzz would set, but for the sanitizers, which need a nightly toolchain;
# coverage, and so the search, does not.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    --cfg fuzzing
)
host=$(rustc --print host-tuple)
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
# With a target named, build scripts and macros are built without these flags.
RUSTFLAGS="${flags[*]}" CARGO_INCREMENTAL=0 \
    cargo build --locked --target-dir target --target "$host" "${bins[@]}"
built=$PWD/target/$host/debug

work=$(mktemp -d)
declare -A running=()
# shellcheck disable=SC2329 # the trap calls it
clean_up() {
    # Nothing runs on where this is ended.
    [ ${#running[@]} -eq 0 ] || kill "${!running[@]}" 2> /dev/null || true
    wait || true
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP

# search TARGET: becomes the search, whose words go to a log.
search() {
    local target=$1 grown=$work/$1
    mkdir -p "$grown" "artifacts/$target"
    # The first directory is the one that grows: the committed one stays as it is.
    # The engine ends by itself; one that hangs is ended.
    exec timeout --kill-after=10 $((seconds + 120)) \
        "$built/$target" -artifact_prefix="artifacts/$target/" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        "$grown" "corpus/$target" > "$work/$target.log" 2>&1
}

failed=()
# told TARGET STATUS: what a search came to.
told() {
    local target=$1 status=$2 log=$work/$1.log
    # Without coverage it would look at random inputs, and find nothing.
    if [ "$status" -eq 0 ] && ! grep -q 'Is the code instrumented' "$log"; then
        awk -v t="$target" '/\tDONE/ { line = $0 } /^Done / { runs = $2 }
            END { match(line, /cov: [0-9]+/); printf "%-14s %8d inputs, %s\n", t, runs, substr(line, RSTART, RLENGTH) }' "$log"
        return
    fi
    echo "--- $target: failed ($status)"
    tail -n 60 "$log"
    failed+=("$target")
}

await() {
    local pid status=0
    wait -n -p pid "${!running[@]}" || status=$?
    told "${running[$pid]}" "$status"
    unset "running[$pid]"
}
for target in "${targets[@]}"; do
    [ ${#running[@]} -lt "$jobs" ] || await
    search "$target" &
    running[$!]=$target
done
while [ ${#running[@]} -gt 0 ]; do await; done

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed:"
    for target in "${failed[@]}"; do
        input=$(sed -n 's|.*Test unit written to |fuzz/|p' "$work/$target.log")
        echo "  $target: ${input:-of no input}"
    done
    echo "Make each input a file of the target's corpus (fuzz/corpus), and mend what it shows"
    exit 1
fi >&2
echo "${#targets[@]} targets, $seconds s each: nothing found"
