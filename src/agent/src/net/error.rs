//! The network's faults, in words that say what was tried and what to look at.

use speediso_model::fault::{Fault, FaultCode};

use super::Tried;
use super::link::{LinkError, Nic};

pub(super) fn kernel(error: &LinkError, doing: &str) -> Fault {
    Fault::from_error(FaultCode::Internal, error).because(doing)
}

pub(super) fn no_nic() -> Fault {
    let mut fault = Fault::new(FaultCode::NoLink, "this machine has no network interface that the kernel knows");
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
    fault
}
