//! The way into a machine, by the system's own ssh. Whom it meets there is known from the controller, so it never asks.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use speediso_model::api::{List, NodeView, path};
use speediso_model::ssh::{SessionView, SshAccessRequest, SshView};
use tempfile::TempDir;

use crate::args::{Place, SshArgs, SshConfigArgs, SshSessionsArgs};
use crate::client::Client;
use crate::commands::at;
use crate::{output, resolve};

/// `--jump controller`
const CONTROLLER: &str = "controller";

/// Opens the machine's ssh and goes there. The status is that of ssh.
pub(crate) async fn run(client: &Client, args: &SshArgs, place: &Place) -> Result<u8> {
    let node = resolve::node(client, &args.node).await?;
    let dir = tempfile::Builder::new().prefix("speediso-ssh-").tempdir().context("making a directory for the key")?;
    let identity = match &args.identity {
        Some(file) => file.clone(),
        None => make_key(&dir)?,
    };
    let request = SshAccessRequest { minutes: args.minutes, key: public_half(&identity)? };
    let view: SshView = client.post(&at(path::NODE_SSH, node.id), &request).await?;
    let known_hosts = dir.path().join("known_hosts");
    std::fs::write(&known_hosts, known_host(usable(&view)?)).context("writing known_hosts")?;

    let mut ssh = Command::new("ssh");
    for (key, value) in options(&view, &known_hosts, Some(&identity)) {
        ssh.arg("-o").arg(format!("{key}={value}"));
    }
    match (args.tunnel, &args.jump) {
        (true, _) => {
            ssh.arg("-o").arg(format!("ProxyCommand={}", proxy_command(place, &view.name)?));
        }
        (false, Some(jump)) => {
            ssh.arg("-J").arg(jump_host(jump, client)?);
        }
        (false, None) => {}
    }
    ssh.arg(format!("root@{}", destination(&view, args.tunnel)?));
    // As ssh has it: the words together are one line for the shell there.
    ssh.args(&args.command);
    let status = ssh.status().context("starting ssh; is OpenSSH's client installed?")?;
    Ok(u8::try_from(status.code().unwrap_or(255)).unwrap_or(255))
}

/// Good for this once: whoever may ask the controller may come in.
fn make_key(dir: &TempDir) -> Result<PathBuf> {
    let file = dir.path().join("key");
    let comment = "speediso";
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .status()
        .context("starting ssh-keygen")?;
    anyhow::ensure!(made.success(), "ssh-keygen made no key: {made}");
    Ok(file)
}

/// Of a key of one's own, which may as well be among those that the machine lets in anyway.
fn public_half(identity: &Path) -> Result<Option<String>> {
    let mut name = identity.as_os_str().to_owned();
    name.push(".pub");
    match std::fs::read_to_string(&name) {
        Ok(text) => Ok(text.lines().next().map(str::to_owned)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", Path::new(&name).display())),
    }
}

/// # Errors
/// Says why nobody gets in.
fn usable(view: &SshView) -> Result<&SshView> {
    if let Some(why) = &view.refused {
        bail!("{} does not open its ssh: {why}", view.name);
    }
    if !view.in_force {
        bail!("{} has not answered yet; its agent may be busy or away: `speediso logs {0}` says more", view.name);
    }
    if view.host_key.is_none() {
        bail!("{} reported no host key, so nobody can tell it from another machine; see its console", view.name);
    }
    Ok(view)
}

fn known_host(view: &SshView) -> String {
    format!("{} {}\n", view.host_alias(), view.host_key.as_deref().unwrap_or_default())
}

fn options(view: &SshView, known_hosts: &Path, identity: Option<&Path>) -> Vec<(&'static str, String)> {
    let mut options = vec![
        ("HostKeyAlias", view.host_alias()),
        ("UserKnownHostsFile", known_hosts.display().to_string()),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("UpdateHostKeys", "no".into()),
        ("CheckHostIP", "no".into()),
        ("PasswordAuthentication", "no".into()),
        ("KbdInteractiveAuthentication", "no".into()),
        ("ServerAliveInterval", "15".into()),
    ];
    if let Some(identity) = identity {
        options.push(("IdentityFile", identity.display().to_string()));
        options.push(("IdentitiesOnly", "yes".into()));
    }
    options
}

fn destination(view: &SshView, tunnel: bool) -> Result<String> {
    match view.address {
        // Nobody connects there; it is what ssh calls the machine.
        _ if tunnel => Ok(view.name.clone()),
        Some(address) => Ok(address.to_string()),
        None => bail!("{} told no address; try --tunnel", view.name),
    }
}

fn jump_host(jump: &str, client: &Client) -> Result<String> {
    if jump != CONTROLLER {
        anyhow::ensure!(!jump.starts_with('-'), "{jump:?} is no host");
        return Ok(jump.to_owned());
    }
    client.host().context("the controller's URL names no host")
}

/// One word for a shell. `%` has a meaning for ssh before any shell sees it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ':' | '=' | '@' | '[' | ']');
    let word = word.replace('%', "%%");
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn proxy_command(place: &Place, machine: &str) -> Result<String> {
    let program = std::env::current_exe().context("finding the path of this program")?;
    let mut words = vec![program.display().to_string()];
    let absolute = |file: &Path| std::path::absolute(file).map(|f| f.display().to_string());
    let Place { controller, ca_file, token_file } = place;
    if let Some(controller) = controller {
        words.extend(["--controller".into(), controller.clone()]);
    }
    for (flag, file) in [("--ca-file", ca_file), ("--token-file", token_file)] {
        if let Some(file) = file {
            words.extend([flag.into(), absolute(file).with_context(|| format!("finding {}", file.display()))?]);
        }
    }
    words.extend(["ssh-proxy".into(), machine.into()]);
    Ok(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

/// Standard input and output become a stream to the machine's ssh server. Does not return: reading standard input cannot be
/// taken back.
pub(crate) async fn proxy(client: &Client, machine: &str) -> Result<u8> {
    let node = resolve::node(client, machine).await?;
    let mut stream = client.stream(&at(path::NODE_SSH_TUNNEL, node.id)).await?;
    let input = tokio::fs::File::from_std(File::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    let output = tokio::fs::File::from_std(File::from(std::io::stdout().as_fd().try_clone_to_owned()?));
    let mut here = tokio::io::join(input, output);
    let ended = tokio::io::copy_bidirectional(&mut here, &mut stream).await;
    std::process::exit(i32::from(ended.is_err()));
}

/// Blocks for `~/.ssh/config`, and the known_hosts that they name.
pub(crate) async fn config(client: &Client, args: &SshConfigArgs, place: &Place) -> Result<()> {
    let nodes = match &args.node {
        Some(text) => vec![resolve::node(client, text).await?],
        None => client.get::<List<NodeView>>(path::NODES).await?.items,
    };
    let known_hosts = std::path::absolute(&args.known_hosts).context("finding the place of known_hosts")?;
    let (mut blocks, mut hosts) = (String::new(), String::new());
    for node in nodes {
        let view: SshView = client.get(&at(path::NODE_SSH, node.id)).await?;
        if view.host_key.is_none() || (view.address.is_none() && !args.tunnel) {
            continue;
        }
        hosts.push_str(&known_host(&view));
        let way = match (args.tunnel, &args.jump) {
            (true, _) => Some(("ProxyCommand", proxy_command(place, &view.name)?)),
            (false, Some(jump)) => Some(("ProxyJump", jump_host(jump, client)?)),
            (false, None) => None,
        };
        blocks.push_str(&block(&view, &destination(&view, args.tunnel)?, &known_hosts, way));
    }
    // Written beside and renamed, so that no ssh reads half of it.
    let mut part = tempfile::NamedTempFile::new_in(known_hosts.parent().unwrap_or(Path::new("/")))
        .with_context(|| format!("writing {}", known_hosts.display()))?;
    part.write_all(hosts.as_bytes()).context("writing known_hosts")?;
    part.persist(&known_hosts).with_context(|| format!("writing {}", known_hosts.display()))?;
    print!("{blocks}");
    Ok(())
}

fn block(view: &SshView, destination: &str, known_hosts: &Path, way: Option<(&'static str, String)>) -> String {
    let mut text = format!("Host {}\n    HostName {destination}\n    User root\n", view.name);
    for (key, value) in options(view, known_hosts, None).into_iter().chain(way) {
        let value = if key == "UserKnownHostsFile" { format!("\"{value}\"") } else { value };
        text.push_str(&format!("    {key} {value}\n"));
    }
    text.push('\n');
    text
}

pub(crate) async fn sessions(client: &Client, args: &SshSessionsArgs, json: bool) -> Result<()> {
    if let Some(id) = args.get {
        let cast = client.get_bytes(&at(path::SSH_CAST, id)).await?;
        return match &args.out {
            Some(file) => std::fs::write(file, cast).with_context(|| format!("writing {}", file.display())),
            None => std::io::stdout().write_all(&cast).context("writing to standard output"),
        };
    }
    let node = resolve::node(client, &args.node).await?;
    let sessions: List<SessionView> = client.get(&at(path::NODE_SSH_SESSIONS, node.id)).await?;
    output::print(json, &sessions, |list| table(&list.items))
}

fn table(sessions: &[SessionView]) -> String {
    let mut table = output::table(&["BEGUN", "SECONDS", "STATUS", "FROM", "KEY", "WHAT", "RECORDING"]);
    for view in sessions {
        let session = &view.session;
        let seconds = session.ended_ms.map(|end| (end.saturating_sub(session.began_ms) / 1000).to_string());
        table.add_row([
            view.begun.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            seconds.unwrap_or_else(|| "goes on".into()),
            session.status.map_or_else(|| "-".into(), |status| status.to_string()),
            session.from.clone(),
            session.key.clone(),
            session.command.clone().unwrap_or_else(|| "(shell)".into()),
            format!("{}{}", session.id, if session.cut { " (cut)" } else { "" }),
        ]);
    }
    output::finish(&table, "nobody was there by ssh")
}

#[cfg(test)]
mod tests {
    use speediso_model::id::NodeId;

    use super::*;

    fn view() -> SshView {
        SshView {
            node: NodeId(uuid::Uuid::from_u128(7)),
            name: "web1".into(),
            host_key: Some("ssh-ed25519 AAAA".into()),
            fingerprint: None,
            address: Some("2001:db8::7".parse().expect("an address")),
            online: true,
            until: None,
            in_force: true,
            refused: None,
        }
    }

    #[test]
    fn a_machine_is_known_by_its_record_and_not_by_its_address() {
        let way = Some(("ProxyJump", "bastion.example".to_owned()));
        let text = block(&view(), &destination(&view(), false).expect("one"), Path::new("/home/me/known hosts"), way);
        assert!(text.starts_with("Host web1\n    HostName 2001:db8::7\n    User root\n"), "{text}");
        for line in [
            "HostKeyAlias speediso-00000000-0000-0000-0000-000000000007",
            "UserKnownHostsFile \"/home/me/known hosts\"",
            "StrictHostKeyChecking yes",
            "ProxyJump bastion.example",
        ] {
            assert!(text.contains(&format!("    {line}\n")), "{line}: {text}");
        }
        assert_eq!(known_host(&view()), "speediso-00000000-0000-0000-0000-000000000007 ssh-ed25519 AAAA\n");
        assert_eq!(destination(&view(), true).expect("a name"), "web1");
    }

    #[test]
    fn nobody_goes_where_the_host_key_is_not_known() {
        assert!(usable(&view()).is_ok());
        assert!(usable(&SshView { host_key: None, ..view() }).is_err());
        assert!(usable(&SshView { in_force: false, ..view() }).is_err());
        let refused = SshView { refused: Some("speediso.ssh=off".into()), ..view() };
        assert!(usable(&refused).expect_err("refused").to_string().contains("speediso.ssh=off"));
    }

    #[test]
    fn words_for_a_shell_stay_words() {
        assert_eq!(quoted("/usr/bin/speediso"), "/usr/bin/speediso");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's 5%"), r"'it'\''s 5%%'");
        assert_eq!(quoted(""), "''");
    }
}
