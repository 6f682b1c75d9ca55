# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Debian packages of any suite, sourced by setup.sh: the mirror and its key are
# those of the machine's own apt, whose sources, lists and state stay untouched.
: "${cache:?set by setup.sh}"

# Where this machine gets Debian's main archive, the likeliest first: lines of
# URI and keyring. Read from the configuration itself, because apt tells its
# mirrors in no other way before the first `apt-get update`.
debian_mirrors() {
    local list='' parts='' file
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    for file in "$list" "$parts"/*.list; do
        if [ -f "$file" ]; then one_line_sources < "$file"; fi
    done | keep_debian > "$1"
    for file in "$parts"/*.sources; do
        # A comment may stand in the middle of a stanza.
        if [ -f "$file" ]; then sed "/^#/d" "$file" | deb822_sources; fi
    done | keep_debian >> "$1"
    # Other archives may use Debian's suite names too: Debian's own path first.
    { grep -E '/debian/? ' "$1" || true; grep -vE '/debian/? ' "$1" || true; } | awk '!seen[$0]++'
}

# Both readers print: URI|suites|components|keyring.
one_line_sources() {
    awk '{ sub(/#.*/, "") }
        $1 == "deb" {
            key = ""
            if (match($0, /\[[^]]*\]/)) {
                n = split(substr($0, RSTART + 1, RLENGTH - 2), option, /[ \t]+/)
                for (i = 1; i <= n; i++) if (option[i] ~ /^signed-by=/) key = substr(option[i], 11)
                $0 = substr($0, 1, RSTART - 1) " " substr($0, RSTART + RLENGTH)
            }
            components = ""
            for (i = 4; i <= NF; i++) components = components " " $i
            print $2 "|" $3 "|" components "|" key
        }'
}

deb822_sources() {
    awk 'BEGIN { RS = ""; FS = "\n" }
        {
            split("", field); name = ""
            for (i = 1; i <= NF; i++) {
                if ($i !~ /^[ \t]/) {
                    colon = index($i, ":")
                    name = tolower(substr($i, 1, colon - 1))
                    $i = substr($i, colon + 1)
                }
                field[name] = field[name] " " $i
            }
            if (field["types"] !~ /(^|[ \t])deb([ \t]|$)/ || field["enabled"] ~ /no|false/) next
            key = field["signed-by"]
            gsub(/^[ \t]+|[ \t]+$/, "", key); gsub(/[ \t,]+/, ",", key)
            n = split(field["uris"], uri, /[ \t]+/)
            for (i = 1; i <= n; i++)
                if (uri[i] != "") print uri[i] "|" field["suites"] "|" field["components"] "|" key
        }'
}

# A whole suite, neither its updates nor security alone. A key that is not a
# file (a fingerprint, or the key itself) gives way to Debian's own keyring.
keep_debian() {
    awk -F '|' '{
        whole = 0
        n = split($2, suite, /[ \t]+/)
        for (i = 1; i <= n; i++) if (suite[i] ~ /^[a-z]+$/) whole = 1
        if (!whole || $3 !~ /(^|[ \t])main([ \t]|$)/ || $1 ~ /^cdrom:/) next
        print $1, ($4 ~ /^\// ? $4 : "/usr/share/keyrings/debian-archive-keyring.gpg")
    }'
}

# debian_view SUITE: a private apt of one suite; sets apt_options. Fails when no
# mirror of this machine serves the suite. The mirrors are asked once in a run.
debian_view() {
    local suite=$1 dir=$cache/apt-$1 uri key
    # Nothing of what the machine has installed or prefers decides a version.
    apt_options=(
        -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "Dir::State::lists=$dir/lists" -o "Dir::State::status=$dir/status"
        -o "Dir::Cache=$dir/cache" -o "APT::Default-Release=$suite"
        -o APT::Sandbox::User=root -o Debug::NoLocking=1 -o Acquire::Languages=none
        -o APT::Update::Error-Mode=any -o Acquire::Retries=2
        -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30
    )
    case $(cat "$dir/asked" 2> /dev/null) in
        "$$ served") return 0 ;;
        "$$ nobody") return 1 ;;
    esac
    command -v apt-get > /dev/null || return 1
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    : > "$dir/status"
    while read -r uri key; do
        echo "deb [signed-by=$key] $uri $suite main" > "$dir/sources.list"
        if apt-get "${apt_options[@]}" -qq update 2> "$dir/log"; then
            echo "$$ served" > "$dir/asked"
            return 0
        fi
    done < <(debian_mirrors "$dir/mirrors")
    echo "$$ nobody" > "$dir/asked"
    return 1
}

# debian_download PACKAGE SUITE DIR: the package's file into DIR; sets deb.
# The status is 75 when there is no source of packages.
debian_download() {
    debian_view "$2" || return 75
    (cd "$3" && apt-get "${apt_options[@]}" -qq download "$1" > /dev/null) ||
        { echo "setup: cannot download $1 of $2" >&2; return 1; }
    deb=$(find "$3" -maxdepth 1 -name "$1_*.deb")
    [ -n "$deb" ]
}
