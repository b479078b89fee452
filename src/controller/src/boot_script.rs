//! Boot scripts in three dialects, made of typed values.
//!
//! Whatever enters a script is a [`Word`]: letters, digits and a few marks that mean nothing to iPXE, PXELINUX, GRUB
//! or the kernel. There is no way for a newline, a quote, a blank, a `$` or a `;` to get in.

use std::fmt::{self, Display, Write as _};

use speediso_model::fault::{Fault, FaultCode};

/// x86 cuts the kernel line at 2048 bytes, the end mark included; a line that may be cut is refused.
const MAX_CMDLINE: usize = 2040;

/// Beside the ramdisk, if the build has one.
pub const ADDON: &str = "addon.img";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word(String);

impl Word {
    /// Keeps the characters that are plain in every dialect, drops all others: what is dropped was never ours.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(
            text.chars()
                .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/' | '[' | ']'))
                .collect(),
        )
    }
}

impl Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ramdisk's kernel line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cmdline {
    pub controller: Word,
    /// Hex of the CA's SHA-256.
    pub ca: Word,
    pub token: Option<Word>,
    pub profile: Option<Word>,
    /// With colons.
    pub mac: Option<Word>,
    /// URL of the tools archive, if the build has one. The ramdisk carries its digest.
    pub tools: Option<Word>,
    /// Whether the add-on of rare drivers and firmware is loaded behind the ramdisk.
    pub addon: bool,
}

impl Cmdline {
    /// # Errors
    /// `cmdline-truncated` when the kernel would not get the whole line.
    pub fn render(&self) -> Result<String, Fault> {
        let mut line = String::new();
        let mut add = |word: fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}{word}", if line.is_empty() { "" } else { " " });
        };
        if let Some(profile) = &self.profile {
            add(format_args!("SPEEDISO={profile}"));
        }
        add(format_args!("speediso.controller={}", self.controller));
        add(format_args!("speediso.ca=sha256:{}", self.ca));
        if let Some(token) = &self.token {
            add(format_args!("speediso.token={token}"));
        }
        if let Some(tools) = &self.tools {
            add(format_args!("speediso.tools={tools}"));
        }
        if let Some(mac) = &self.mac {
            // As boot loaders write it: the ARP hardware type in front, dashes.
            add(format_args!("BOOTIF=01-{}", mac.0.replace(':', "-")));
        }
        add(format_args!("ip=dhcp console=tty0 console=ttyS0,115200 initrd=initramfs.img"));
        if self.addon {
            add(format_args!("initrd={ADDON}"));
        }
        if line.len() > MAX_CMDLINE {
            return Err(Fault::new(
                FaultCode::CmdlineTruncated,
                format!("the kernel line would be {} bytes long; at most {MAX_CMDLINE} arrive", line.len()),
            ));
        }
        Ok(line)
    }
}

/// Sends the boot loader here again, with what it knows of its machine.
#[must_use]
pub fn ipxe_chain(boot_url: &Word) -> String {
    format!(
        "#!ipxe\n\
         isset ${{netX/ip}} || dhcp ||\n\
         chain --replace {boot_url}/boot/ipxe?mac=${{netX/mac:hexhyp}}&uuid=${{uuid}}&serial=${{serial:uristring}}&platform=${{platform}} || goto failed\n\
         :failed\n\
         echo speediso: no boot script from {boot_url}, trying the next boot device in 10 s\n\
         sleep 10\n\
         exit 1\n"
    )
}

/// # Errors
/// `cmdline-truncated`.
pub fn ipxe_ramdisk(boot_url: &Word, cmdline: &Cmdline) -> Result<String, Fault> {
    let line = cmdline.render()?;
    let addon = if cmdline.addon {
        format!("initrd --name {ADDON} {boot_url}/boot/{ADDON} || goto failed\n")
    } else {
        String::new()
    };
    Ok(format!(
        "#!ipxe\n\
         kernel {boot_url}/boot/vmlinuz {line} || goto failed\n\
         initrd --name initramfs.img {boot_url}/boot/initramfs.img || goto failed\n\
         {addon}\
         boot || goto failed\n\
         :failed\n\
         echo speediso: the ramdisk could not be loaded from {boot_url}, starting over in 10 s\n\
         sleep 10\n\
         reboot\n"
    ))
}

/// UEFI: a status other than 0 makes the firmware go on to its next boot entry (0 ends in its menu).
#[must_use]
pub fn ipxe_own_disk() -> String {
    "#!ipxe\n\
     iseq ${platform} efi && exit 1 ||\n\
     sanboot --no-describe --drive 0x80 || exit 1\n"
        .to_owned()
}

/// # Errors
/// `cmdline-truncated`.
pub fn pxelinux_ramdisk(boot_url: &Word, cmdline: &Cmdline) -> Result<String, Fault> {
    let line = cmdline.render()?;
    // Asked for by UUID, only the loader knows which interface it used.
    let ipappend = if cmdline.mac.is_none() { "  IPAPPEND 2\n" } else { "" };
    let addon = if cmdline.addon { format!(",{boot_url}/boot/{ADDON}") } else { String::new() };
    Ok(format!(
        "DEFAULT speediso\n\
         PROMPT 0\n\
         LABEL speediso\n\
         \x20 KERNEL {boot_url}/boot/vmlinuz\n\
         \x20 INITRD {boot_url}/boot/initramfs.img{addon}\n\
         \x20 APPEND {line}\n\
         {ipappend}"
    ))
}

#[must_use]
pub fn pxelinux_own_disk() -> String {
    "DEFAULT disk\nPROMPT 0\nLABEL disk\n  LOCALBOOT 0\n".to_owned()
}

/// GRUB names what it fetches by device: `(http,host:port)/path`.
fn grub_device(boot_url: &Word) -> String {
    format!("(http,{})", boot_url.0.trim_start_matches("http://"))
}

#[must_use]
pub fn grub_chain(boot_url: &Word) -> String {
    format!("configfile {}/boot/grub/grub.cfg-01-${{net_default_mac}}\n", grub_device(boot_url))
}

/// # Errors
/// `cmdline-truncated`.
pub fn grub_ramdisk(boot_url: &Word, cmdline: &Cmdline) -> Result<String, Fault> {
    let line = cmdline.render()?;
    let from = grub_device(boot_url);
    let addon = if cmdline.addon { format!(" {from}/boot/{ADDON}") } else { String::new() };
    Ok(format!("linux {from}/boot/vmlinuz {line}\ninitrd {from}/boot/initramfs.img{addon}\nboot\n"))
}

#[must_use]
pub fn grub_own_disk() -> String {
    "exit 1\n".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn cmdline() -> Cmdline {
        Cmdline {
            controller: Word::new("https://192.0.2.1:8443"),
            ca: Word::new(&"ab".repeat(32)),
            token: Some(Word::new(&"0f".repeat(32))),
            profile: Some(Word::new("lininstall")),
            mac: Some(Word::new("52:54:00:ab:cd:ef")),
            tools: Some(Word::new("http://192.0.2.1:8080/boot/tools.tar.zst")),
            addon: false,
        }
    }

    #[test]
    fn scripts() {
        let url = Word::new("http://192.0.2.1:8080");
        let all = [
            ("ipxe chain", ipxe_chain(&url)),
            ("ipxe ramdisk", ipxe_ramdisk(&url, &cmdline()).unwrap()),
            (
                "ipxe ramdisk without token",
                ipxe_ramdisk(&url, &Cmdline { token: None, profile: None, ..cmdline() }).unwrap(),
            ),
            ("ipxe own disk", ipxe_own_disk()),
            ("pxelinux ramdisk", pxelinux_ramdisk(&url, &cmdline()).unwrap()),
            ("pxelinux own disk", pxelinux_own_disk()),
            ("grub chain", grub_chain(&url)),
            ("grub ramdisk", grub_ramdisk(&url, &cmdline()).unwrap()),
            ("grub own disk", grub_own_disk()),
        ];
        let text: String = all.iter().map(|(name, script)| format!("=== {name}\n{script}")).collect();
        insta::assert_snapshot!(text);
    }

    /// The kernel unpacks both, in this order.
    #[test]
    fn the_addon_is_loaded_behind_the_ramdisk() {
        let url = Word::new("http://192.0.2.1:8080");
        let cmdline = Cmdline { addon: true, ..cmdline() };
        assert!(cmdline.render().unwrap().ends_with(" initrd=initramfs.img initrd=addon.img"));
        for (script, wanted) in [
            (
                ipxe_ramdisk(&url, &cmdline).unwrap(),
                "/boot/initramfs.img || goto failed\ninitrd --name addon.img http://192.0.2.1:8080/boot/addon.img || goto failed\nboot ",
            ),
            (
                pxelinux_ramdisk(&url, &cmdline).unwrap(),
                "INITRD http://192.0.2.1:8080/boot/initramfs.img,http://192.0.2.1:8080/boot/addon.img\n",
            ),
            (
                grub_ramdisk(&url, &cmdline).unwrap(),
                "initrd (http,192.0.2.1:8080)/boot/initramfs.img (http,192.0.2.1:8080)/boot/addon.img\n",
            ),
        ] {
            assert!(script.contains(wanted), "{wanted} is not in\n{script}");
        }
    }

    #[test]
    fn a_line_the_kernel_would_cut_is_refused() {
        let long = Cmdline { controller: Word::new(&format!("https://{}", "a".repeat(2000))), ..cmdline() };
        assert_eq!(ipxe_ramdisk(&Word::new("http://b"), &long).unwrap_err().code, FaultCode::CmdlineTruncated);
    }

    proptest! {
        /// Whatever the values are, a script has its lines and words and no more, and nothing a loader would expand.
        #[test]
        fn nothing_gets_into_a_script(url in ".{0,40}", ca in ".{0,40}", token in ".{0,80}", mac in ".{0,30}", host in "[a-z.]{1,20}") {
            let cmdline = Cmdline {
                controller: Word::new(&url),
                ca: Word::new(&ca),
                token: Some(Word::new(&token)),
                profile: Some(Word::new(&url)),
                mac: Some(Word::new(&mac)),
                tools: Some(Word::new(&token)),
                addon: false,
            };
            let boot = Word::new(&format!("http://{host}"));
            let line = cmdline.render().unwrap();
            prop_assert_eq!(line.split(' ').count(), 10);
            prop_assert!(line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
            let marks = ['"', '\'', '\\', '$', '`', ';', '&', '|', '#', '<', '>', '{', '}'];
            prop_assert!(!line.contains(marks));
            prop_assert_eq!(ipxe_ramdisk(&boot, &cmdline).unwrap().lines().count(), 8);
            prop_assert_eq!(pxelinux_ramdisk(&boot, &cmdline).unwrap().lines().count(), 6);
            prop_assert_eq!(grub_ramdisk(&boot, &cmdline).unwrap().lines().count(), 3);
        }
    }
}
