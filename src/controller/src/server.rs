//! Puts the parts together and serves.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use speediso_model::ssh::SshPolicy;
use tokio::task::JoinSet;

use crate::ca::Ca;
use crate::http::tls::{PeerAcceptor, server_config};
use crate::http::{self, AppState, OperatorToken};
use crate::images::ImageStore;
use crate::links::{LinkPartner, PortRange};
use crate::service::{Service, Site, watch_leases};
use crate::site_key::SiteSigner;
use crate::store::{SqliteStore, Store};
use crate::token;
use crate::tunnel::Tunnels;
use crate::wake::Wakes;

/// How long requests in hand may take when the controller is asked to end.
const GRACE: Duration = Duration::from_secs(10);

/// The server certificate lives 90 days and is made anew this often.
const CERTIFICATE_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
pub struct Settings {
    pub data: PathBuf,
    pub listen: SocketAddr,
    pub boot_listen: SocketAddr,
    /// Where agents and operators reach `listen`. Without it, the address itself.
    pub url: Option<String>,
    pub boot_url: Option<String>,
    pub boot_files: PathBuf,
    /// Boot entries load the add-on behind the ramdisk.
    pub boot_addon: bool,
    pub ssh_keys: Vec<String>,
    /// On which machines may try their link with this controller.
    pub link_test_ports: Option<PortRange>,
    /// The table of names of PCI devices; without it, the distribution's, if there is one.
    pub pci_ids: Option<PathBuf>,
    pub ssh: SshPolicy,
    pub idle_reboot: Option<Duration>,
}

/// A controller with both listeners open.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub boot_address: SocketAddr,
    pub state: AppState,
    handles: [Handle<SocketAddr>; 2],
    tasks: JoinSet<Result<()>>,
}

impl Server {
    /// Opens store and listeners. Requests are answered once this returns.
    ///
    /// # Errors
    /// When the data directory, the store or an address cannot be used.
    pub async fn start(settings: Settings) -> Result<Self> {
        let data = &settings.data;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .with_context(|| format!("making the data directory {}", data.display()))?;
        let database = data.join("speediso.db");
        // SQLite gives its journals the mode of the database: made here, so that none is ever readable by others.
        open_private(&database)?;
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&database).await.with_context(|| format!("opening {}", database.display()))?);
        let ca = Arc::new(Ca::from_store(&*store).await?);
        publish(&data.join("ca.pem"), &ca.pem())?;
        SiteSigner::ensure(&*store).await?;
        let operator = OperatorToken::from_secret(&operator_token(&data.join("operator.token"))?);
        let images = data.join("images");
        let images =
            ImageStore::in_directory(images.clone()).with_context(|| format!("opening {}", images.display()))?;

        let bind = |address: SocketAddr| {
            let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
            listener.set_nonblocking(true).context("preparing a listener")?;
            Ok::<_, anyhow::Error>(listener)
        };
        let (listener, boot_listener) = (bind(settings.listen)?, bind(settings.boot_listen)?);
        let (address, boot_address) = (listener.local_addr()?, boot_listener.local_addr()?);
        let url = settings.url.map_or_else(|| format!("https://{address}"), |u| u.trim_end_matches('/').to_owned());
        let host = host_of(&url).with_context(|| format!("{url:?} names no host"))?.to_owned();
        let boot_url = settings.boot_url.map_or_else(
            || format!("http://{}:{}", bracketed(&host), boot_address.port()),
            |u| u.trim_end_matches('/').to_owned(),
        );
        // One that was asked for and is not there is a mistake; without any there are numbers only.
        if let Some(table) = &settings.pci_ids {
            std::fs::File::open(table).with_context(|| format!("opening the table of names {}", table.display()))?;
        }
        let Settings { ssh_keys, ssh, idle_reboot, pci_ids, .. } = settings;
        let site = Site { url, boot_url, ssh_keys, ssh, idle_reboot, pci_ids };
        site.check()?;

        let mut names = vec![host, "127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        names.sort();
        names.dedup();

        let service =
            Service { store: Arc::clone(&store), wakes: Arc::new(Wakes::default()), ca, site: Arc::new(site) };
        let links = LinkPartner::with(settings.link_test_ports);
        let boot_files = Arc::new(settings.boot_files);
        let state = AppState {
            service,
            images,
            tunnels: Tunnels::default(),
            operator,
            boot_files,
            links,
            boot_addon: settings.boot_addon,
        };
        // Captures that went on when the controller ended may go on now; others are over.
        let swept = state.images.sweep(&state.service).await;
        swept.map_err(|e| anyhow::anyhow!("clearing the image store: {}", e.fault))?;
        let now = store.read().await?.now();
        let tls = RustlsConfig::from_config(server_config(&state.service.ca, &names, now)?);

        let handles = [Handle::new(), Handle::new()];
        let mut tasks = JoinSet::new();
        let api = axum_server::from_tcp(listener)?
            .acceptor(PeerAcceptor::new(tls.clone()))
            .handle(handles[0].clone())
            .serve(http::api(state.clone()).into_make_service());
        tasks.spawn(async { api.await.context("serving the API") });
        let boot = axum_server::from_tcp(boot_listener)?
            .handle(handles[1].clone())
            .serve(http::boot(state.clone()).into_make_service());
        tasks.spawn(async { boot.await.context("serving boot files") });
        let (wakes, waking) = (Arc::clone(&state.service.wakes), Arc::clone(&store));
        tasks.spawn(async move {
            wakes.run(&*waking).await;
            Ok(())
        });
        tasks.spawn({
            let service = state.service.clone();
            async {
                watch_leases(service).await;
                Ok(())
            }
        });
        tasks.spawn(renew_certificate(state.clone(), tls, names));
        for handle in &handles {
            handle.listening().await.context("a listener ended at once")?;
        }
        Ok(Self { address, boot_address, state, handles, tasks })
    }

    /// Until `stop` is ready or something that must not end does. Then no new connection is taken, and what is in
    /// hand is finished.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let ended = tokio::select! {
            () = stop => None,
            ended = self.tasks.join_next() => ended,
        };
        for handle in &self.handles {
            handle.graceful_shutdown(Some(GRACE));
        }
        while self.handles.iter().any(|h| h.connection_count() > 0) {
            // graceful_shutdown closes them by force after its time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tasks.shutdown().await;
        match ended {
            None => Ok(()),
            Some(joined) => joined.context("a part of the controller panicked")?,
        }
    }
}

async fn renew_certificate(state: AppState, tls: RustlsConfig, names: Vec<String>) -> Result<()> {
    loop {
        tokio::time::sleep(CERTIFICATE_AGE).await;
        let renewed = async {
            let now = state.service.store.read().await?.now();
            Ok::<_, anyhow::Error>(server_config(&state.service.ca, &names, now)?)
        };
        match renewed.await {
            Ok(config) => tls.reload_from_config(config),
            Err(error) => tracing::error!("renewing the server certificate; proceeding with the old one: {error:#}"),
        }
    }
}

fn host_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split('/').next()?;
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']')?.0,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn open_private(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("closing {} to others", path.display()))?;
    Ok(file)
}

/// The token in the file; made if there is none.
fn operator_token(path: &Path) -> Result<String> {
    let mut file = open_private(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
    if text.trim().is_empty() {
        text = token::new()?;
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .with_context(|| format!("writing {}", path.display()))?;
    }
    anyhow::ensure!(text.trim().len() >= 32, "the token in {} is too short to be safe", path.display());
    Ok(text.trim().to_owned())
}

/// Written beside and renamed, so that no reader sees half of it.
fn publish(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("new");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        assert_eq!(host_of("https://192.0.2.1:8443"), Some("192.0.2.1"));
        assert_eq!(host_of("https://[2001:db8::1]:8443"), Some("2001:db8::1"));
        assert_eq!(host_of("https://boot.example"), Some("boot.example"));
        assert_eq!(host_of("https://"), None);
        assert_eq!(host_of("boot.example"), None);
    }
}
