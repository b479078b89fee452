//! A small HTTP server for static files inside the namespace: for machines that are installed without a controller.
//! Byte ranges as a real server has them, and knobs to fail like one: answers cut short, and no range support.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::namespace::{GATEWAY, Namespace};

const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Shared {
    root: PathBuf,
    /// Answers are cut off after this many bytes of body; 0 means never.
    cut_after: AtomicU64,
    requests: Mutex<Vec<String>>,
    stop: AtomicBool,
}

#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl FileServer {
    /// Serves what lies below `root` on this port of the bridge's address.
    pub(crate) fn start(namespace: &Namespace, port: u16, root: &Path) -> Result<Self> {
        let shared = Arc::new(Shared { root: root.to_owned(), ..Shared::default() });
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = namespace.spawn({
            let shared = Arc::clone(&shared);
            move || {
                let listener = TcpListener::bind((GATEWAY, port)).doing(|| format!("listening on {GATEWAY}:{port}"))?;
                listener.set_nonblocking(true).doing(|| "making a listener not block".to_owned())?;
                let address = listener.local_addr().doing(|| "asking for the port listened on".to_owned())?;
                // The one who waits may only be gone if the program is ending.
                let _ = ready.send(address);
                accept(&listener, &shared);
                Ok(())
            }
        });
        match bound.recv() {
            Ok(address) => Ok(Self { address, shared, thread: Some(thread) }),
            // The thread ended before it was ready: its error says why.
            Err(_) => Err(thread
                .join()
                .expect("the server's thread returns errors and does not panic")
                .expect_err("the thread said nothing, so it failed")),
        }
    }

    pub fn url(&self, file: &str) -> String {
        format!("http://{}/{file}", self.address)
    }

    /// Cuts every answer's body after so many bytes, as a breaking connection would; 0 ends that.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// Every request so far: method, path and range.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().map(|list| list.clone()).unwrap_or_default()
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((client, _)) = listener.accept() else {
            // Nobody there (the listener does not block, so that the flag is seen), or somebody who left at once.
            std::thread::sleep(POLL);
            continue;
        };
        let shared = Arc::clone(shared);
        // A client that goes away in the middle is everyday life for a file server.
        std::thread::spawn(move || drop(client.set_nonblocking(false).and_then(|()| serve(&client, &shared))));
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<String>,
}

fn serve(mut client: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    while let Some(request) = read_request(&mut reader)? {
        if let Ok(mut list) = shared.requests.lock() {
            list.push(format!("{} {} {}", request.method, request.path, request.range.as_deref().unwrap_or("-")));
        }
        if !answer(&mut client, shared, &request)? {
            return Ok(());
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.take(8192).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
    let mut range = None;
    loop {
        let mut header = String::new();
        if reader.take(8192).read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(Some(Request { method, path, range }));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
}

/// Answers one request; false ends the connection.
fn answer(client: &mut impl Write, shared: &Shared, request: &Request) -> io::Result<bool> {
    let Some(mut file) = open(&shared.root, &request.path) else {
        client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    };
    let total = file.metadata()?.len();
    let (first, last, status) = match request.range.as_deref().map(|range| parse_range(range, total)) {
        None => (0, total, "200 OK"),
        Some(Some((first, last))) => (first, last, "206 Partial Content"),
        Some(None) => {
            write!(
                client,
                "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\n\r\n"
            )?;
            return Ok(true);
        }
    };
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n", last - first)?;
    // Size and name make a strong tag as long as nobody changes a file under a test.
    write!(client, "ETag: \"{total}-{}\"\r\n", request.path)?;
    if status.starts_with("206") {
        write!(client, "Content-Range: bytes {first}-{}/{total}\r\n", last - 1)?;
    }
    client.write_all(b"\r\n")?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(first))?;
    let (length, cut) = (last - first, shared.cut_after.load(Ordering::Relaxed));
    let sent = if cut == 0 { length } else { length.min(cut) };
    io::copy(&mut file.take(sent), client)?;
    client.flush()?;
    Ok(sent == length)
}

/// First byte and the one behind the last; `None` if it cannot be satisfied.
fn parse_range(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let end = if last.is_empty() { total } else { last.parse::<u64>().ok()?.checked_add(1)?.min(total) };
    (first < end).then_some((first, end))
}

fn open(root: &Path, path: &str) -> Option<File> {
    let path = Path::new(path.split('?').next()?.trim_start_matches('/'));
    // Plain names only: nothing outside the root is served.
    let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
    let found = root.join(path);
    (inside && found.is_file()).then(|| File::open(found).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(shared: &Shared, method: &str, path: &str, range: Option<&str>) -> (bool, String) {
        let mut out = Vec::new();
        let request = Request { method: method.into(), path: path.into(), range: range.map(str::to_owned) };
        let goes_on = answer(&mut out, shared, &request).unwrap();
        (goes_on, String::from_utf8(out).unwrap())
    }

    #[test]
    fn ranges_cuts_and_places_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "0123456789").unwrap();
        let shared = Shared { root: dir.path().to_owned(), ..Shared::default() };

        assert!(ask(&shared, "GET", "/f", None).1.ends_with("\r\n\r\n0123456789"));
        let (_, part) = ask(&shared, "GET", "/f", Some("bytes=3-5"));
        assert!(part.contains("206") && part.contains("bytes 3-5/10") && part.ends_with("\r\n\r\n345"), "{part}");
        assert!(ask(&shared, "GET", "/f", Some("bytes=7-")).1.ends_with("\r\n\r\n789"));
        assert!(ask(&shared, "GET", "/f", Some("bytes=10-")).1.contains("416"));
        assert!(ask(&shared, "HEAD", "/f", None).1.ends_with("\r\n\r\n"));
        assert!(ask(&shared, "GET", "/../etc/passwd", None).1.contains("404"));

        shared.cut_after.store(4, Ordering::Relaxed);
        let (goes_on, short) = ask(&shared, "GET", "/f", None);
        assert!(!goes_on && short.contains("Content-Length: 10") && short.ends_with("\r\n\r\n0123"), "{short}");
    }
}
