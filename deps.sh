#!/usr/bin/env bash
# Installs what a fresh Debian 12 machine lacks, and says why. Quick when nothing is missing.
# usage: deps.sh [all|cross]
set -euo pipefail
cd "$(dirname "$0")"

# package: what for
wanted='
build-essential: C parts of dependencies (aws-lc, zstd, SQLite)
musl-tools: static binaries
clang: reading the headers of libblkid
libclang-dev: reading the headers of libblkid
linux-libc-dev: kernel headers for libblkid under musl
dpkg-dev: fetching the source of libblkid, unpacking packages
pkg-config: finding libblkid
kmod: the dependency table of the packed kernel modules
qemu-system-x86: virtual machines of demo and tests
ovmf: their UEFI firmware
ipxe: network boot loaders
dnsmasq-base: DHCP and TFTP in the laboratory
iproute2: network namespaces
nginx-light: web server of the laboratory and the benchmarks
mmdebstrap: the Debian image of the demo, the live flavour
squashfs-tools: packed drivers, the live flavour
fakechroot: the live flavour, built by a normal user
fakeroot: likewise
grub-pc-bin: BIOS boot loader of the test images
grub-efi-amd64-bin: UEFI boot loader of the test images
pxelinux: the network boot loader of many sites
syslinux-common: what it loads
isolinux: the BIOS boot loader of the image for sticks and CDs
grub-common: making boot loader images
mtools: filling EFI system partitions without mounting
dosfstools: making and checking FAT
e2fsprogs: making and checking ext4
xfsprogs: file systems that must be recognised, captured and grown
btrfs-progs: file systems that grow
ntfs-3g: NTFS, made, captured and grown
mdadm: examining what a teardown leaves
lvm2: volumes that a teardown must clear
dmsetup: mapped devices that a teardown must take down
cryptsetup-bin: LUKS, likewise
bcache-tools: bcache, likewise
xorriso: the image for sticks and CDs
gdisk: checking partition tables independently
fdisk: losetup and sfdisk in the tests
util-linux: loop devices in the tests
zstd: compressed test images, benchmarks
xz-utils: packages and test images
bzip2: compressed test images
lz4: compressed test images
pigz: benchmarks
bmap-tools: benchmarks
memtester: benchmarks
stress-ng: benchmarks, and an engine of burn-in
python3-venv: benchmarks (ironic-python-agent)
parted: benchmarks (ironic-python-agent)
libssl-dev: benchmarks (coreos-installer)
libzstd-dev: benchmarks (coreos-installer)
qemu-utils: qcow2 images made and read independently
curl: benchmarks against the usual pipes
openssl: checking certificates and signatures independently
openssh-client: logging into the machines
dmidecode: judging the inventory
pciutils: judging the inventory
pci.ids: names of cards in controller and command line, judging the inventory
usbutils: judging the inventory
lshw: judging the inventory
swtpm: TPMs of virtual machines
socat: consoles of virtual machines
rsyslog: a server for the log of agents
rsyslog-openssl: the same under TLS
cpio: building the tiny test system
binutils: stripping the agent for the ramdisk, reading EFI programs
sbsigntool: signing for Secure Boot
jq: reading JSON in scripts
lldpd: the other side of LLDP in the tests
ethtool: network cards, asked independently; checksums where a test carries frames by hand
nvme-cli: NVMe drives, likewise
smartmontools: health of disks, likewise
ipmitool: the BMC, likewise
shellcheck: checking shell scripts
systemd: checking the units
'
# For aarch64.
if [ "${1:-}" = all ] || [ "${1:-}" = cross ]; then
    wanted+='
gcc-aarch64-linux-gnu: the agent for aarch64
linux-libc-dev-arm64-cross: likewise
'
fi
# Large, and for a few tests of `make test-all` only.
if [ "${1:-}" = all ]; then
    wanted+='
chromium: printing certificates
poppler-utils: reading what was printed
liblzma-dev: building iPXE with HTTPS
perl: likewise
qemu-system-arm: aarch64 machines
qemu-efi-aarch64: their firmware
'
fi

missing=()
while IFS=: read -r package reason; do
    [ -n "$package" ] || continue
    if [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null)" != 'install ok installed' ]; then
        missing+=("$package")
        echo "deps: $package is missing:$reason"
    fi
done <<<"$wanted"

if [ ${#missing[@]} -gt 0 ]; then
    sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        echo "deps: installing packages needs root: using sudo"
        sudo=(sudo)
    fi
    echo "deps: installing ${#missing[@]} packages (1 to 3 minutes)"
    "${sudo[@]}" apt-get -qq update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    echo "deps: the Rust toolchain is missing; install rustup, then run this again" >&2
    exit 1
fi
if ! rustc --print target-libdir --target x86_64-unknown-linux-musl | xargs test -d; then
    echo "deps: adding the Rust target x86_64-unknown-linux-musl"
    rustup target add x86_64-unknown-linux-musl
fi
if ! cargo nextest --version >/dev/null 2>&1; then
    echo "deps: installing cargo-nextest, the test runner (a few minutes)"
    # For the machine itself, not for musl as .cargo/config.toml has it.
    cargo install --locked --target "$(rustc --print host-tuple)" cargo-nextest
fi
src/sys/libblkid.sh
