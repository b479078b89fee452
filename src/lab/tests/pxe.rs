//! The laboratory itself: machines without a disk come up over PXE in both kinds of firmware, and nothing stays behind.
//! Needs root; the machines are emulated, half a minute in all.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use speediso_lab::{Chain, Dhcp, Firmware, GATEWAY, Lab, MachineSpec, runs};

const LIMIT: Duration = Duration::from_secs(90);

/// Both firmwares walk DHCP, TFTP, iPXE, DHCP again, script; each machine has its own address and identity; and when
/// the laboratory ends its namespace, directory and processes are gone.
#[test]
fn bios_and_uefi_machines_reach_an_ipxe_script() {
    // The BIOS console breaks lines at column 80: one fact per line.
    let script =
        "#!ipxe\necho PLATFORM ${platform}\necho SERIAL ${serial}\necho UUID ${uuid}\necho IP ${net0/ip}\nexit 1\n";
    let lab = Lab::builder().chain(Chain::Script(script.to_owned())).build().unwrap();
    let uuid = "11111111-2222-4333-8444-555555555555";
    let mut bios = MachineSpec::new("bios").firmware(Firmware::Bios).memory_mib(256).power_on(&lab).unwrap();
    let mut uefi = MachineSpec::new("uefi").memory_mib(256).serial("SER-1").uuid(uuid).power_on(&lab).unwrap();

    bios.wait_for("PLATFORM pcbios", LIMIT).unwrap();
    bios.wait_for("SERIAL BIOS", LIMIT).unwrap();
    let address = bios.address();
    bios.wait_for(&format!("IP {address}"), LIMIT).unwrap();

    uefi.wait_for("PLATFORM efi", LIMIT).unwrap();
    uefi.wait_for("SERIAL SER-1", LIMIT).unwrap();
    uefi.wait_for(&format!("UUID {uuid}"), LIMIT).unwrap();
    assert_ne!(uefi.address(), address);

    let (name, dir, logs) = (lab.name().to_owned(), lab.dir().to_owned(), lab.logs().to_owned());
    let pids = [bios.pid(), uefi.pid()];
    drop((bios, uefi));
    drop(lab);
    assert!(!PathBuf::from("/run/netns").join(&name).exists(), "the namespace is still there");
    assert!(!dir.exists() && !logs.exists(), "files are still there");
    assert!(runs().iter().all(|run| run.name != name));
    for pid in pids {
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists(), "QEMU still runs as {pid}");
    }
}

/// Where DHCP does not answer a machine does not boot, and once it answers again it does: the knob works both ways.
#[test]
fn silence_of_dhcp_is_silence_for_the_machine() {
    let script = "#!ipxe\necho HERE\nexit 1\n";
    let lab = Lab::builder().chain(Chain::Script(script.to_owned())).dhcp(Dhcp::Silent).build().unwrap();
    let mut machine = MachineSpec::new("m").firmware(Firmware::Bios).memory_mib(256).power_on(&lab).unwrap();
    machine.wait_for("Configuring", LIMIT).unwrap();
    // What iPXE says once its own time for DHCP is over.
    machine.wait_for("No configuration methods", LIMIT).unwrap();
    assert!(!machine.serial().text().contains("HERE"));
    lab.set_dhcp(&Dhcp::default()).unwrap();
    machine.reset().unwrap();
    machine.wait_for("HERE", LIMIT).unwrap();
}

/// A forward leads from the host into the namespace and back; the file server inside answers ranges and can be cut.
#[test]
fn the_host_reaches_the_inside_through_a_forward() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("hello"), "hello from inside").unwrap();
    let server = lab.serve_files(8081, &files).unwrap();
    let forward = lab.forward(0, SocketAddr::from((GATEWAY, 8081))).unwrap();

    let ask = |request: &str| {
        let mut stream = TcpStream::connect(forward.local()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(ask("GET /hello HTTP/1.1\r\n\r\n").ends_with("hello from inside"));
    assert!(ask("GET /hello HTTP/1.1\r\nRange: bytes=6-9\r\n\r\n").ends_with("\r\n\r\nfrom"));
    server.cut_after(5);
    assert!(ask("GET /hello HTTP/1.1\r\n\r\n").ends_with("\r\n\r\nhello"));
    assert_eq!(server.requests().len(), 3);
    // The host itself has no way there: only the forward leads inside.
    assert!(TcpStream::connect_timeout(&SocketAddr::from((GATEWAY, 8081)), Duration::from_secs(2)).is_err());
}
