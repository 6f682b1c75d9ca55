#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the table of docs/compatibility.md from a run of the matrix: every way to a
# volume, with every OCI runtime, in every place (root; some two minutes).
#
#   e2e/compatibility.sh [FILE]    also writes what was seen to FILE, a line a cell
#
# The suite itself only compares: it fails where the document says something else.
set -euo pipefail
cd "$(dirname "$0")/.."

AV_E2E_COMPATIBILITY=$(realpath docs/compatibility.md)
export AV_E2E_COMPATIBILITY
[ $# -eq 0 ] || { AV_E2E_MATRIX=$(realpath -m "$1") && export AV_E2E_MATRIX; }
exec bash e2e/run.sh 2.3 matrix::
