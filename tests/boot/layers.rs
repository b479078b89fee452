//! What stands between a machine's cards and its addresses: a VLAN on a bond of two cards, with nothing else on the
//! wire that would lead to the controller.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use speediso_lab::{Dhcp, Lab, LabError, Site, tool};
use speediso_sys::ether::Ether;
use speediso_tests::{BOOT, Ramdisk, SOON, boot_words, programs};

const MAC: &str = "52:54:00:12:02:01";
const SECOND: &str = "52:54:00:12:02:02";
const UUID: &str = "22222222-2222-4222-8222-222222222202";
const VLAN: u16 = 100;

/// VLAN 100 of the laboratory's switch, led out untagged to an interface of its own: the kernel here may have no VLANs.
struct Trunk {
    done: Arc<AtomicBool>,
}

impl Trunk {
    /// The free end of the untagged side is `access`.
    fn lay(lab: &Lab) -> Self {
        let ip = |arguments: &str| tool::run(lab.command("ip").args(arguments.split(' '))).unwrap();
        ip("link add trunk type veth peer name trunk-port");
        ip("link add access-port type veth peer name access");
        ip("link set trunk-port master br0");
        for name in ["trunk", "trunk-port", "access", "access-port"] {
            ip(&format!("link set {name} up"));
        }
        ip("addr add 198.51.100.1/24 dev access");
        // Within one kernel checksums are left to a card that never comes; what is read as bytes needs them.
        tool::run(lab.command("ethtool").args(["-K", "access", "tx", "off"])).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        for (from, to) in [("trunk", "access-port"), ("access-port", "trunk")] {
            let done = Arc::clone(&done);
            let (inward, outward) = (index(lab, from), index(lab, to));
            let tags = to == "trunk";
            // Ends with the value; a frame is lost now and then while the other side's queue is full, as on any switch.
            lab.namespace().spawn(move || {
                carry(&Ether::open(inward).expect("root"), &Ether::open(outward).expect("root"), tags, &done);
                Ok::<(), LabError>(())
            });
        }
        Self { done }
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn index(lab: &Lab, name: &str) -> u32 {
    let line = tool::run(lab.command("ip").args(["-o", "link", "show", name])).unwrap();
    line.split(':').next().and_then(|number| number.trim().parse().ok()).unwrap()
}

fn carry(inward: &Ether, outward: &Ether, tags: bool, done: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !done.load(Ordering::Relaxed) {
        let Ok(seen) = inward.receive(&mut bytes) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let frame = &bytes[..seen.length];
        if seen.is_own || frame.len() < 14 {
            continue;
        }
        let _ = match (tags, seen.vlan) {
            (true, None) => {
                let tag = [0x81, 0x00, VLAN.to_be_bytes()[0], VLAN.to_be_bytes()[1]];
                outward.send(&[&frame[..12], &tag, &frame[12..]].concat())
            }
            // The kernel has taken the tag out already.
            (false, Some(VLAN)) => outward.send(frame),
            _ => Ok(()),
        };
    }
}

/// Two cards, one bond, one VLAN on it, DHCP and the way to the controller only there.
#[test]
fn a_machine_reaches_its_controller_over_a_vlan_on_a_bond() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let words = boot_words(&lab, MAC, UUID, "LAYERS").unwrap().join(" ");
    lab.set_dhcp(&Dhcp::Silent).unwrap();
    let _trunk = Trunk::lay(&lab);
    let mut dnsmasq = lab.command("dnsmasq");
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-", "--user=root"]);
    dnsmasq.args(["--pid-file=", "--interface=access", "--bind-interfaces", "--leasefile-ro", "--no-ping"]);
    dnsmasq.args(["--dhcp-range=198.51.100.100,198.51.100.110,255.255.255.0,1h"]);
    let mut dnsmasq = lab.spawn("dnsmasq-vlan", dnsmasq).unwrap();
    dnsmasq.wait_for("started", SOON).unwrap();

    let dash = |mac: &str| mac.replace(':', "-");
    let layers = format!("speediso.bond=active-backup:{},{} speediso.vlan={VLAN}", dash(MAC), dash(SECOND));
    let mut machine = Ramdisk::of(&programs)
        .machine("layers", &format!("{words} {layers}"))
        .memory_mib(384)
        .mac(MAC)
        .second_nic(SECOND)
        .uuid(UUID)
        .serial("LAYERS")
        .power_on(&lab)
        .unwrap();
    machine.wait_for("uplink is a bond of ", BOOT).unwrap();
    machine.wait_for("uplink.100 (52:54:00:12:02:01): 198.51.100.1", SOON).unwrap();
    // The address leads to the controller, which is behind the VLAN's gateway.
    site.wait_machine("LAYERS", "pending", SOON, |node| node.code.is_some()).unwrap();
}
