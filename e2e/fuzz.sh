#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets on the stable toolchain and runs each for a while, from its
# committed corpus on. What is found stays below fuzz/artifacts, and fails.
#
#   e2e/fuzz.sh [TARGET…]
#
# Environment:
#   AV_FUZZ_SECONDS  how long each target runs (15)
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

version=0.13.1
prefix=${AV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/actor-volumes/tools}/cargo-fuzz-$version
if [ ! -x "$prefix/bin/cargo-fuzz" ]; then
    echo "building cargo-fuzz $version"
    cargo install --quiet --locked --root "$prefix" cargo-fuzz@$version
fi
seconds=${AV_FUZZ_SECONDS:-15}
fuzz=("$prefix/bin/cargo-fuzz" fuzz)
# Sanitizers need a nightly toolchain; coverage, and so the search, does not. With
# debug assertions, for overflows are looked for.
options=(--fuzz-dir . --dev --sanitizer none)

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
"${fuzz[@]}" build "${options[@]}"
failed=()
grown=$(mktemp -d)
trap 'rm -rf -- "$grown"' EXIT
for target in "${targets[@]}"; do
    echo "--- $target"
    mkdir -p "$grown/$target"
    # The first directory is the one that grows: the committed one stays as it is.
    if ! "${fuzz[@]}" run "${options[@]}" "$target" "$grown/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -verbosity=0 -print_final_stats=1 2>&1 |
        tee "$grown/log" | grep -E 'number_of_executed_units|new_units_added'; then
        tail -n 60 "$grown/log"
        failed+=("$target")
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "found something: ${failed[*]}; the inputs are in fuzz/artifacts. Make each a file of the target's corpus, and mend what it shows" >&2
    exit 1
fi
echo "${#targets[@]} targets, $seconds s each: nothing found"
