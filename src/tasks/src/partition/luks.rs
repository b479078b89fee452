//! LUKS2 by cryptsetup. The key goes through a pipe: it is on no command line and in no file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use speediso_model::fault::Fault;
use speediso_model::task::Luks;

use super::device;
use super::luks_header::{CIPHER, KEY_BITS};
use crate::tools::Toolbox;

pub(super) const PROGRAM: &str = "cryptsetup";
/// The crypto is asked for by name, which nobody answers in the ramdisk.
pub(super) const MODULES: [&str; 8] =
    ["dm_crypt", "xts", "ecb", "aes_generic", "aesni_intel", "sha256_generic", "af_alg", "algif_skcipher"];
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// An encrypted device that is open; closed in any case.
pub(super) struct Open<'a> {
    name: String,
    toolbox: &'a Toolbox<'a>,
    is_open: bool,
}

impl<'a> Open<'a> {
    /// Makes it over all of `under`, and opens it.
    pub(super) fn new(luks: &Luks, under: &Path, toolbox: &'a Toolbox<'a>) -> Result<Self, Fault> {
        let under = under.display().to_string();
        let key = luks.key.0.as_bytes();
        let mut arguments: Vec<String> =
            ["luksFormat", "--type", "luks2", "--batch-mode", "--cipher", CIPHER, "--key-file", "-"]
                .map(str::to_owned)
                .into();
        arguments.extend(["--key-size".to_owned(), KEY_BITS.to_string()]);
        let options = [
            ("--label", luks.label.clone()),
            ("--uuid", luks.uuid.map(|uuid| uuid.to_string())),
            ("--iter-time", luks.unlock_ms.map(|ms| ms.to_string())),
        ];
        arguments.extend(options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten());
        arguments.push(under.clone());
        toolbox.feed(PROGRAM, &arguments, key)?;
        // The same key opens it, or it would be lost.
        Self::unlock(luks, &under, &[], toolbox)
    }

    /// One that is there already, so that nothing can be written through it.
    pub(super) fn read_only(luks: &Luks, under: &Path, toolbox: &'a Toolbox<'a>) -> Result<Self, Fault> {
        Self::unlock(luks, &under.display().to_string(), &["--readonly"], toolbox)
    }

    fn unlock(luks: &Luks, under: &str, how: &[&str], toolbox: &'a Toolbox<'a>) -> Result<Self, Fault> {
        let name = format!("speediso-{:08x}", rand::random::<u32>());
        let arguments = [&["open", "--type", "luks2", "--key-file", "-"][..], how, &[under, &name]].concat();
        toolbox.feed(PROGRAM, &arguments, luks.key.0.as_bytes())?;
        Ok(Self { name, toolbox, is_open: true })
    }

    pub(super) fn path(&self) -> PathBuf {
        device::mapped(&self.name)
    }

    pub(super) fn close(mut self) -> Result<(), Fault> {
        self.is_open = false;
        self.shut()
    }

    /// Whoever looked at it last may hold it a moment longer.
    fn shut(&self) -> Result<(), Fault> {
        let shut = || self.toolbox.run(PROGRAM, &["close", &self.name]).map(drop);
        for _ in 1..TRIES {
            if shut().is_ok() {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        shut()
    }
}

/// Whether the key of the order opens what is there. Nothing is opened for it.
pub(super) fn try_key(luks: &Luks, under: &Path, toolbox: &Toolbox<'_>) -> Result<(), Fault> {
    let under = under.display().to_string();
    let arguments = ["open", "--test-passphrase", "--type", "luks2", "--key-file", "-", &under];
    toolbox.feed(PROGRAM, &arguments, luks.key.0.as_bytes()).map(drop)
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // There is an error to be told already.
            let _ = self.shut();
        }
    }
}
