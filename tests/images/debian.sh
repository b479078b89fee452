#!/usr/bin/env bash
# tests/images/debian.sh OUT.raw: a Debian disk image such as a site would deploy, and OUT.raw.zst of the same.
# Boots by BIOS and by UEFI from virtio, NVMe, SATA and SCSI disks; cloud-init takes host name, keys and network from a
# config drive (NoCloud or ConfigDrive). The image holds no host keys, no machine id, no password.
# Made from packages by mmdebstrap with the system's own apt sources; neither mounts nor loop devices.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/images/lib.sh
. "$here/lib.sh"

[ $# -eq 1 ] || fail "usage: tests/images/debian.sh OUT.raw"
out=$1
need_disk_tools
need mmdebstrap mmdebstrap
need zstd zstd

# The standard kernel rather than the cloud one, which has neither AHCI nor the network cards of real machines.
kernel=linux-image-amd64
packages=(
    "$kernel" initramfs-tools systemd-sysv systemd-resolved dbus udev kmod
    cloud-init cloud-guest-utils fdisk e2fsprogs openssh-server sudo
    iproute2 iputils-ping ca-certificates less nano-tiny
)
# What cloud-init needs and nothing else: recommendations would double the image.
options=(--variant=minbase --format=tar --quiet --aptopt='APT::Install-Recommends "false"')
[ "$(id -u)" -eq 0 ] && options+=(--mode=root) || options+=(--mode=unshare)

key=$({
    cat "$0" "$here/lib.sh"
    package_digests "${packages[@]}" "$(kernel_package "$kernel")" libc6 systemd python3-minimal
} | sha256sum | cut -c1-32)
cached=$cache/images/debian-$key.raw
if [ ! -e "$cached.zst" ]; then
    echo "debian image: making it from packages (about 3 minutes on 2 cores)"
    start=$SECONDS
    mkdir -p "$cache/images"
    work=$(mktemp -d "$cache/work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    chmod 755 "$work"
    uuid=5beed150-0000-4000-8000-00000000deb1

    mkdir -p "$work/overlay/etc/"{cloud/cloud.cfg.d,initramfs-tools/conf.d,dpkg/dpkg.cfg.d} "$work/overlay/boot/grub"
    cat >"$work/overlay/etc/fstab" <<END
UUID=$uuid / ext4 errors=remount-ro,x-systemd.growfs 0 1
LABEL=ESP /boot/efi vfat umask=0077,nofail 0 2
END
    cat >"$work/overlay/etc/cloud/cloud.cfg.d/90-datasource.cfg" <<'END'
# Only what a config drive brings; no question to a network that may not answer.
datasource_list: [NoCloud, ConfigDrive, None]
disable_root: false
ssh_pwauth: false
# The image has one locale; RSA keys take a minute where the processor is emulated.
locale: false
ssh_genkeytypes: [ed25519, ecdsa]
# What a deployment uses; each module costs a second or more of an emulated first boot.
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname, update_etc_hosts, users-groups, ssh]
cloud_config_modules: [set-passwords, apt-configure, ntp, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, scripts-per-once, scripts-per-boot, scripts-per-instance, scripts-user, phone-home, final-message, power-state-change]
END
    echo 'MODULES=most' >"$work/overlay/etc/initramfs-tools/conf.d/modules"
    echo 'COMPRESS=zstd' >"$work/overlay/etc/initramfs-tools/conf.d/compress"
    cat >"$work/overlay/boot/grub/grub.cfg" <<END
# Names no versions: the kernel's package keeps these links.
serial --unit=0 --speed=115200
terminal_output console serial
set timeout=0
linux /vmlinuz root=UUID=$uuid ro console=tty0 console=ttyS0,115200
initrd /initrd.img
boot
END

    # shellcheck disable=SC2016 # $1 is for the shell that runs the hook
    mmdebstrap "${options[@]}" \
        --include="$(IFS=,; echo "${packages[*]}"),zstd" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --essential-hook="tar -C '$work/overlay' -c --owner=0 --group=0 . | tar -C \"\$1\" -x --no-same-owner --no-overwrite-dir" \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/dbus/machine-id; : >"$1"/etc/machine-id' \
        --customize-hook='echo localhost >"$1"/etc/hostname; mkdir -p "$1"/boot/efi' \
        --customize-hook='chroot "$1" systemctl enable systemd-networkd systemd-resolved ssh' \
        --customize-hook='chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer systemd-networkd-wait-online.service' \
        --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*.log "$1"/var/log/apt' \
        bookworm "$work/root.tar"
    echo "debian image: packages installed ($((SECONDS - start)) s)"

    # mke2fs takes owners from the files it copies, so as a normal user this step happens as root of a namespace.
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user --map-auto)
    # shellcheck disable=SC2016 # the parameters are for the inner shell
    "${as_root[@]}" bash -euo pipefail -c '
        mkdir "$1/root"
        tar -C "$1/root" -xf "$1/root.tar" --numeric-owner --xattrs --xattrs-include="*" --exclude="./dev/*"
        used=$(du -sm --apparent-size "$1/root" | cut -f1)
        # A quarter more for tables, blocks half used, and the first boot before the root has grown.
        mke2fs -q -t ext4 -m 1 -U "$2" -L debian-root -d "$1/root" "$1/root.img" "$((used + used / 4 + 128))M" >/dev/null
        rm -rf "$1/root" "$1/root.tar"' bash "$work" "$uuid"
    make_disk "$work/disk.raw" "$work/root.img" "$uuid" 32 "$work"
    zstd --quiet -3 -T0 --check --content-size "$work/disk.raw" -o "$work/disk.raw.zst"
    mv "$work/disk.raw" "$cached"
    mv "$work/disk.raw.zst" "$cached.zst"
    echo "debian image: made in $((SECONDS - start)) s"
fi
deliver "$cached" "$out"
deliver "$cached.zst" "$out.zst"
echo "debian image: $out, $(($(stat -c %s "$out") >> 20)) MiB, compressed $(($(stat -c %s "$out.zst") >> 20)) MiB"
