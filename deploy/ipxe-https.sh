#!/usr/bin/env bash
# deploy/ipxe-https.sh CA.pem https://BOOT-SERVER OUT-DIRECTORY [TARGET...]
#
# Builds iPXE that fetches over HTTPS and trusts one CA: yours. Debian's own iPXE has no HTTPS. Made from Debian's source
# package, as an unprivileged user; nothing of the system's apt configuration is changed. The script that it runs is inside, so
# DHCP cannot send it anywhere else. Kept in the cache by the package's version, the CA, the address and this script.
# Targets: snponly.efi (UEFI) and undionly.kpxe (BIOS) if none is given. Needs gcc, make, perl, liblzma-dev.
set -euo pipefail

fail() {
    echo "ipxe-https: $*" >&2
    exit 1
}
[ $# -ge 3 ] || fail "usage: deploy/ipxe-https.sh CA.pem https://BOOT-SERVER OUT-DIRECTORY [snponly.efi] [undionly.kpxe]"
ca=$(readlink -f "$1")
url=${2%/}
out=$3
shift 3
[ $# -gt 0 ] || set -- snponly.efi undionly.kpxe
case $url in
    https://*) ;;
    *) fail "the boot server's address is an https:// one, not $url" ;;
esac
# It becomes part of a script.
case ${url#https://} in
    *[!A-Za-z0-9.:-]*) fail "$url: a host and a port, nothing else" ;;
esac
openssl x509 -in "$ca" -noout 2>/dev/null || fail "$ca is no certificate"
openssl x509 -in "$ca" -noout -text | grep -q 'Public Key Algorithm: rsaEncryption' ||
    fail "$ca is not an RSA certificate: this iPXE knows no other"

cache=${SPEEDISO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/speediso}
version=$(apt-cache policy ipxe | sed -n 's/^ *Candidate: *//p')
[ -n "$version" ] || fail "apt does not know the package ipxe; run \`apt-get update\`"
key=$({ echo "$version $url"; cat "$ca" "$0"; } | sha256sum | cut -c1-32)
kept=$cache/ipxe-https/$key

missing=
for target in "$@"; do
    case $target in
        snponly.efi | undionly.kpxe) [ -e "$kept/$target" ] || missing="$missing $target" ;;
        *) fail "no target $target: snponly.efi or undionly.kpxe" ;;
    esac
done

if [ -n "$missing" ]; then
    echo "ipxe-https: building$missing from Debian's ipxe $version (some minutes)"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    # A private apt state: same mirrors and keys as the system, sources instead of binaries.
    mkdir -p apt/sources apt/lists/partial apt/cache/archives/partial
    for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        if [ -e "$list" ]; then sed -n 's/^deb /deb-src /p' "$list" >"apt/sources/$(basename "$list" .list).list"; fi
    done
    for list in /etc/apt/sources.list.d/*.sources; do
        if [ -e "$list" ]; then sed 's/^Types:.*/Types: deb-src/' "$list" >"apt/sources/$(basename "$list")"; fi
    done
    apt="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$work/apt/sources
         -o Dir::State::Lists=$work/apt/lists -o Dir::Cache=$work/apt/cache -o APT::Sandbox::User=$(id -un)"
    # shellcheck disable=SC2086 # a list of options
    apt-get $apt -qq update
    # shellcheck disable=SC2086
    apt-get $apt -qq source "ipxe=$version" >/dev/null
    cd ipxe-*/src

    printf '#define DOWNLOAD_PROTO_HTTPS\n' >config/local/general.h
    cat >"$work/boot.ipxe" <<SCRIPT
#!ipxe
:again
dhcp || goto failed
chain --replace $url/boot/ipxe?mac=\${netX/mac:hexhyp}&uuid=\${uuid}&serial=\${serial:uristring}&platform=\${platform} ||
:failed
echo speediso: no boot script from $url, trying again in 10 s
sleep 10
goto again
SCRIPT
    mkdir -p "$kept"
    for target in $missing; do
        case $target in
            *.efi) made=bin-x86_64-efi/$target ;;
            *) made=bin/$target ;;
        esac
        # The compiler is younger than the source, and finds more to say.
        make -j"$(nproc)" NO_WERROR=1 TRUST="$ca" CERT="$ca" EMBED="$work/boot.ipxe" "$made" >"$work/make.log" 2>&1 ||
            { tail -30 "$work/make.log" >&2; fail "building $target failed"; }
        cp "$made" "$kept/.$target.part" && mv "$kept/.$target.part" "$kept/$target"
    done
    cd "$work/.."
fi
mkdir -p "$out"
for target in "$@"; do cp "$kept/$target" "$out/"; done
