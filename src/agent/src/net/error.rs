//! The network's faults, in words that say what was tried and what to look at.

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::pci;
use speediso_sys::roots::Roots;

use super::Tried;
use super::link::{LinkError, Nic};

pub(super) fn kernel(error: &LinkError, doing: &str) -> Fault {
    Fault::from_error(FaultCode::Internal, error).because(doing)
}

pub(super) fn no_nic() -> Fault {
    let mut fault = Fault::new(FaultCode::NoLink, "this machine has no network interface that the kernel knows");
    fault.causes = idle_cards(&Roots::live());
    fault.advice = "look for the network card in the kernel log; add its driver or firmware to the ramdisk".to_owned();
    fault
}

pub(super) fn ambiguous(nics: &[Nic]) -> Fault {
    let mut fault =
        Fault::new(FaultCode::NoLink, format!("ip= sets an address, but {} interfaces have link", nics.len()));
    fault.causes = nics.iter().map(|nic| format!("{nic} has link")).collect();
    fault.advice = "name the interface by BOOTIF=01-<its MAC address>, or in the sixth field of ip=".to_owned();
    fault
}

/// Cards that are there and that no driver looks after: a module, or the firmware that it asks for, is missing.
fn idle_cards(roots: &Roots) -> Vec<String> {
    let cards = pci::network_cards(roots).unwrap_or_default();
    let idle = cards.into_iter().filter(|card| card.driver.is_none());
    idle.map(|card| {
        format!("network card {:04x}:{:04x} at {} has no driver here", card.vendor, card.device, card.address)
    })
    .collect()
}

/// No interface worked. Where any had link, the missing link of the others is not the trouble.
pub(super) fn nothing_worked(tried: &[Tried]) -> Fault {
    let linked = tried.iter().filter(|t| t.had_link).count();
    let mut fault = if linked == 0 {
        let message = match tried {
            [only] => format!("{} has no link", only.nic),
            several => format!("none of {} network interfaces has a link", several.len()),
        };
        Fault::new(FaultCode::NoLink, message)
    } else {
        let plural = if linked == 1 { "" } else { "s" };
        Fault::new(FaultCode::NoDhcp, format!("no usable answer from DHCP on {linked} interface{plural} with link"))
    };
    fault.causes = tried.iter().map(|t| format!("{}: {}", t.nic, t.what)).collect();
    fault.causes.extend(idle_cards(&Roots::live()));
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_a_driver_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        let card = roots.sys.join("bus/pci/devices/0000:00:03.0");
        std::fs::create_dir_all(&card).expect("made");
        for (file, text) in [("class", "0x020000"), ("vendor", "0x8086"), ("device", "0x1209")] {
            std::fs::write(card.join(file), text).expect("written");
        }
        assert_eq!(idle_cards(&roots), ["network card 8086:1209 at 0000:00:03.0 has no driver here"]);
        std::os::unix::fs::symlink("/sys", card.join("driver")).expect("linked");
        assert!(idle_cards(&roots).is_empty());
    }
}
