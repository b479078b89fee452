#!/usr/bin/env bash
# tests/images/stack.sh OUT.tar: what it takes to build stacks on disks in the live system, which has none of it: tools with
# their libraries (bin, lib), and kernel modules in the order in which they are loaded (modules/NN-name.ko); in odd/ those that
# make disks of their own as soon as they are loaded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/lib.sh
. "$here/lib.sh"

[ $# -eq 1 ] || fail "usage: tests/images/stack.sh OUT.tar"
out=$1
need modprobe kmod
need lvm lvm2
need dmsetup dmsetup
need cryptsetup cryptsetup-bin
need make-bcache bcache-tools
need mkfs.btrfs btrfs-progs
need mke2fs e2fsprogs
need sgdisk gdisk
tools='lvm dmsetup cryptsetup make-bcache mkfs.btrfs mke2fs sgdisk'
modules='dm-mod dm-flakey dm-crypt dm-thin-pool dm-multipath dm-round-robin bcache btrfs ext4 xts ecb cbc aes_generic sha256_generic
    af_alg algif_skcipher algif_hash raid1 raid0 raid10 raid456 nvmet-tcp nvme-tcp'
odd='scsi_debug null_blk'

package=$(kernel_package linux-image-amd64)
release=${package#linux-image-}
key=$({
    package_digests "$package"
    for tool in $tools; do readlink -f "$(command -v "$tool")" | xargs sha256sum; done
    cat "$0" "$here/lib.sh"
} | sha256sum | cut -c1-32)
cached=$cache/images/stack-$key.tar
if [ ! -e "$cached" ]; then
    mkdir -p "$cache/images"
    work=$(mktemp -d "$cache/work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/kernel" "$work/out/bin" "$work/out/lib" "$work/out/modules" "$work/out/odd"
    dpkg-deb --extract "$(fetch "$package")" "$work/kernel"
    depmod -b "$work/kernel" "$release"
    in_order() { # DIRECTORY MODULE...: with what they need before them
        local to=$1 n=100
        shift
        for module; do
            modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
        done | awk '!seen[$0]++' | while read -r file; do
            cp "$file" "$to/$n-${file##*/}"
            n=$((n + 1))
        done
    }
    # shellcheck disable=SC2086 # lists
    in_order "$work/out/modules" $modules
    # shellcheck disable=SC2086 # lists
    in_order "$work/out/odd" $odd
    for tool in $tools; do
        program=$(readlink -f "$(command -v "$tool")")
        cp "$program" "$work/out/bin/$tool"
        ldd "$program" | awk '$2 == "=>" { print $3 } $1 ~ /^\// { print $1 }'
    done | sort -u | while read -r library; do
        cp -L "$library" "$work/out/lib/"
    done
    tar -C "$work/out" --owner=0 --group=0 --mtime=@0 --sort=name -cf "$cached.part" .
    mv "$cached.part" "$cached"
fi
deliver "$cached" "$out"
