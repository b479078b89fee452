//! The laboratory as a small site that stays: what `docs/small-site.md` sets up on real hosts, with virtual machines.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use speediso_lab::{Chain, Dhcp, Disk, Firmware, GATEWAY, Lab, Machine, MachineSpec, Programs, Site, Web, repository};

use crate::demo;
use crate::show::fact;

pub(crate) struct Options {
    pub(crate) machines: u8,
    pub(crate) firmware: Vec<Firmware>,
    pub(crate) memory_mib: u32,
    pub(crate) disk_gib: u64,
    pub(crate) proxy: bool,
    pub(crate) port: u16,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // Addresses of one network of 256 are given to machines in order.
    ensure!(options.machines <= 80, "80 machines have addresses here");
    let root = repository(&std::env::current_dir()?).context("run the laboratory inside the repository")?;
    if !nix::unistd::geteuid().is_root() {
        return demo::become_root();
    }
    let programs = Programs::beside_this(&root)?;
    let accel = demo::accel(&programs)?;
    let boot_url = format!("http://{GATEWAY}");
    let mut builder = Lab::builder().chain(Chain::Url(format!("{boot_url}/boot/ipxe")));
    if options.proxy {
        builder = builder.dhcp(Dhcp::Proxy);
    }
    let lab = builder.build()?;
    let _other = options.proxy.then(|| lab.other_dhcp_server()).transpose()?;
    let mut site = Site::prepare(&lab, &programs, options.port)?;
    site.behind(&boot_url);
    site.start_controller()?;
    let images = root.join("target/images");
    std::fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
    let builds = programs.boot_files.parent().unwrap_or(Path::new("builds"));
    let _web = Web::of_site(&lab, builds, &images)?;

    let mut machines = Vec::new();
    for (n, firmware) in (1..=options.machines).zip(options.firmware.iter().copied().cycle()) {
        let name = format!("lab{n}");
        let disk = lab.dir().join(format!("{name}.disk"));
        File::create(&disk)
            .and_then(|file| file.set_len(options.disk_gib << 30))
            .with_context(|| format!("making {}", disk.display()))?;
        let machine = MachineSpec::new(&name)
            .firmware(firmware)
            .accel(accel)
            .memory_mib(options.memory_mib)
            .serial(&format!("LAB-{n:04}"))
            .disk(Disk::new(&disk, &format!("LAB-DISK-{n:04}")))
            .power_on(&lab)?;
        machines.push((machine, firmware));
    }
    tell(&lab, &site, &machines, options, &images);
    loop {
        // Ctrl-C ends it all.
        std::thread::park();
    }
}

fn tell(lab: &Lab, site: &Site<'_>, machines: &[(Machine<'_>, Firmware)], options: &Options, images: &Path) {
    println!("\nThe laboratory is open until Ctrl-C; nothing outlives it.\n");
    fact(format!("dashboard   {}/ (operator token: {})", site.url(), site.token_file().display()));
    fact(format!(
        "speediso    export SPEEDISO_CONTROLLER={} SPEEDISO_CA_FILE={} SPEEDISO_TOKEN_FILE={}",
        site.url(),
        site.ca_file().display(),
        site.token_file().display()
    ));
    fact("            speediso machines; speediso approve MACHINE --code CODE");
    fact(format!("images      {} is http://{GATEWAY}/images/ inside", images.display()));
    fact(format!("inside      sudo ip netns exec {} bash (192.0.2.0/24, this host is {GATEWAY})", lab.name()));
    let dhcp = if options.proxy { "of another server, 192.0.2.2; proxy-DHCP here" } else { "of dnsmasq here" };
    fact(format!("DHCP        {dhcp}; configurations: {}", lab.dir().display()));
    fact(format!("logs        {}", lab.logs().display()));
    for (machine, firmware) in machines {
        println!();
        fact(format!("{}  {firmware:?}, {}", machine.name(), machine.mac()));
        fact(format!(
            "      console   sudo socat -,raw,echo=0,escape=0x1d unix:{} (Ctrl-] leaves)",
            machine.console().display()
        ));
        fact(format!("      its log   {}", machine.serial().path().display()));
    }
}
