//! A disk that comes over a network: the machine is its own storage server, by NVMe over TCP.

/// Serves a file, connects to it, and gives the disk that comes of it a table.
pub(crate) const CONNECT: &str = r#"ip link set lo up 2>/dev/null || ifconfig lo up
mount -t configfs none /sys/kernel/config 2>/dev/null || true
truncate -s 32M /tmp/served
served=$(losetup -f) && losetup $served /tmp/served
cd /sys/kernel/config/nvmet
mkdir subsystems/nqn.2026-01.example:served && cd subsystems/nqn.2026-01.example:served
echo 1 >attr_allow_any_host; echo FABRIC >attr_serial; echo Served >attr_model
mkdir namespaces/1 && echo -n $served >namespaces/1/device_path && echo 1 >namespaces/1/enable
cd ../../ports && mkdir 1 && cd 1
echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo 127.0.0.1 >addr_traddr; echo 4420 >addr_trsvcid
ln -s ../../subsystems/nqn.2026-01.example:served subsystems/
uuid=00000000-0000-4000-8000-00000000fab1
echo -n "transport=tcp,traddr=127.0.0.1,trsvcid=4420,nqn=nqn.2026-01.example:served,hostnqn=nqn.2014-08.org.nvmexpress:uuid:$uuid,hostid=$uuid" >/dev/nvme-fabrics
n=0; until disk=$(d FABRIC 2>/dev/null) || [ $n -gt 50 ]; do n=$((n + 1)); sleep 0.2; done
t sgdisk -n 1:2048:0 $(d FABRIC)
grep -q tcp /sys/class/nvme/nvme*/transport"#;

/// What is left of the connection.
pub(crate) const CONNECTED: &str = "grep -l tcp /sys/class/nvme/nvme*/transport 2>/dev/null; true";
