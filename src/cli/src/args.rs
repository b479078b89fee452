//! What can be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use speediso_model::hints::RootDeviceHints;

/// Provision bare-metal machines through a Speediso controller.
///
/// MACHINE is a node's id, name, MAC address, serial number or SMBIOS UUID, as long as it names one only.
///
/// Exit status: 0 done; 1 failed; 2 bad command line; 3 cancelled; 4 interrupted, a person decides; 5 still open;
/// 69 the controller cannot be reached; 77 refused.
#[derive(Parser, Debug)]
#[command(name = "speediso", version, max_term_width = 100)]
pub(crate) struct Args {
    /// The controller, https://HOST:PORT
    #[arg(long, env = "SPEEDISO_CONTROLLER", global = true, hide_env_values = true)]
    pub(crate) controller: Option<String>,

    /// The controller's CA certificate (its `ca.pem`); nothing else is trusted
    #[arg(long, env = "SPEEDISO_CA_FILE", global = true, hide_env_values = true)]
    pub(crate) ca_file: Option<PathBuf>,

    /// File with the operator token (the controller's `operator.token`)
    #[arg(long, env = "SPEEDISO_TOKEN_FILE", global = true, hide_env_values = true)]
    pub(crate) token_file: Option<PathBuf>,

    /// Print the API's JSON, for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List the machines
    Machines,
    /// Show one machine with its inventory
    Machine {
        #[arg(value_name = "MACHINE")]
        node: String,
        /// Table of names of PCI devices (default: the distribution's pci.ids, if it is installed)
        #[arg(long, value_name = "FILE")]
        pci_ids: Option<PathBuf>,
    },
    /// Admit a pending machine whose console shows CODE
    Approve {
        #[arg(value_name = "MACHINE")]
        node: String,
        /// As the machine's console shows it
        #[arg(long)]
        code: String,
        /// Name for the machine
        #[arg(long)]
        name: Option<String>,
    },
    /// Record a machine before it was ever seen
    Create {
        name: String,
        #[arg(long = "mac", required = true)]
        macs: Vec<String>,
        #[arg(long)]
        uuid: Option<String>,
        #[arg(long)]
        serial_number: Option<String>,
    },
    /// Refuse every destructive order for the machine until `unprotect`
    Protect {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// Allow destructive orders again
    Unprotect {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// Release a machine from quarantine or maintenance, after somebody has looked at it
    Release {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// Let the machine boot the live system at its next network boot, without an order
    Arm {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// Order a profile (inventory, lininstall, wipe, decommission, shell) for one machine, once
    Apply {
        profile: String,
        #[arg(value_name = "MACHINE")]
        node: String,
        /// JSON file with the profile's parameters (`-` for standard input)
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Make and show the plan, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Stay and show the progress
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        with: OrderArgs,
        /// Needed for `decommission` and `wipe` of all disks: the machine's name again
        #[arg(long, value_name = "NAME")]
        yes_destroy: Option<String>,
    },
    /// Order a list of tasks (JSON) for one machine, once
    Run {
        #[arg(value_name = "MACHINE")]
        node: String,
        /// JSON file with a list of tasks (`-` for standard input)
        #[arg(long, value_name = "FILE")]
        tasks: PathBuf,
        #[command(flatten)]
        with: OrderArgs,
        /// Make and show the plan, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Stay and show the progress
        #[arg(long)]
        follow: bool,
    },
    /// Order an image to be made of a disk or a partition of a machine, once; the disk is only read
    Capture(Box<CaptureArgs>),
    /// List the orders
    Orders,
    /// Show one order with its tasks
    Order { order: String },
    /// Show the progress of an order, or of a machine's open order, until it ends
    Follow {
        #[arg(value_name = "ORDER|MACHINE")]
        what: String,
    },
    /// Cancel an order; a task that has begun to write is stopped at the next safe point
    Cancel { order: String },
    /// Let an interrupted order go on with another try
    Retry { order: String },
    /// Show what happened
    Events {
        /// Of one machine only
        #[arg(long, value_name = "MACHINE")]
        node: Option<String>,
        /// Of one order only
        #[arg(long)]
        order: Option<String>,
        /// Stay and show what comes
        #[arg(long)]
        follow: bool,
    },
    /// Show a machine's log, or put all that is known of the machine into one file
    Logs(LogsArgs),
    /// Go into a machine's live system by ssh, which never asks who it is: its key is known from its enrolment
    ///
    /// Exit status: that of ssh.
    Ssh(SshArgs),
    /// Print blocks for ~/.ssh/config, and write the known_hosts file that they name
    SshConfig(SshConfigArgs),
    /// Be ssh's way to a machine that nobody can reach: a tunnel that its agent opens (for ProxyCommand)
    SshProxy {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// List who was in a machine's live systems, or get the recording of a session
    SshSessions(SshSessionsArgs),
    /// Show what needs a person
    Alerts,
    /// List the rules that admit machines without a person
    Rules,
    /// Add or remove such a rule
    #[command(subcommand)]
    Rule(RuleCommand),
    /// List the images in the controller's store
    Images,
    /// Put an image into the controller's store
    #[command(subcommand)]
    Image(ImageCommand),
    /// List the certificates of sanitization, newest first
    Certificates(CertificatesArgs),
    /// Get certificates of sanitization, and what belongs to them
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Stress a machine before it is used, and see what was measured
    #[command(subcommand)]
    BurnIn(BurnInCommand),
    /// Verify a certificate of sanitization with the site's public key alone (no controller needed)
    ///
    /// Exit status: 0 valid; 1 not valid; 66 a file cannot be read, or is no certificate at all.
    VerifyCertificate(VerifyCertificateArgs),
    /// Let the machine that this runs on leave its system and boot the ramdisk at once (kexec; no controller needed)
    BootInto(Box<crate::boot_into::BootIntoArgs>),
    /// Write the configurations of dnsmasq and nginx for a small site (no controller needed)
    BootFiles(Box<crate::boot_files::BootFilesArgs>),
    /// Make a key pair for signing task files (no controller needed)
    Keygen {
        /// The private key goes here (0600), the public key to stdout
        #[arg(value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign a task file for `speediso.tasks=` (no controller needed); writes FILE.sig
    SignTasks {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[arg(long)]
        key: PathBuf,
    },
}

/// What any order may bring.
#[derive(ClapArgs, Debug)]
pub(crate) struct OrderArgs {
    /// No task of the order touches a disk with these properties (`serial=S1`, `size<100GiB`); may be repeated
    #[arg(long = "skip", value_name = "HINTS")]
    pub(crate) skip: Vec<RootDeviceHints>,
    /// JSON file with what is to stand on certificates: confidentiality, destination, property numbers
    #[arg(long, value_name = "FILE")]
    pub(crate) notes: Option<PathBuf>,
}

/// Where the controller is and what it is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) controller: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct SshArgs {
    #[arg(value_name = "MACHINE")]
    pub(crate) node: String,
    /// Through a tunnel that the machine's agent opens to the controller, for machines that nobody can reach
    #[arg(long)]
    pub(crate) tunnel: bool,
    /// Through this host, as ssh's -J takes it; `controller` is the controller's own
    #[arg(long, value_name = "HOST", env = "SPEEDISO_SSH_JUMP", hide_env_values = true)]
    pub(crate) jump: Option<String>,
    /// How long the machine is to be open; sessions end with it [default: 60]
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=i64::from(speediso_model::ssh::MAX_MINUTES)))]
    pub(crate) minutes: Option<u32>,
    /// Private key to come with (its public half, FILE.pub, is let in); a fresh one for this once, if not given
    #[arg(long, short, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// Command to run there; a shell if there is none
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct SshConfigArgs {
    /// One machine only
    #[arg(value_name = "MACHINE")]
    pub(crate) node: Option<String>,
    /// Through tunnels (ProxyCommand)
    #[arg(long)]
    pub(crate) tunnel: bool,
    /// Through this host (ProxyJump); `controller` is the controller's own
    #[arg(long, value_name = "HOST", env = "SPEEDISO_SSH_JUMP", hide_env_values = true)]
    pub(crate) jump: Option<String>,
    /// Where the machines' host keys are written
    #[arg(long, value_name = "FILE", default_value = "speediso_known_hosts")]
    pub(crate) known_hosts: PathBuf,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct SshSessionsArgs {
    #[arg(value_name = "MACHINE")]
    pub(crate) node: String,
    /// Get this session's recording, for `asciinema play`
    #[arg(long, value_name = "ID")]
    pub(crate) get: Option<speediso_model::ssh::SessionId>,
    #[arg(long, short, value_name = "FILE", requires = "get")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct LogsArgs {
    #[arg(value_name = "MACHINE")]
    pub(crate) node: String,
    /// Stay and show what comes
    #[arg(long, short, conflicts_with = "bundle")]
    pub(crate) follow: bool,
    /// The kernel's messages too
    #[arg(long)]
    pub(crate) kernel: bool,
    /// Of this boot (the beginning of its id) instead of the newest
    #[arg(long, value_name = "BOOT")]
    pub(crate) boot: Option<String>,
    /// Write a support bundle (tar.zst): logs, events, orders, inventory, network findings; free of secrets
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BurnInCommand {
    /// Order a burn-in, once
    Start {
        #[arg(value_name = "MACHINE")]
        node: String,
        /// A shipped scenario (quick, standard, soak), or a JSON file with one's own
        #[arg(long, value_name = "NAME|FILE", default_value = "quick")]
        scenario: String,
        /// Restarts afterwards, each followed by a look at the hardware
        #[arg(long, value_name = "N", default_value_t = 0)]
        reboots: u16,
        /// Make and show the plan, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Stay and show the progress
        #[arg(long)]
        follow: bool,
        /// Needed for a scenario that writes to disks or runs programs of its own: the machine's name again
        #[arg(long, value_name = "NAME")]
        yes_destroy: Option<String>,
    },
    /// Show the newest report, beside other machines of the same model
    ///
    /// Exit status: 0 passed; 1 failed or inconclusive.
    Report {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum RuleCommand {
    /// Admit machines that have all of these
    Add {
        #[arg(long)]
        manufacturer: Option<String>,
        #[arg(long)]
        product_name: Option<String>,
        #[arg(long)]
        serial_prefix: Option<String>,
        #[arg(long)]
        mac_prefix: Option<String>,
    },
    /// Remove a rule
    Remove { id: i64 },
}

#[derive(Subcommand, Debug)]
pub(crate) enum ImageCommand {
    /// Upload an image, or the directory of a manifest image; prints the part of an order that names it
    Add {
        file: PathBuf,
        /// Name in the store; that of the file, or of the directory with .json, by default
        #[arg(long)]
        name: Option<String>,
    },
    /// Pack a disk image or a disk into a manifest image, which is written faster and resumed anywhere
    Pack(PackArgs),
    /// Read a manifest image whole and compare every chunk
    Verify {
        directory: PathBuf,
        /// Public key (64 hex digits) that must have signed it
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
    },
    /// Show what a manifest image or an image file is
    Info { path: PathBuf },
    /// Make a raw image of a manifest image again
    Unpack {
        directory: PathBuf,
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// Public key (64 hex digits) that must have signed it
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
    },
}

#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("to").required(true).args(["name", "url"]))]
pub(crate) struct CaptureArgs {
    #[arg(value_name = "MACHINE")]
    pub(crate) node: String,
    /// Root device hints, such as serial=S4EWNX0M
    #[arg(long, value_name = "HINTS")]
    pub(crate) device: RootDeviceHints,
    /// Only this partition: its number, its name in the GPT, or its UUID
    #[arg(long, value_name = "PARTITION")]
    pub(crate) partition: Option<String>,
    /// Name in the controller's image store
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Folder of a server that takes PUT, instead of the store
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// File with headers for that server, one `Name: value` a line
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) headers: Option<PathBuf>,
    /// Of zstd, 1 to 19; 0 compresses nothing
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=19))]
    pub(crate) level: u8,
    /// Show what would be read and where it would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stay and show the progress
    #[arg(long)]
    pub(crate) follow: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct PackArgs {
    /// Raw image, compressed or not, qcow2 image, or block device
    pub(crate) source: PathBuf,
    /// Directory to make
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What data and index are called; several images in one place need different names
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A power of two from 64 to 16384; 1024, and more for disks over 256 GiB, if not given
    #[arg(long, value_name = "KIB")]
    pub(crate) chunk_size: Option<u32>,
    /// Of zstd, 1 to 19; 0 compresses nothing
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub(crate) level: i32,
    /// File with an ed25519 key (from `speediso keygen`) to sign with
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Make the filesystem of the last partition (ext2/3/4, NTFS) as small as it can be, on a copy, and the disk with
    /// it, so that the image fits on smaller disks
    #[arg(long)]
    pub(crate) shrink: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CertificatesArgs {
    /// Of one machine only
    #[arg(long, value_name = "MACHINE")]
    pub(crate) node: Option<String>,
    /// Of one order only
    #[arg(long)]
    pub(crate) order: Option<String>,
    /// Of the device or machine with this serial number
    #[arg(long)]
    pub(crate) serial: Option<String>,
    /// Issued on this day (UTC) or later
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Issued before this day (UTC)
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// With a lower number: the next part of a long list
    #[arg(long, value_name = "NUMBER")]
    pub(crate) before: Option<u64>,
    #[arg(long)]
    pub(crate) limit: Option<u32>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum CertificateCommand {
    /// Get one: the signed document, every byte as it was signed
    Get {
        number: u64,
        /// The page to be printed instead
        #[arg(long)]
        html: bool,
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Get all of them in order, one a line, to be kept elsewhere and verified against
    Chain {
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Certify the whole machine of an order, or learn which of its disks lacks a certificate
    Machine { order: String },
    /// Show the public keys that certificates are, or were, signed with
    Keys,
    /// Sign with a new key from now on; the old one is destroyed, its public half kept
    RotateKey,
    /// Show what the site decided about its certificates, or decide it anew
    Policy {
        #[arg(long)]
        organization: Option<String>,
        /// Where the site is
        #[arg(long)]
        location: Option<String>,
        /// Name and title of the person who answers for the certificates
        #[arg(long)]
        responsible: Option<String>,
        /// Certify volumes of hardware RAIDs and virtual disks too, in words that say what they are
        #[arg(long, value_name = "BOOL")]
        certify_volumes: Option<bool>,
    },
    /// Show every disk that was ever seen in a machine
    Disks {
        #[arg(value_name = "MACHINE")]
        node: String,
    },
    /// Say where a disk is that is not in its machine any more; it stands on the machine's certificate
    DiskGone {
        #[arg(value_name = "MACHINE")]
        node: String,
        /// As `certificate disks` shows it
        key: String,
        #[arg(long)]
        why: String,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct VerifyCertificateArgs {
    /// The document, as `certificate get` gives it
    pub(crate) file: PathBuf,
    /// The site's public key: 64 hex digits, or a file with them or with PEM; several after a rotation
    #[arg(long = "key", value_name = "PUBKEY", required = true)]
    pub(crate) keys: Vec<String>,
    /// The site's chain, as `certificate chain` gives it: verified whole, with the document in its place
    #[arg(long, value_name = "FILE")]
    pub(crate) chain: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn help_is_as_documented() {
        Args::command().debug_assert();
        insta::assert_snapshot!(Args::command().render_long_help());
    }
}
