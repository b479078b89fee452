#!/usr/bin/env bash
# tests/images/tiny.sh OUT.raw [KERNEL_WORDS]: the smallest disk that boots Debian's kernel by BIOS and by UEFI.
# On its console (ttyS0) the system prints "TINY-OS UP cmdline=...", "TINY-OS HOSTNAME <name>" from the config drive,
# the partitions and "TINY-OS READY"; with tiny.poweroff among KERNEL_WORDS it then powers off, else it waits.
# With tiny.raid among them it can run from a mirror: it assembles the array, degraded if need be, mounts its root from it
# and says "TINY-OS ROOT <device> members=<present> degraded=<missing>".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/lib.sh
. "$here/lib.sh"

[ $# -ge 1 ] || fail "usage: tests/images/tiny.sh OUT.raw [KERNEL_WORDS]"
out=$1
words=${2:-}
need_disk_tools
need cpio cpio
need depmod kmod
need zstd zstd

raid=()
case " $words " in *' tiny.raid '*) raid=(mdadm libc6 libudev1) ;; esac
package=$(kernel_package linux-image-amd64)
release=${package#linux-image-}
key=$({
    package_digests "$package" busybox-static "${raid[@]}"
    cat "$0" "$here/lib.sh" "$here/tiny/init"
    echo "$words"
} | sha256sum | cut -c1-32)
cached=$cache/images/tiny-$key.raw
if [ ! -e "$cached" ]; then
    echo "tiny image: making it (about 15 seconds)"
    mkdir -p "$cache/images"
    work=$(mktemp -d "$cache/work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    kernel=$(fetch "$package")
    busybox=$(fetch busybox-static)
    mkdir -p "$work/kernel" "$work/busybox" "$work/initrd/bin" "$work/root/boot/grub"
    dpkg-deb --extract "$kernel" "$work/kernel"
    dpkg-deb --extract "$busybox" "$work/busybox"

    depmod -b "$work/kernel" "$release"
    for module in ${raid[0]:+raid1} virtio_pci virtio_blk virtio_scsi nvme ahci ata_piix sd_mod vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 ext4 crc32c_generic isofs; do
        modprobe -d "$work/kernel" -S "$release" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
    done | sort -u | while read -r file; do
        install -D -m 644 "$file" "$work/initrd/${file#"$work/kernel/"}"
    done
    cp "$work/kernel/lib/modules/$release/modules."{builtin,order} "$work/initrd/lib/modules/$release/"
    depmod -b "$work/initrd" "$release" 2>/dev/null
    cp "$work/busybox/bin/busybox" "$work/initrd/bin/busybox"
    ln -s busybox "$work/initrd/bin/sh"
    install -m 755 "$here/tiny/init" "$work/initrd/init"
    mkdir "$work/initrd/sbin" && ln -s ../bin/busybox "$work/initrd/sbin/modprobe"
    if [ ${#raid[@]} -gt 0 ]; then
        for part in "${raid[@]}"; do
            dpkg-deb --extract "$(fetch "$part")" "$work/$part"
        done
        libraries=lib/x86_64-linux-gnu
        install -D "$work/mdadm/sbin/mdadm" "$work/initrd/sbin/mdadm"
        install -D "$work/libc6/$libraries/libc.so.6" "$work/initrd/$libraries/libc.so.6"
        install -D "$work/libc6/$libraries/ld-linux-x86-64.so.2" "$work/initrd/lib64/ld-linux-x86-64.so.2"
        install -D -T "$work/libudev1/usr/$libraries/libudev.so.1" "$work/initrd/$libraries/libudev.so.1"
    fi
    (cd "$work/initrd" && find . -print0 | sort -z | cpio --quiet --null -o -H newc -R 0:0 --reproducible) |
        zstd -q -9 >"$work/root/boot/initrd.img"
    cp "$work/kernel/boot/vmlinuz-$release" "$work/root/boot/vmlinuz"
    cat >"$work/root/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_output console serial
echo 'TINY-OS GRUB'
linux /boot/vmlinuz console=tty0 console=ttyS0,115200 panic=5 $words
initrd /boot/initrd.img
boot
END
    uuid=5beed150-0000-4000-8000-0000000000ff
    mke2fs -q -t ext4 -O ^has_journal,^metadata_csum_seed -U "$uuid" -L tiny-root -d "$work/root" "$work/root.img" 24M
    make_disk "$work/disk.raw" "$work/root.img" "$uuid" 8 "$work"
    mv "$work/disk.raw" "$cached"
fi
deliver "$cached" "$out"
echo "tiny image: $out, $(stat -c %s "$out") bytes (from $cached)"
