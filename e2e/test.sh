#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the stages of `make check` and `make test`, one after the other, and ends
# with one line: N passed, N failed, N skipped.
#
#   e2e/test.sh check   format, clippy, unit and socket tests; needs no root
#   e2e/test.sh all     the same, and everything that needs root and real runtimes
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

what=${1:-all}
work=$(mktemp -d)
beside=
# shellcheck disable=SC2329 # the trap calls it
clean_up() {
    # Its own traps end what it has started.
    [ -z "$beside" ] || { kill -TERM "$beside" && wait "$beside"; } 2> /dev/null
    rm -rf -- "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM HUP
export AV_SKIPS=$work/skips
: > "$AV_SKIPS"
# Larger bounds: more histories and inputs for the property tests.
soak_minutes=${AV_SOAK_MINUTES:-8}
if [ -n "${AV_LONG:-}" ]; then
    export PROPTEST_CASES=${PROPTEST_CASES:-10000}
    soak_minutes=${AV_SOAK_MINUTES:-30}
fi
# It makes of the suite the soak.
unset AV_SOAK_MINUTES
passed=0 failed=0
failures=()

note() { printf '%s\n' "$*"; }

# count LOG: adds what the test runners said in this log.
count() {
    local p f
    p=$(grep -oE 'test result: [^.]*\. [0-9]+ passed' "$1" | grep -oE '[0-9]+ passed' | awk '{n += $1} END {print n + 0}')
    f=$(grep -oE '[0-9]+ failed;' "$1" | awk '{n += $1} END {print n + 0}')
    passed=$((passed + p))
    failed=$((failed + f))
    stage_failed=$f
}

# stage NAME COMMAND...: runs it, says how long it took, and counts. A stage
# whose tests are not counted by a runner counts as one test.
stage() {
    local name=$1 start=$SECONDS status
    shift
    note "==> $name"
    "$@" 2>&1 | tee "$work/log"
    status=${PIPESTATUS[0]}
    if grep -q '^test result: ' "$work/log"; then
        count "$work/log"
        if [ "$status" -ne 0 ] && [ "$stage_failed" -eq 0 ]; then
            failed=$((failed + 1))
        fi
    elif [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    [ "$status" -eq 0 ] || failures+=("$name")
    awk -v s=$((SECONDS - start)) -v n="$name" -v r="$status" \
        'BEGIN {printf "<== %s: %s, %.1f min\n", n, r == 0 ? "ok" : "FAILED", s / 60}'
    return "$status"
}

# Tests that need root are ignored here; the stage "root tests" runs them.
check_stages() {
    stage format cargo fmt --all --check
    # Targets with a harness of their own, started by scripts, must be named.
    stage clippy cargo clippy --locked --workspace --all-targets --test e2e --test mock --test nfs --test power -- -D warnings
    stage "unit and socket tests" cargo test --locked --workspace --no-fail-fast
}

# Every history with six verbs, within five minutes; it prints how far it came.
search() {
    AV_SEARCH_VERBS_ONE=${AV_SEARCH_VERBS_ONE:-6} AV_SEARCH_VERBS_TWO=${AV_SEARCH_VERBS_TWO:-6} \
        cargo test --locked --lib lifecycle::model::bounds -- --nocapture --test-threads 1
}

# begin_beside COMMAND...: goes on beside the stages that follow, until end_beside.
begin_beside() {
    "$@" > "$work/beside" 2>&1 &
    beside=$!
}

# end_beside NAME: waits for it; what it said and came to is a stage.
end_beside() {
    local status=0
    # Only the shell that started it can wait for it, and a stage is another one.
    note "waiting for the end of: $1"
    wait "$beside" || status=$?
    beside=
    stage "$1" say_and_return "$status"
}

say_and_return() {
    cat "$work/beside"
    return "$1"
}

root_stages() {
    if ! stage tools bash e2e/tools/setup.sh; then
        return
    fi
    stage "tool check" bash e2e/tools/check.sh
    stage dependencies bash e2e/deny.sh
    stage build cargo build --locked --workspace --bins
    stage "root tests" bash e2e/root-tests.sh
    stage "csi-sanity" bash e2e/sanity.sh
    # Before the stages that go beside one another: see there.
    export AV_MORTAL_BUILT=$work/mortal
    stage "build with crash points" bash e2e/tools/mortal.sh
    # Most of it is waiting, and so it goes beside others. These make no loop devices,
    # which would be taken for left behind.
    begin_beside env AV_SOAK_MINUTES="$soak_minutes" bash e2e/soak.sh
    stage "mock driver" bash e2e/drivers/mock.sh
    stage "NFS in user-mode Linux" bash e2e/uml/run.sh
    stage "power cuts in user-mode Linux" bash e2e/uml/power.sh
    end_beside soak
    stage "end to end" bash e2e/run.sh
    stage demo bash e2e/demo.sh
}

case $what in
    check) check_stages ;;
    all)
        # What CI proves of the lifecycle; a commit's check goes less far.
        export AV_MODEL_STEPS=${AV_MODEL_STEPS:-1000000}
        if [ "$(id -u)" -ne 0 ]; then
            note "make test needs root: it mounts, and starts container runtimes. make check does not"
            exit 1
        fi
        check_stages
        # The search has one thread, and the fuzzing takes what is left.
        begin_beside nice bash e2e/fuzz.sh
        stage "search of the lifecycle" search
        end_beside fuzz
        root_stages
        ;;
    *)
        note "usage: e2e/test.sh check|all"
        exit 2
        ;;
esac

skipped=$(sort -u "$AV_SKIPS" | grep -c '^skip ')
if [ "$skipped" -gt 0 ]; then
    note "skipped:"
    sort -u "$AV_SKIPS" | sed 's/^/  /'
    if [ "${CI:-}" = true ]; then
        while IFS=: read -r name _; do
            name=${name#skip }
            if ! grep -qE "^${name//./\\.}: ." e2e/allowed-skips.txt; then
                note "  not allowed in CI (e2e/allowed-skips.txt does not name it with a reason): $name"
                failed=$((failed + 1))
            fi
        done < <(sort -u "$AV_SKIPS")
    fi
fi
[ ${#failures[@]} -eq 0 ] || note "failed: ${failures[*]}"
note "total: ${SECONDS} s"
note "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
