//! The plain listener: boot loaders speak nothing else. What is here is public but for the one-time tokens in scripts.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use speediso_model::api::path;
use speediso_model::inventory::canonical_mac;

use super::extract::Params;
use super::{ApiError, AppState, files};
use crate::boot_script::{self, ADDON, Word};
use crate::service::{Boot, BootQuery};

/// What of the build's directory boot loaders may have.
const FILES: [&str; 6] = ["vmlinuz", "initramfs.img", EFI, "build.json", TOOLS, ADDON];
/// What the ramdisk has no room for.
const TOOLS: &str = "tools.tar.zst";
/// Kernel and ramdisk as one program, for HTTP boot by the firmware itself.
const EFI: &str = "speediso.efi";

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(path::BOOT_IPXE, get(ipxe))
        .route(path::BOOT_PXELINUX, get(pxelinux))
        .route(path::BOOT_GRUB, get(grub))
        .route(path::BOOT_FILE, get(file))
}

fn script(text: String) -> Response {
    // A script holds a one-time token: no proxy may give it twice.
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}

async fn ipxe(State(app): State<AppState>, Params(query): Params<BootQuery>) -> Result<Response, ApiError> {
    let url = Word::new(&app.service.site.boot_url);
    if query.is_empty() {
        return Ok(script(boot_script::ipxe_chain(&url)));
    }
    Ok(script(match boot(&app, &query).await? {
        Boot::Ramdisk(cmdline) => boot_script::ipxe_ramdisk(&url, &cmdline)?,
        Boot::OwnDisk => boot_script::ipxe_own_disk(),
    }))
}

/// What the machine is to boot, with the way to what lies beside the ramdisk.
async fn boot(app: &AppState, query: &BootQuery) -> Result<Boot, ApiError> {
    let mut boot = app.service.boot(query).await?;
    if let Boot::Ramdisk(cmdline) = &mut boot {
        if app.boot_files.join(TOOLS).is_file() {
            cmdline.tools = Some(Word::new(&format!("{}/boot/{TOOLS}", app.service.site.boot_url)));
        }
        // A loader that is told to fetch what is not there boots nothing.
        cmdline.addon = app.boot_addon && app.boot_files.join(ADDON).is_file();
    }
    Ok(boot)
}

/// PXELINUX asks for its UUID, then `01-` and its MAC, then its address in ever fewer digits, then `default`: only the
/// first two say which machine it is. An unknown UUID is not found, so that it goes on to the MAC.
async fn pxelinux(State(app): State<AppState>, Path(file): Path<String>) -> Result<Response, ApiError> {
    let query = if file.starts_with("01-") {
        Some(BootQuery { mac: canonical_mac(&file), ..BootQuery::default() })
    } else {
        by_uuid(&app, &file).await?
    };
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Err(ApiError::not_found("configuration of this name"));
    };
    let url = Word::new(&app.service.site.boot_url);
    Ok(script(match boot(&app, &query).await? {
        Boot::Ramdisk(cmdline) => boot_script::pxelinux_ramdisk(&url, &cmdline)?,
        Boot::OwnDisk => boot_script::pxelinux_own_disk(),
    }))
}

/// The machine that PXELINUX names by its UUID, if it is known. It writes the bytes as its ROM hands them over: with most, the
/// first three fields are the other way round than everybody else reads them.
async fn by_uuid(app: &AppState, file: &str) -> Result<Option<BootQuery>, ApiError> {
    let Ok(uuid) = file.parse::<uuid::Uuid>() else { return Ok(None) };
    for uuid in [uuid, uuid::Uuid::from_bytes_le(uuid.into_bytes())] {
        let query = BootQuery { uuid: Some(uuid.to_string()), ..BootQuery::default() };
        if app.service.knows(&query).await? {
            return Ok(Some(query));
        }
    }
    Ok(None)
}

/// `grub.cfg` sends GRUB on to `grub.cfg-01-<its MAC>`.
async fn grub(State(app): State<AppState>, Path(file): Path<String>) -> Result<Response, ApiError> {
    let url = Word::new(&app.service.site.boot_url);
    if file == "grub.cfg" {
        return Ok(script(boot_script::grub_chain(&url)));
    }
    let mac = file.strip_prefix("grub.cfg-").filter(|rest| rest.starts_with("01-")).and_then(canonical_mac);
    let Some(mac) = mac else { return Err(ApiError::not_found("configuration of this name")) };
    let query = BootQuery { mac: Some(mac), ..BootQuery::default() };
    Ok(script(match boot(&app, &query).await? {
        Boot::Ramdisk(cmdline) => boot_script::grub_ramdisk(&url, &cmdline)?,
        Boot::OwnDisk => boot_script::grub_own_disk(),
    }))
}

async fn file(State(app): State<AppState>, Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let Some(name) = FILES.into_iter().find(|f| *f == name) else { return Err(ApiError::not_found("such file")) };
    files::serve(&app.boot_files.join(name), None, &headers).await
}
