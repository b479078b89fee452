//! Images that agents send, and that nobody else can.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use speediso_image::manifest::ImageDirectory;
use speediso_model::api::{ImageView, List, path};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::hex;

use crate::support::{Agent, Answer, Site, answer, declined, done, plan, task_ctx, write_image};

fn capture(name: &str) -> Value {
    json!({"task": "capture", "device": {"serial": "S1"}, "to": {"store": name}})
}

async fn begun(site: &Site, n: u8, name: &str) -> (Agent, RunId) {
    let agent = site.admitted(n).await;
    site.order(&agent, json!({"tasks": [capture(name)]})).await.unwrap();
    let run = agent.grant().await.run;
    let mut plan = plan("capture");
    plan.destructive = false;
    agent.start(run, &plan).await.unwrap();
    (agent, run)
}

async fn put(agent: &Agent, pattern: &str, run: RunId, bytes: &[u8]) -> Answer<ImageView> {
    let path = pattern.replace("{run}", &run.to_string());
    answer(agent.client.request(Method::PUT, &path).body(bytes.to_vec())).await
}

async fn names(site: &Site) -> Vec<String> {
    let list: List<ImageView> = site.operator.get(path::IMAGES).await.unwrap();
    list.items.into_iter().map(|image| image.name).collect()
}

fn files(site: &Site) -> usize {
    std::fs::read_dir(site.dir.path().join("data/images")).unwrap().count()
}

#[tokio::test]
async fn an_image_is_seen_when_it_is_whole_and_not_before() {
    let site = Site::start().await;
    let (agent, run) = begun(&site, 1, "web1").await;
    // A first attempt that broke off, and one that was sent again with other bytes.
    let cut = futures_util::stream::iter([Ok(vec![1u8; 100_000]), Err(std::io::Error::other("cable pulled"))]);
    let data = path::CAPTURE_DATA.replace("{run}", &run.to_string());
    let broken = agent.client.request(Method::PUT, &data).body(reqwest::Body::wrap_stream(cut)).send().await;
    assert!(broken.is_err());
    put(&agent, path::CAPTURE_DATA, run, b"other").await.unwrap();

    let parts = [(path::CAPTURE_DATA, "bin"), (path::CAPTURE_INDEX, "idx"), (path::CAPTURE_MANIFEST, "json")];
    for (path, suffix) in parts {
        assert!(names(&site).await.is_empty());
        let bytes = suffix.repeat(1000);
        let view = put(&agent, path, run, bytes.as_bytes()).await.unwrap();
        assert_eq!(view.digest, format!("sha256:{}", hex(&Sha256::digest(&bytes))));
        assert_eq!((view.name, view.size), (format!("web1.{suffix}"), bytes.len() as u64));
    }
    assert_eq!(names(&site).await, ["web1.bin", "web1.idx", "web1.json"]);
    assert_eq!(files(&site), 3);
    let stored = agent.client.request(Method::GET, "/v1/images/web1.bin").send().await.unwrap();
    assert_eq!(stored.text().await.unwrap(), "bin".repeat(1000));
    // The answer was lost: the same again.
    let again = put(&agent, path::CAPTURE_MANIFEST, run, "json".repeat(1000).as_bytes()).await.unwrap();
    assert_eq!(again.name, "web1.json");
    agent.end(run, done()).await.unwrap();
    assert_eq!(files(&site), 3);
}

#[tokio::test]
async fn only_the_run_that_was_ordered_to_may_send() {
    let site = Site::start().await;
    let agent = site.admitted(1).await;
    declined(put(&agent, path::CAPTURE_DATA, RunId::random(), b"x").await, 409, FaultCode::NotArmed);
    site.order(&agent, json!({"tasks": [capture("web1")]})).await.unwrap();
    let run = agent.grant().await.run;
    // Granted, but not begun.
    declined(put(&agent, path::CAPTURE_DATA, run, b"x").await, 409, FaultCode::NotArmed);
    let mut plan = plan("capture");
    plan.destructive = false;
    agent.start(run, &plan).await.unwrap();
    let other = site.admitted(2).await;
    declined(put(&other, path::CAPTURE_DATA, run, b"x").await, 409, FaultCode::NotArmed);
    let stranger = site.agent(3);
    declined(put(&stranger, path::CAPTURE_DATA, run, b"x").await, 401, FaultCode::TokenRefused);
    let pattern = path::CAPTURE_DATA.replace("{run}", &run.to_string());
    let by_operator = site.operator.request(Method::PUT, &pattern).body("x");
    declined(answer::<Value>(by_operator).await, 401, FaultCode::TokenRefused);
    let fault = declined(put(&agent, path::CAPTURE_MANIFEST, run, b"x").await, 409, FaultCode::UploadRefused);
    assert!(fault.message.contains("came before"), "{fault}");

    // A task of another kind permits nothing.
    site.order(&other, json!({"tasks": [write_image()]})).await.unwrap();
    let writing = other.grant().await.run;
    other.start(writing, &crate::support::plan("write_image")).await.unwrap();
    declined(put(&other, path::CAPTURE_DATA, writing, b"x").await, 409, FaultCode::NotArmed);
    assert!(names(&site).await.is_empty());
}

#[tokio::test]
async fn what_is_not_finished_goes_with_its_run() {
    let site = Site::start().await;
    let (agent, run) = begun(&site, 1, "web1").await;
    put(&agent, path::CAPTURE_DATA, run, b"data").await.unwrap();
    put(&agent, path::CAPTURE_INDEX, run, b"index").await.unwrap();
    declined(put(&agent, path::CAPTURE_MANIFEST, run, &vec![0; 70_000]).await, 400, FaultCode::UploadRefused);
    assert_eq!(files(&site), 2);
    let fault = Fault::new(FaultCode::DiskIo, "a disk");
    agent.end(run, TaskResult::failed("capture", Outcome::FailedUnchanged, fault)).await.unwrap();
    assert_eq!((files(&site), names(&site).await.len()), (0, 0));
    declined(put(&agent, path::CAPTURE_DATA, run, b"late").await, 409, FaultCode::NotArmed);

    // An agent that vanished: the next capture clears up behind it.
    let (vanished, run) = begun(&site, 2, "web2").await;
    put(&vanished, path::CAPTURE_DATA, run, b"data").await.unwrap();
    let again = site.booted_again(2).await;
    declined(put(&vanished, path::CAPTURE_INDEX, run, b"index").await, 403, FaultCode::EpochStale);
    let grant = again.grant().await;
    assert_ne!(grant.run, run);
    let (third, run) = begun(&site, 3, "web3").await;
    put(&third, path::CAPTURE_DATA, run, b"data").await.unwrap();
    assert_eq!(files(&site), 1);
}

#[tokio::test]
async fn no_image_is_replaced() {
    let site = Site::start().await;
    let store = |name: &'static str| site.operator.request(Method::PUT, &format!("/v1/images/{name}")).body("mine");
    let _: ImageView = answer(store("web1.idx")).await.unwrap();
    let (agent, run) = begun(&site, 1, "web1").await;
    let fault = declined(put(&agent, path::CAPTURE_DATA, run, b"data").await, 409, FaultCode::UploadRefused);
    assert!(fault.message.contains("web1.idx"), "{fault}");

    // Somebody was quicker.
    let (agent, run) = begun(&site, 2, "web2").await;
    put(&agent, path::CAPTURE_DATA, run, b"data").await.unwrap();
    put(&agent, path::CAPTURE_INDEX, run, b"index").await.unwrap();
    let _: ImageView = answer(store("web2.json")).await.unwrap();
    declined(put(&agent, path::CAPTURE_MANIFEST, run, b"manifest").await, 409, FaultCode::UploadRefused);
    assert_eq!(names(&site).await, ["web1.idx", "web2.json"]);
    let kept = agent.client.request(Method::GET, "/v1/images/web2.json").send().await.unwrap();
    assert_eq!(kept.text().await.unwrap(), "mine");
}

fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is needed: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A disk that is an ext4 of 40 MiB with one file, over a pattern.
fn disk(dir: &Path) -> (Loop, String) {
    let (file, content) = (dir.join("disk"), dir.join("content"));
    std::fs::write(&file, vec![0xa5; 40 << 20]).unwrap();
    std::fs::write(&content, vec![0x5a; 5_000_000]).unwrap();
    let path = file.to_str().unwrap().to_owned();
    tool("mkfs.ext4", &["-q", "-F", "-E", "nodiscard", &path]);
    tool("debugfs", &["-w", "-R", &format!("write {} file", content.display()), &path]);
    (Loop(tool("losetup", &["-f", "--show", &path])), path)
}

/// The task that agents run, against the controller that they talk to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_disk_gets_into_the_store() {
    let (site, dir) = (Site::start().await, tempfile::tempdir().unwrap());
    let agent = site.admitted(1).await;
    let (_device, serial) = disk(dir.path());
    let task = json!({"task": "capture", "device": {"serial": serial}, "to": {"store": "golden"}});
    site.order(&agent, json!({"tasks": [task]})).await.unwrap();
    let grant = agent.grant().await;
    let ctx = task_ctx(&agent, grant.run);
    let capture = Arc::new((grant.task.clone(), ctx));
    let planned = Arc::clone(&capture);
    let plan =
        tokio::task::spawn_blocking(move || speediso_tasks::plan(&planned.0, &planned.1)).await.unwrap().unwrap();
    let perform = |digest| {
        let capture = Arc::clone(&capture);
        tokio::task::spawn_blocking(move || speediso_tasks::execute(&capture.0, &digest, &capture.1))
    };
    // Before the start is on record nothing is taken.
    let early = perform(plan.digest()).await.unwrap();
    let fault = early.fault.unwrap();
    assert_eq!((early.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::UploadRefused), "{fault}");
    agent.start(grant.run, &plan).await.unwrap();
    let result = perform(plan.digest()).await.unwrap();
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let image = result.devices[0].facts["image"].clone();
    agent.end(grant.run, result).await.unwrap();

    assert_eq!(names(&site).await, ["golden.bin", "golden.idx", "golden.json"]);
    assert_eq!(image["url"], format!("{}/v1/images/golden.json", site.url));
    let out = dir.path().join("image");
    std::fs::create_dir(&out).unwrap();
    for (stored, name) in [("golden.bin", "golden.bin"), ("golden.idx", "golden.idx"), ("golden.json", "manifest.json")]
    {
        let got = agent.client.request(Method::GET, &format!("/v1/images/{stored}")).send().await.unwrap();
        std::fs::write(out.join(name), got.bytes().await.unwrap()).unwrap();
    }
    let digest = format!("sha256:{}", hex(&Sha256::digest(std::fs::read(out.join("manifest.json")).unwrap())));
    assert_eq!(image["digest"], digest);
    let raw = dir.path().join("raw");
    ImageDirectory::open(&out, None).unwrap().unpack(&raw, &mut |_| {}).unwrap();
    tool("e2fsck", &["-fn", raw.to_str().unwrap()]);
    tool("debugfs", &["-R", &format!("dump file {}", dir.path().join("back").display()), raw.to_str().unwrap()]);
    assert!(std::fs::read(dir.path().join("back")).unwrap() == vec![0x5a; 5_000_000]);
}
