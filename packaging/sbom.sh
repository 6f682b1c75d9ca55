#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the software bill of materials of the program, CycloneDX 1.5 as JSON:
#
#   packaging/sbom.sh [FILE]    target/actor-volumes.cdx.json
#
# It is made from Cargo.lock, and fails where it lacks a crate that is linked in. The time
# in it is that of the commit, so that the same commit gives the same file.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:-target/actor-volumes.cdx.json}")
version=0.5.9
prefix=${AV_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/actor-volumes/tools}/cargo-cyclonedx-$version
if [ ! -x "$prefix/bin/cargo-cyclonedx" ]; then
    echo "building cargo-cyclonedx $version"
    cargo install --quiet --locked --root "$prefix" cargo-cyclonedx@$version
fi
target=${AV_STATIC_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

# It writes beside Cargo.toml: so in a copy.
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
git archive HEAD | tar -x -C "$work"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
"$prefix/bin/cargo-cyclonedx" cyclonedx --manifest-path "$work/Cargo.toml" --quiet \
    --format json --spec-version 1.5 --target "$target" \
    --no-build-deps --override-filename bom
file=$work/bom.json

missing=0
while read -r crate crate_version _; do
    if ! grep -qF "\"pkg:cargo/$crate@${crate_version#v}" "$file"; then
        echo "sbom.sh: $crate ${crate_version#v} is linked in and not listed" >&2
        missing=1
    fi
done < <(cargo tree --locked --package actor-volumes --edges normal,no-proc-macro \
    --target "$target" --prefix none --format '{p}' | sort -u)
[ "$missing" = 0 ]
mkdir -p "$(dirname "$out")"
# Where it was made is of no interest.
sed "s#file://$work#file:///actor-volumes#g" "$file" > "$out"
echo "$out: $(grep -c '"purl"' "$out") packages"
