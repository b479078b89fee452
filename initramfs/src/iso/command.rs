//! `speediso-initramfs iso` and `iso-parameters`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use uuid::Uuid;

use super::{Contents, FILE_NAME, Isolinux, make, parameters};
use crate::builds::Builds;
use crate::supply::Supply;
use crate::uki;

#[derive(Args, Debug)]
pub struct IsoArgs {
    /// Directory of the builds
    #[arg(long, default_value = "builds")]
    out: PathBuf,
    /// The build, instead of the latest
    #[arg(long)]
    number: Option<u64>,
    /// Further words for the kernel's command line
    #[arg(long, default_value = "")]
    cmdline: String,
    /// Text for the parameter partition (`-` for standard input), instead of comments only
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    /// The image's id, instead of a random one: the same inputs then give the same bytes
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// Private key of a certificate that the machines' firmware trusts (PEM)
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Its certificate (PEM)
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Where to put it
    #[arg(long, default_value = FILE_NAME)]
    to: PathBuf,
}

#[derive(Args, Debug)]
pub struct ParametersArgs {
    /// The image
    image: PathBuf,
    /// The new text (`-` for standard input); without it the present one is shown
    #[arg(value_name = "FILE")]
    parameters: Option<PathBuf>,
}

pub fn iso(args: &IsoArgs) -> Result<()> {
    let builds = Builds::in_directory(&args.out);
    let number = args.number.or(builds.latest()).context("there is no build yet: make one first")?;
    let of_build = |name| read(&builds.path(number).join(name));
    let supply = Supply::of_user()?;
    let (stub, _) = uki::stub(&supply)?;
    let text = args.parameters.as_deref().map(read_text).transpose()?;
    let id = args.id.unwrap_or_else(Uuid::new_v4);
    let image = make(&Contents {
        facts: &builds.facts(number)?,
        efi_stub: &stub,
        kernel: &of_build("vmlinuz")?,
        ramdisk: &of_build("initramfs.img")?,
        isolinux: &Isolinux::fetch(&supply)?,
        id,
        cmdline: &args.cmdline,
        owner: args.key.as_deref().zip(args.cert.as_deref()),
        parameters: text.as_deref().unwrap_or(parameters::TEMPLATE),
    })?;
    std::fs::write(&args.to, &image).with_context(|| format!("writing {}", args.to.display()))?;
    let signed = if args.key.is_some() { "signed" } else { "not signed" };
    println!("ramdisk: {} of build {number}, {} MiB, id {id}, {signed}", args.to.display(), image.len() >> 20);
    Ok(())
}

pub fn parameters(args: &ParametersArgs) -> Result<()> {
    let mut image = read(&args.image)?;
    let Some(file) = &args.parameters else {
        std::io::stdout().write_all(parameters::get(&image)?.as_bytes())?;
        return Ok(());
    };
    parameters::put(&mut image, &read_text(file)?)?;
    // Beside it first: an image that is cut off by a full disk must not take the place of the whole one.
    let dir = args.image.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new =
        tempfile::NamedTempFile::new_in(dir).with_context(|| format!("writing beside {}", args.image.display()))?;
    new.write_all(&image)?;
    new.as_file().set_permissions(std::fs::metadata(&args.image)?.permissions())?;
    new.persist(&args.image).with_context(|| format!("replacing {}", args.image.display()))?;
    println!("ramdisk: {} has new parameters", args.image.display());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
    } else {
        text = String::from_utf8(read(path)?).with_context(|| format!("{} is not text", path.display()))?;
    }
    Ok(text)
}
