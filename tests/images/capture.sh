#!/usr/bin/env bash
# tests/images/capture.sh VMLINUZ INITRAMFS OUT_DIR [SHAPE...]: boots virtual machines of several shapes with the ramdisk
# and packs what the inventory's readers read of each (sysfs, procfs, SMBIOS tables, the kernel's first words) into
# OUT_DIR/SHAPE.tar.gz: the fixtures of src/sys/fixtures/machines. For whoever adds a reader, or a shape; not part of
# any test run. Needs qemu, swtpm, ssh; no root.
set -euo pipefail

[ $# -ge 3 ] || { echo "usage: tests/images/capture.sh VMLINUZ INITRAMFS OUT_DIR [SHAPE...]" >&2; exit 64; }
kernel=$(realpath "$1") initrd=$(realpath "$2") out=$(realpath "$3")
shift 3
shapes=("$@")
[ ${#shapes[@]} -gt 0 ] || shapes=(pc_small q35_numa q35_uefi)
work=$(mktemp -d)
started=()
end() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap end EXIT
ssh-keygen -q -t ed25519 -N '' -f "$work/key"

# Nothing leaves the host: slirp without a way out, and ssh on a loopback port.
nic() { echo "-netdev user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22 -device $1,netdev=net0,mac=52:54:00:a1:00:01"; }
blank() {
    truncate -s "$2" "$work/$1"
    echo "-drive if=none,id=$1,format=raw,file=$work/$1"
}
tpm() {
    mkdir -p "$work/tpm"
    swtpm socket --tpm2 --tpmstate "dir=$work/tpm" --ctrl "type=unixio,path=$work/tpm.sock" >"$work/tpm.log" 2>&1 &
    started+=($!)
    echo "-chardev socket,id=chrtpm,path=$work/tpm.sock -tpmdev emulator,id=tpm0,chardev=chrtpm -device $1,tpmdev=tpm0"
}

# The command line of a shape, for the shell to split.
shape() {
    case $1 in
    # An old chipset, one processor, no tables of our own: what the smallest hoster gives.
    pc_small)
        echo "-machine pc -smp 1 -m 512M $(nic e1000) $(blank d0 64M) -device ide-hd,drive=d0,serial=PATA0"
        ;;
    # Two sockets and two nodes, a TPM, IPMI, USB, cards behind a bridge, and tables as servers have them.
    q35_numa)
        # A vendor with threads: QEMU's own processor has none for the kernel to see.
        echo "-cpu max,vendor=GenuineIntel,family=6,model=85,stepping=7 -machine q35 -smp 8,sockets=2,cores=2,threads=2 -m 1G"
        echo "-object memory-backend-ram,id=m0,size=512M -object memory-backend-ram,id=m1,size=512M"
        echo "-numa node,nodeid=0,cpus=0-3,memdev=m0 -numa node,nodeid=1,cpus=4-7,memdev=m1 -numa dist,src=0,dst=1,val=21"
        echo "-smbios type=0,vendor=Firmwright,version=2.4.1,date=02/29/2024,release=2.17"
        echo "-smbios type=1,manufacturer=Quirk,product=R9000,version=A,serial=SN-9000,sku=SKU9,family=Rack,uuid=00112233-4455-6677-8899-aabbccddeeff"
        echo "-smbios type=2,manufacturer=Quirk,product=Board9,version=1.0,serial=BRD-1,asset=BA-1,location=Left"
        echo "-smbios type=3,manufacturer=Quirk,version=C,serial=CH-1,asset=Rack7,sku=CSKU"
        echo "-smbios type=4,sock_pfx=Socket,manufacturer=Quirk,version=Q-Core,serial=CPU-1,asset=CA-1,part=QC9,max-speed=3500,current-speed=2400"
        echo "-smbios type=17,loc_pfx=DIMM_A,bank=Bank0,manufacturer=Chipmaker,serial=0BADCAFE,asset=M-1,part=M393A8G40,speed=3200"
        echo "-smbios type=41,designation=LOM1,kind=ethernet,instance=1,pcidev=nic0"
        echo "-device pcie-root-port,id=rp1,chassis=1,slot=1 -device pcie-root-port,id=rp2,chassis=2,slot=2"
        echo "$(nic virtio-net-pci,id=nic0)  -device $third,mac=52:54:00:a1:00:03"
        echo "$(blank d0 64M) -device nvme,bus=rp1,drive=d0,serial=NVME0 $(blank d1 64M) -device ide-hd,bus=ide.0,drive=d1,serial=SATA0"
        echo "-device virtio-scsi-pci,id=scsi $(blank d2 64M) -device scsi-hd,bus=scsi.0,drive=d2,serial=SCSI0"
        echo "-device qemu-xhci,id=xhci -device usb-kbd,bus=xhci.0 -device usb-tablet,bus=xhci.0 $(blank d3 64M) -device usb-storage,bus=xhci.0,drive=d3,serial=USB0,removable=on"
        echo "-device ipmi-bmc-sim,id=bmc0 -device isa-ipmi-kcs,bmc=bmc0,ioport=0xca2 -device i6300esb -vga std"
        # Last: whatever names no bus would go there.
        echo "-device pxb-pcie,id=far,bus_nr=128,numa_node=1 -device pcie-root-port,id=rp3,bus=far,chassis=3,slot=3"
        echo "-device e1000e,bus=rp3,mac=52:54:00:a1:00:02"
        tpm tpm-crb
        ;;
    # UEFI with its variables and boot entries, a TPM of the other interface, and placeholders for names.
    q35_uefi)
        cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vars"
        echo "-machine q35 -smp 2 -m 768M"
        echo "-drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd -drive if=pflash,format=raw,file=$work/vars"
        echo "-smbios type=1,manufacturer=To.Be.Filled.By.O.E.M.,serial=0000000000,uuid=ffffffff-ffff-ffff-ffff-ffffffffffff"
        echo "-smbios type=3,asset=Default_string"
        echo "$(nic rtl8139) $(blank d0 64M) -device virtio-blk-pci,drive=d0,serial=VIRT0"
        tpm tpm-tis
        ;;
    *)
        echo "no shape is called $1" >&2
        return 64
        ;;
    esac
}
# Older QEMU has no igb.
third=igb,bus=rp2
qemu-system-x86_64 -device help | grep -q '"igb"' || third=e1000

inside() {
    ssh -p "$port" -i "$work/key" -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o ConnectTimeout=15 -o LogLevel=ERROR root@127.0.0.1 "$@"
}

# Runs in the machine. Attributes say 4096 bytes and have fewer, so they are copied before they are packed.
# shellcheck disable=SC2016 # it is expanded there
collect='
set -e
out=/tmp/captured; rm -rf $out; mkdir -p $out
copy() { for f in "$@"; do [ -f "$f" ] && mkdir -p "$out${f%/*}" && head -c 65536 "$f" >"$out$f" 2>/dev/null || true; done; }
link() { for l in "$@"; do [ -L "$l" ] && mkdir -p "$out${l%/*}" && ln -s "$(readlink "$l")" "$out$l" 2>/dev/null || true; done; }
copy /proc/cpuinfo /proc/meminfo /proc/cmdline /proc/uptime /proc/mounts /proc/swaps /proc/sys/kernel/osrelease \
    /proc/sys/kernel/version /proc/sys/kernel/tainted /proc/sys/kernel/hostname
copy /sys/firmware/dmi/tables/* /sys/firmware/efi/fw_platform_size /sys/firmware/efi/efivars/*-8be4df61-93ca-11d2-aa0d-00e098032b8c
for node in /sys/devices/system/node/node*; do copy $node/cpulist $node/meminfo $node/distance; done
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    copy $cpu/topology/core_id $cpu/topology/physical_package_id $cpu/cpufreq/* $cpu/acpi_cppc/nominal_freq
    for cache in $cpu/cache/index*; do
        for name in level type size ways_of_associativity coherency_line_size shared_cpu_list; do copy $cache/$name; done
    done
done
copy /sys/devices/system/cpu/vulnerabilities/* /sys/devices/system/cpu/online /sys/devices/system/cpu/offline
link /sys/bus/pci/devices/* /sys/bus/usb/devices/* /sys/class/net/* /sys/class/hwmon/* /sys/class/tpm/*
for slot in /sys/bus/pci/slots/*; do copy $slot/address; done
for dev in /sys/bus/pci/devices/*; do
    dev=$(readlink -f $dev) || continue
    for name in vendor device class revision subsystem_vendor subsystem_device numa_node resource \
        current_link_speed current_link_width max_link_speed max_link_width; do copy $dev/$name; done
    link $dev/driver $dev/physfn $dev/iommu_group
done
for dev in /sys/bus/usb/devices/*; do
    dev=$(readlink -f $dev) || continue
    for name in busnum devnum idVendor idProduct manufacturer product serial speed version bDeviceClass; do copy $dev/$name; done
    link $dev/driver
done
for dev in /sys/class/net/* /sys/class/hwmon/* /sys/class/tpm/*; do
    dev=$(readlink -f $dev) || continue
    for name in address type carrier speed mtu name tpm_version_major caps; do copy $dev/$name; done
    copy $dev/temp* $dev/fan* $dev/in[0-9]* $dev/power[0-9]*
    link $dev/device $dev/device/driver
    copy $dev/device/description
    for bank in $dev/pcr-*; do [ -d $bank ] && mkdir -p $out$bank || true; done
done
link /sys/block/* /sys/dev/block/*
for dev in /sys/block/*; do
    dev=$(readlink -f $dev) || continue
    case $dev in */virtual/*) continue ;; esac
    for name in size ro removable hidden diskseq dev wwid serial uevent queue/rotational queue/logical_block_size \
        queue/physical_block_size; do copy $dev/$name; done
    link $dev/device $dev/subsystem
    part=$(readlink -f $dev/device) && [ -n "$part" ] || continue
    for name in model vendor serial rev firmware_rev wwid vpd_pg80 vpd_pg83; do copy $part/$name; done
    # Names of its place are made from what is above it.
    while [ "$part" != /sys/devices ]; do
        copy $part/uevent $part/unique_id $part/port_no $part/sas_address $part/nsid $part/address
        link $part/subsystem
        part=${part%/*}
    done
done
for port in /sys/class/ata_link/*; do port=$(readlink -f $port) && copy $port/sata_spd || true; done
copy /proc/self/mountinfo
mkdir -p $out/dev
dmesg | grep "efi: EFI v" | sed "s/.*efi: EFI/6,1,0,-;efi: EFI/" >$out/dev/kmsg || true
tar -C $out -c .
'

# A port that is free now.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for name in "${shapes[@]}"; do
    shape "$name" >"$work/args"
    echo "capture: $name"
    # shellcheck disable=SC2046 # words
    qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -accel tcg,thread=multi -cpu max \
        -serial "file:$work/console" -device virtio-rng-pci -kernel "$kernel" -initrd "$initrd" \
        -append "console=ttyS0,115200 BOOTIF=01-52-54-00-a1-00-01 speediso.sshkey=\"$(cat "$work/key.pub")\"" \
        $(cat "$work/args") &
    machine=$!
    started+=("$machine")
    for _ in $(seq 150); do
        sleep 2
        kill -0 "$machine" 2>/dev/null || { tail -n 20 "$work/console"; exit 1; }
        inside true 2>/dev/null && break
    done
    inside "$collect" >"$work/$name.tar" || { tail -n 20 "$work/console"; exit 1; }
    kill "$machine"
    wait "$machine" || true
    mkdir -p "$work/$name"
    tar -C "$work/$name" -xf "$work/$name.tar"
    tar -C "$work/$name" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=a+rwX -cf - . | gzip -9n >"$out/$name.tar.gz"
    du -h "$out/$name.tar.gz"
done
