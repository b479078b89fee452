//! The configurations that `speediso boot-files` writes for small sites: beside another DHCP server, and as a mirror.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use speediso_lab::{Chain, Dhcp, Firmware, GATEWAY, Lab, MachineSpec, Site, Web, repository, tool};
use speediso_tests::{BOOT, programs};

const LIMIT: Duration = Duration::from_secs(180);

/// Another server gives the addresses, ours only says what to boot: both kinds of firmware come to iPXE and to the script.
#[test]
fn beside_another_dhcp_server_machines_boot_as_well() {
    let script = "#!ipxe\necho PLATFORM ${platform}\necho IP ${net0/ip} HERE\nexit 1\n";
    let lab = Lab::builder().chain(Chain::Script(script.to_owned())).dhcp(Dhcp::Proxy).build().unwrap();
    let other = lab.other_dhcp_server().unwrap();
    let mut bios = MachineSpec::new("bios").firmware(Firmware::Bios).memory_mib(256).cpus(1).power_on(&lab).unwrap();
    let mut uefi = MachineSpec::new("uefi").memory_mib(256).cpus(1).power_on(&lab).unwrap();
    for (machine, platform) in [(&mut bios, "PLATFORM pcbios"), (&mut uefi, "PLATFORM efi")] {
        machine.wait_for(platform, LIMIT).unwrap();
        // The whole line: what stands behind the address is there.
        let line = machine.wait_for(" HERE", LIMIT).unwrap().line;
        let address: Ipv4Addr =
            line.trim().strip_prefix("IP ").unwrap().strip_suffix(" HERE").unwrap().parse().unwrap();
        let last = address.octets()[3];
        assert!((50..=60).contains(&last), "not of the other server: {address}");
    }
    assert!(other.log().text().contains("DHCPACK"), "{}", other.log().tail());
}

/// A mirror gives what the site gives: byte for byte, in pieces too, once fetched without asking again, and when the site is
/// away. Boot scripts, which hold tokens, are never kept; what is replaced at the site is replaced here.
#[test]
fn a_mirror_fills_itself() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let mut site = Site::start(&lab, &programs, 0).unwrap();
    let images = lab.dir().join("images");
    fs::create_dir(&images).unwrap();
    let picture: Vec<u8> = (0..9_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(images.join("disk.raw"), &picture).unwrap();
    let builds = lab.dir().join("builds");
    let kernel = fs::read(programs.boot_files.join("vmlinuz")).unwrap();
    for (number, content) in [("1", kernel.as_slice()), ("2", b"the next one")] {
        fs::create_dir_all(builds.join(number)).unwrap();
        fs::write(builds.join(number).join("vmlinuz"), content).unwrap();
    }
    symlink("1", builds.join("latest")).unwrap();
    let mut origin = Web::of_site(&lab, &builds, &images).unwrap();
    let _mirror = Web::mirror(&lab, "mirror", 8090, &format!("http://{GATEWAY}")).unwrap();

    let build = "/builds/1/vmlinuz";
    let script = "/boot/ipxe?mac=52:54:00:12:00:99";
    let part = "bytes=5000000-5000099";
    let get = |path: &str, range: Option<&str>| get(&lab, path, range);

    let first = get(build, None);
    assert!(first.body == kernel && first.cache == "MISS", "{}", first.cache);
    assert_eq!(get(build, None).cache, "HIT");
    // Not from the start, and no more than a piece of it fetched.
    let piece = get("/images/disk.raw", Some(part));
    assert_eq!((piece.status, piece.body.as_slice()), (206, &picture[5_000_000..5_000_100]));
    assert!(get("/images/disk.raw", None).body == picture);
    assert!(get("/boot/vmlinuz", None).body == kernel);
    let (one, two) = (get(script, None), get(script, None));
    assert!(one.body.starts_with(b"#!ipxe") && two.cache == "MISS", "a script was kept: {}", two.cache);
    let asked = origin.log().text().matches(build).count();
    assert_eq!(asked, 1, "{}", origin.log().tail());

    // The link to the newest build leads elsewhere.
    let latest = "/builds/latest/vmlinuz";
    assert!(get(latest, None).body == kernel);
    fs::remove_file(builds.join("latest")).unwrap();
    symlink("2", builds.join("latest")).unwrap();
    let end = Instant::now() + LIMIT;
    while get(latest, None).body != b"the next one" {
        assert!(Instant::now() < end, "the mirror stays with the old build");
        std::thread::sleep(Duration::from_millis(300));
    }

    origin.stop();
    site.kill_controller();
    for (path, wanted) in [(build, &kernel), ("/images/disk.raw", &picture), ("/boot/vmlinuz", &kernel)] {
        let got = get(path, None);
        assert!(got.status == 200 && got.body == *wanted, "{path}: {} {}", got.status, got.cache);
    }
    assert_eq!(get("/images/disk.raw", Some(part)).body, &picture[5_000_000..5_000_100]);
    assert_eq!(get(script, None).status, 502, "a script outlived its site");
}

/// iPXE built from Debian's source with one CA inside fetches script, kernel and ramdisk over HTTPS; from a server with another
/// CA's certificate it takes nothing.
#[test]
#[ignore = "builds iPXE, some minutes the first time; `make test-all` runs it"]
fn ipxe_over_https_trusts_one_ca() {
    let programs = programs().unwrap();
    let url = format!("https://{GATEWAY}");
    let lab = Lab::builder().chain(Chain::Url(format!("{url}/boot/ipxe"))).build().unwrap();
    let mut site = Site::prepare(&lab, &programs, 0).unwrap();
    site.behind(&url);
    site.start_controller().unwrap();
    // The build is kept by the CA among others, so this one is kept too.
    let cache = std::env::var_os("SPEEDISO_CACHE").map_or_else(|| lab.dir().to_owned(), PathBuf::from);
    let trusted = authority(&cache.join("ipxe-https"), "test");
    let repository = repository(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut build = Command::new(repository.join("deploy/ipxe-https.sh"));
    build.arg(trusted.join("ca.pem")).arg(&url).arg(lab.tftp_root()).arg("snponly.efi");
    tool::run(&mut build).unwrap();

    let foreign = authority(&lab.dir().join("foreign"), "another");
    let mut web = https(&lab, "wrong", &foreign);
    let spec = MachineSpec::new("m").memory_mib(768).cpus(1).serial("HTTPS-1");
    let mut machine = spec.power_on(&lab).unwrap();
    machine.wait_for("trying again in 10 s", LIMIT).unwrap();
    assert!(!machine.serial().text().contains("Linux version"));
    assert!(!web.log().text().contains("GET /boot"), "{}", web.log().tail());
    web.stop();
    drop(web);
    let _web = https(&lab, "right", &trusted);
    machine.wait_for("Command line:", BOOT).unwrap();
    site.wait_machine("HTTPS-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
}

/// An RSA CA, and a certificate of it for the boot server, in a directory of their own.
fn authority(base: &Path, name: &str) -> PathBuf {
    let dir = base.join(format!("{name}-ca"));
    if dir.join("chain.pem").exists() {
        return dir;
    }
    fs::create_dir_all(&dir).unwrap();
    let openssl = |words: &str| {
        tool::run(Command::new("openssl").args(words.split(' ')).current_dir(&dir)).unwrap();
    };
    openssl(&format!("req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN={name} -keyout ca.key -out ca.pem"));
    fs::write(dir.join("san"), format!("subjectAltName=IP:{GATEWAY}\n")).unwrap();
    openssl("req -new -newkey rsa:2048 -nodes -subj /CN=192.0.2.1 -keyout server.key -out server.csr");
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile san -out server.pem",
    );
    let chain = fs::read_to_string(dir.join("server.pem")).unwrap() + &fs::read_to_string(dir.join("ca.pem")).unwrap();
    fs::write(dir.join("chain.pem"), chain).unwrap();
    dir
}

/// The shipped configuration, with this authority's certificate.
fn https(lab: &Lab, name: &str, authority: &Path) -> Web {
    let config = include_str!("../../deploy/nginx-https.conf.in")
        .replace("@LISTEN@", &format!("{GATEWAY}:443"))
        .replace("@LOG@", "/dev/stderr")
        .replace("@CHAIN@", &authority.join("chain.pem").display().to_string())
        .replace("@KEY@", &authority.join("server.key").display().to_string())
        .replace("@CONTROLLER@", &Site::boot_listener());
    Web::start(lab, name, &config).unwrap()
}

struct Answer {
    status: u16,
    cache: String,
    body: Vec<u8>,
}

fn get(lab: &Lab, path: &str, range: Option<&str>) -> Answer {
    let body = lab.dir().join("body");
    let mut curl: Command = lab.command("curl");
    curl.args(["-sS", "--max-time", "60", "-w", "%{http_code} %header{x-speediso-mirror}", "-o"]).arg(&body);
    if let Some(range) = range {
        curl.args(["-H", &format!("Range: {range}")]);
    }
    let said = tool::run(curl.arg(format!("http://{GATEWAY}:8090{path}"))).unwrap();
    let (status, cache) = said.split_once(' ').unwrap();
    Answer {
        status: status.parse().unwrap(),
        cache: cache.trim().to_owned(),
        body: fs::read(&body).unwrap_or_default(),
    }
}
