#!/usr/bin/env bash
# tests/images/askers.sh OUT.tar: programs that others wrote to ask devices, with their libraries (bin, lib), for the live
# system, which has none of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/lib.sh
. "$here/lib.sh"

[ $# -eq 1 ] || fail "usage: tests/images/askers.sh OUT.tar"
need lsblk util-linux
need ethtool ethtool
need nvme nvme-cli
need smartctl smartmontools
need ipmitool ipmitool
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/lib"
for tool in lsblk ethtool nvme smartctl ipmitool; do
    program=$(readlink -f "$(command -v "$tool")")
    cp "$program" "$work/bin/$tool"
    ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'
done | sort -u | while read -r library; do
    cp -L "$library" "$work/lib/"
done
tar -C "$work" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$1" .
