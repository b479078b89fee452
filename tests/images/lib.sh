# shellcheck shell=bash
# What the image scripts share: packages from the system's own apt, boot loaders, the disk around a root file system.
# No mounts and no loop devices: file systems are filled as files, the table is written last.

export LC_ALL=C.UTF-8 TZ=UTC
cache=${SPEEDISO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/speediso}
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null || [ -e "$1" ] || fail "$1 is missing: it is in the Debian package $2; ./deps.sh installs it"
}

need_disk_tools() {
    need grub-mkimage grub-common
    need /usr/lib/grub/i386-pc/boot.img grub-pc-bin
    need /usr/lib/grub/x86_64-efi/moddep.lst grub-efi-amd64-bin
    need mkfs.vfat dosfstools
    need mcopy mtools
    need mke2fs e2fsprogs
    need sfdisk fdisk
}

# The kernel package that the package $1 stands for.
kernel_package() {
    apt-cache depends --important "$1" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; found = 1; exit } END { exit !found }' ||
        fail "apt knows no kernel behind $1: run apt-get update"
}

# Prints "SHA256 FILE" for the packages named: the key of what is made from them.
package_digests() {
    apt-get -o APT::Sandbox::User=root --print-uris download "$@" | awk -F "[ ']+" '$5 ~ /^SHA256:/ { print substr($5, 8), $3 }'
}

# fetch PACKAGE: prints the path of the package file, fetched if it is not in the cache (same place as the ramdisk's).
fetch() {
    local sha file work
    read -r sha file < <(package_digests "$1") || fail "apt knows no package $1: run apt-get update"
    if [ ! -e "$cache/debs/$sha/$file" ]; then
        mkdir -p "$cache/debs"
        work=$(mktemp -d "$cache/work-XXXXXX")
        (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1" >&2)
        echo "$sha  $work/$file" | sha256sum --check --quiet >&2 || fail "the package $1 came with a wrong digest"
        mv -T "$work" "$cache/debs/$sha"
    fi
    echo "$cache/debs/$sha/$file"
}

# le BYTES NUMBER: the number in little-endian bytes, as printf escapes.
le() {
    local n=$2 i
    for ((i = 0; i < $1; i++)); do
        printf '\\x%02x' $((n & 255))
        n=$((n >> 8))
    done
}

# poke FILE OFFSET ESCAPES
poke() {
    # shellcheck disable=SC2059 # the escapes are the point
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# make_disk OUT ROOT_IMAGE ROOT_UUID ESP_MIB WORK: a disk that boots by BIOS and by UEFI into GRUB, which reads
# /boot/grub/grub.cfg of the root. Partitions: 1 BIOS boot, 2 EFI system, 3 root (last, so that it can grow).
make_disk() {
    local out=$1 root=$2 uuid=$3 esp_mib=$4 work=$5
    local modules='part_gpt ext2 fat normal configfile search search_fs_uuid linux serial terminal echo test sleep reboot halt'
    # The disk we were started from comes first: another with a copy of this image may be there.
    cat >"$work/early.cfg" <<END
search.fs_uuid $uuid root hd0,gpt3
set prefix=(\$root)/boot/grub
configfile (\$root)/boot/grub/grub.cfg
END
    # shellcheck disable=SC2086 # a list
    grub-mkimage -O i386-pc -o "$work/core.img" -p /boot/grub -c "$work/early.cfg" biosdisk $modules
    # shellcheck disable=SC2086 # a list
    grub-mkimage -O x86_64-efi -o "$work/grub.efi" -p /boot/grub -c "$work/early.cfg" efi_gop $modules

    rm -f "$work/esp.img"
    truncate -s "${esp_mib}M" "$work/esp.img"
    mkfs.vfat -n ESP -i 5bEED150 --invariant "$work/esp.img" >/dev/null
    mmd -i "$work/esp.img" ::EFI ::EFI/BOOT ::EFI/debian
    mcopy -i "$work/esp.img" "$work/grub.efi" ::EFI/BOOT/BOOTX64.EFI
    mcopy -i "$work/esp.img" "$work/grub.efi" ::EFI/debian/grubx64.efi

    local root_mib
    root_mib=$((($(stat -c %s "$root") + 1048575) >> 20))
    rm -f "$out"
    truncate -s "$((2 + esp_mib + root_mib + 1))M" "$out"
    sfdisk --quiet "$out" <<END
label: gpt
label-id: 5BEED150-0000-4000-8000-000000000000
start=1MiB, size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios, uuid=5BEED150-0000-4000-8000-000000000001
start=2MiB, size=${esp_mib}MiB, type=U, name=esp, uuid=5BEED150-0000-4000-8000-000000000002
start=$((2 + esp_mib))MiB, size=${root_mib}MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root, uuid=5BEED150-0000-4000-8000-000000000003
END
    dd if="$work/esp.img" of="$out" bs=1M seek=2 conv=notrunc,sparse status=none
    dd if="$root" of="$out" bs=1M seek=$((2 + esp_mib)) conv=notrunc,sparse status=none

    # What grub-bios-setup would do, without a device: boot.img names the first sector of core.img (u64 at 0x5c) and
    # trusts the BIOS's drive number (two nops at 0x66); core.img's first sector names the rest of itself
    # (start u64, length u16, segment u16 at 0x1f4).
    local sectors=$((($(stat -c %s "$work/core.img") + 511) / 512))
    [ "$sectors" -le 2048 ] || fail "GRUB's core image does not fit into the BIOS boot partition"
    cp /usr/lib/grub/i386-pc/boot.img "$work/boot.img"
    poke "$work/boot.img" $((0x5c)) "$(le 8 2048)"
    poke "$work/boot.img" $((0x66)) '\x90\x90'
    poke "$work/core.img" $((0x1f4)) "$(le 8 2049)$(le 2 $((sectors - 1)))$(le 2 $((0x820)))"
    # Only the code: the disk signature and the protective table behind it are sfdisk's.
    dd if="$work/boot.img" of="$out" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$out" bs=512 seek=2048 conv=notrunc status=none
}

# deliver CACHED OUT: copies with holes and says how large it is.
deliver() {
    mkdir -p "$(dirname "$2")"
    cp --sparse=always --reflink=auto "$1" "$2.part"
    mv "$2.part" "$2"
}
