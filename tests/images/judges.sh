#!/usr/bin/env bash
# tests/images/judges.sh OUT.tar: programs that others wrote to tell what a machine has, with their libraries (bin, lib)
# and the table of PCI names (pci.ids), for the live system, which has none of them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/lib.sh
. "$here/lib.sh"

[ $# -eq 1 ] || fail "usage: tests/images/judges.sh OUT.tar"
need dmidecode dmidecode
need lspci pciutils
need lsusb usbutils
need lshw lshw
need lscpu util-linux
need /usr/share/misc/pci.ids pci.ids
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/lib"
cp /usr/share/misc/pci.ids "$work/"
for tool in dmidecode lspci lsusb lshw lscpu; do
    program=$(readlink -f "$(command -v "$tool")")
    cp "$program" "$work/bin/$tool"
    # dmidecode may be static.
    ldd "$program" 2>/dev/null | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' || true
done | sort -u | while read -r library; do
    cp -L "$library" "$work/lib/"
done
tar -C "$work" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$1" .
