#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Licences, bans and sources of the dependency tree. Advisories are read where
# their database can be reached; where it can not, that is a named skip.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
prefix=${AV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/actor-volumes/tools}/cargo-deny-$version
if [ ! -x "$prefix/bin/cargo-deny" ]; then
    echo "building cargo-deny $version"
    cargo install --quiet --locked --root "$prefix" --no-default-features cargo-deny@$version
fi
deny=$prefix/bin/cargo-deny
"$deny" --workspace check licenses bans sources
if ! "$deny" fetch db >/dev/null 2>&1; then
    echo "advisories: the database cannot be reached from here"
    echo "skip advisories: the advisory database cannot be reached" >> "${AV_SKIPS:-/dev/null}"
    exit 0
fi
"$deny" --workspace check advisories
