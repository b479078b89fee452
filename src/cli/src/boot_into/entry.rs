//! What the controller's iPXE script boots. Only scripts of ours are read: two files by URL and a command line.

use anyhow::{Context as _, Result, bail, ensure};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) kernel: String,
    pub(super) ramdisk: String,
    pub(super) words: Vec<String>,
}

pub(super) fn of_script(script: &str) -> Result<Entry> {
    ensure!(script.starts_with("#!ipxe"), "it is no boot script");
    let (mut kernel, mut ramdisk, mut words) = (None, None, Vec::new());
    for line in script.lines() {
        // What follows is what iPXE does if it fails.
        let mut parts = line.split(" || ").next().unwrap_or_default().split_whitespace();
        match parts.next() {
            Some("kernel") => {
                kernel = parts.next().map(str::to_owned);
                words = parts.map(str::to_owned).collect();
            }
            Some("initrd") => ramdisk = parts.find(|word| word.contains("://")).map(str::to_owned),
            _ => {}
        }
    }
    let Some(kernel) = kernel else {
        bail!(
            "the controller sends this machine to its own disk: no order is open for it. `speediso arm MACHINE` lets it \
             boot the live system once"
        );
    };
    let ramdisk = ramdisk.context("it names a kernel and no ramdisk")?;
    for url in [&kernel, &ramdisk] {
        ensure!(url.starts_with("http://"), "{url} is no address that boot loaders use");
    }
    Ok(Entry { kernel, ramdisk, words })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "#!ipxe\n\
        kernel http://192.0.2.1:8080/boot/vmlinuz speediso.controller=https://192.0.2.1:8443 ip=dhcp initrd=initramfs.img || goto failed\n\
        initrd --name initramfs.img http://192.0.2.1:8080/boot/initramfs.img || goto failed\n\
        boot || goto failed\n:failed\nreboot\n";

    #[test]
    fn the_controllers_script_is_read() {
        let entry = of_script(SCRIPT).expect("ours");
        assert_eq!(entry.kernel, "http://192.0.2.1:8080/boot/vmlinuz");
        assert_eq!(entry.ramdisk, "http://192.0.2.1:8080/boot/initramfs.img");
        assert_eq!(entry.words, ["speediso.controller=https://192.0.2.1:8443", "ip=dhcp", "initrd=initramfs.img"]);
    }

    #[test]
    fn what_boots_nothing_of_ours_is_said() {
        let disk =
            of_script("#!ipxe\niseq ${platform} efi && exit 1 ||\nsanboot --no-describe --drive 0x80 || exit 1\n");
        assert!(disk.expect_err("its own disk").to_string().contains("speediso arm"));
        assert!(of_script("<html>").is_err());
        assert!(of_script(&SCRIPT.replace("initrd --name", "# initrd")).is_err());
        assert!(of_script(&SCRIPT.replace("kernel http:", "kernel file:")).is_err());
    }
}
