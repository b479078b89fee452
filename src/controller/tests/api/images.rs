//! The image store, and the files of boot loaders.

use crate::support::{Site, answer, declined, plain};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use speediso_model::api::{ImageView, List, path};
use speediso_model::fault::FaultCode;
use speediso_model::plan::hex;

async fn put(site: &Site, name: &str, bytes: Vec<u8>) -> crate::support::Answer<ImageView> {
    answer(site.operator.request(Method::PUT, &format!("/v1/images/{name}")).body(bytes)).await
}

#[tokio::test]
async fn images_come_back_whole_and_by_range() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let view = put(&site, "debian.raw", bytes.clone()).await.unwrap();
    assert_eq!(view.digest, format!("sha256:{}", hex(&Sha256::digest(&bytes))));
    assert_eq!((view.size, view.url), (3_000_000, format!("{}/v1/images/debian.raw", site.url)));
    let list: List<ImageView> = site.operator.get(path::IMAGES).await.unwrap();
    assert_eq!(list.items.len(), 1);

    let get = |range: &'static str, if_range: Option<String>| {
        let request = agent.client.request(Method::GET, "/v1/images/debian.raw").header("range", range);
        let request = if let Some(etag) = if_range { request.header("if-range", etag) } else { request };
        async { request.send().await.unwrap() }
    };
    let whole = agent.client.request(Method::GET, "/v1/images/debian.raw").send().await.unwrap();
    assert_eq!(whole.content_length(), Some(3_000_000));
    let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(etag, format!("\"{}\"", view.digest));
    assert!(whole.bytes().await.unwrap() == bytes);

    let part = get("bytes=1000000-", Some(etag.clone())).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 1000000-2999999/3000000");
    assert!(part.bytes().await.unwrap() == bytes[1_000_000..]);
    let part = get("bytes=10-19", None).await;
    assert!(part.bytes().await.unwrap() == bytes[10..20]);
    let outside = get("bytes=3000000-", None).await;
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(outside.headers()["content-range"], "bytes */3000000");

    // Another image under the same name: a resumed fetch gets the whole of it, not its tail.
    put(&site, "debian.raw", b"new".to_vec()).await.unwrap();
    let resumed = get("bytes=1-", Some(etag)).await;
    assert_eq!(resumed.status(), StatusCode::OK);
    assert_eq!(resumed.bytes().await.unwrap(), b"new"[..]);
    // The bytes that no name leads to are gone.
    assert_eq!(std::fs::read_dir(site.dir.path().join("data/images")).unwrap().count(), 1);
}

#[tokio::test]
async fn images_are_for_agents_and_operators() {
    let site = Site::start().await;
    put(&site, "i", b"x".to_vec()).await.unwrap();
    let stranger = site.agent(1).client;
    declined(stranger.get::<Value>("/v1/images/i").await, 401, FaultCode::TokenRefused);
    let agent = site.admitted(1).await;
    let upload = agent.client.request(Method::PUT, "/v1/images/i").body("y");
    declined(answer::<Value>(upload).await, 401, FaultCode::TokenRefused);
    declined(agent.client.get::<Value>("/v1/images/none").await, 404, FaultCode::TaskInvalid);
}

#[tokio::test]
async fn names_and_uploads_that_are_no_good() {
    let site = Site::start().await;
    for name in ["..%2f..%2fetc", ".hidden", "a%00b", "a%0ab", "a%20b"] {
        declined(put(&site, name, b"x".to_vec()).await, 400, FaultCode::TaskInvalid);
    }
    declined(put(&site, "empty", Vec::new()).await, 400, FaultCode::ImageTruncated);
    // An upload that breaks off leaves nothing behind.
    let broken = futures_util::stream::iter([Ok(vec![1u8; 100_000]), Err(std::io::Error::other("cable pulled"))]);
    let body = reqwest::Body::wrap_stream(broken);
    assert!(site.operator.request(Method::PUT, "/v1/images/broken").body(body).send().await.is_err());
    let directory = site.dir.path().join("data/images");
    for _ in 0..100 {
        if std::fs::read_dir(&directory).unwrap().count() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    let list: List<ImageView> = site.operator.get(path::IMAGES).await.unwrap();
    assert!(list.items.is_empty());
}

#[tokio::test]
async fn boot_loaders_get_the_ramdisk_and_nothing_else() {
    let site = Site::start().await;
    let get = |path: &str| plain().get(format!("{}{path}", site.boot_url)).send();
    let kernel = get("/boot/vmlinuz").await.unwrap();
    assert_eq!(kernel.content_length(), Some(6));
    assert_eq!(kernel.text().await.unwrap(), "kernel");
    let part =
        plain().get(format!("{}/boot/vmlinuz", site.boot_url)).header("range", "bytes=2-3").send().await.unwrap();
    assert_eq!(part.text().await.unwrap(), "rn");
    for path in [
        "/boot/secret",
        "/boot/..%2fdata%2foperator.token",
        "/boot/initramfs.img",
        "/boot/pxelinux.cfg/default",
        "/boot/pxelinux.cfg/C0000201",
        "/boot/pxelinux.cfg/4c4c4544-0042-3510-8052-b4c04f564231",
        "/boot/grub/other",
        "/v1/nodes",
        "/",
    ] {
        assert_eq!(get(path).await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }
    let text = |path: &str| {
        let url = format!("{}{path}", site.boot_url);
        async move { crate::support::script(&url).await }
    };
    assert!(text("/boot/ipxe").await.contains("mac=${netX/mac:hexhyp}&uuid=${uuid}"));
    assert!(text("/boot/pxelinux.cfg/01-52-54-00-00-00-63").await.contains("KERNEL http://127.0.0.1"));
    assert!(text("/boot/grub/grub.cfg-01-52:54:00:00:00:63").await.starts_with("linux (http,127.0.0.1"));
}
