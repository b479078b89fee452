//! A server that takes PUT, gives back what it took, and fails as it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How it treats the PUT of one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taking {
    Well,
    /// Answers so, without reading.
    Status(u16),
    /// Reads this many bytes and hangs up.
    CutAfter(usize),
    /// Reads nothing and says nothing.
    Stall,
    /// Keeps one bit otherwise.
    Flip,
    /// Keeps all but the last byte.
    Shorten,
    /// Answers well after the first bytes and keeps those.
    Hasty,
    /// Names another place.
    Redirect,
}

type Files = BTreeMap<String, Vec<u8>>;

/// What was asked of it, without bodies: `PUT chunks.bin`.
type Log = Vec<String>;

pub struct PutServer {
    pub url: String,
    files: Arc<Mutex<Files>>,
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Request {
    method: String,
    name: String,
    headers: BTreeMap<String, String>,
}

impl PutServer {
    /// `taking` is asked with the name of the file and how often it was sent before.
    pub fn start(taking: impl Fn(&str, usize) -> Taking + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (files, log, stop) = <(Arc<Mutex<Files>>, Arc<Mutex<Log>>, Arc<AtomicBool>)>::default();
        let taking = Arc::new(taking);
        let shared = (Arc::clone(&files), Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (files, log, stop) = shared;
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (files, log, stop, taking) =
                    (Arc::clone(&files), Arc::clone(&log), Arc::clone(&stop), Arc::clone(&taking));
                std::thread::spawn(move || serve(&stream.unwrap(), &files, &log, &stop, &*taking));
            }
        });
        Self { url: format!("http://{address}/images/web?key=secret"), files, log, stop, address, thread: Some(thread) }
    }

    pub fn well() -> Self {
        Self::start(|_, _| Taking::Well)
    }

    pub fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap()[name].clone()
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.files.lock().unwrap().insert(name.into(), bytes.to_vec());
    }

    pub fn log(&self) -> Log {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for PutServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    assert!(target.contains("?key=secret"), "the query goes with every file: {target}");
    let name = target.split('?').next()?.strip_prefix("/images/web/")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(key.to_lowercase(), value.to_owned());
    }
    assert_eq!(headers.get("authorization").map(String::as_str), Some("Bearer xyz"), "{name}");
    Some(Request { method, name, headers })
}

/// A chunked body; `None` when it breaks off before its end.
fn read_body(reader: &mut BufReader<&TcpStream>, most: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut piece = vec![0; length + 2];
        reader.read_exact(&mut piece).ok()?;
        body.extend_from_slice(&piece[..length]);
        if length == 0 || body.len() >= most {
            return Some(body);
        }
    }
}

fn serve(
    stream: &TcpStream,
    files: &Mutex<Files>,
    log: &Mutex<Log>,
    stop: &AtomicBool,
    taking: &dyn Fn(&str, usize) -> Taking,
) {
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(request) = read_request(&mut reader) {
        let Request { method, name, headers } = request;
        let entry = format!("{method} {name}");
        let before = {
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|known| **known == entry).count();
            log.push(entry);
            before
        };
        let kept = files.lock().unwrap().get(&name).cloned();
        let mut answer = |head: &str, body: &[u8]| {
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(body));
        };
        match (method.as_str(), kept) {
            ("GET", None) => answer("404 no", b""),
            ("GET", Some(bytes)) => {
                match headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) {
                    Some((first, _)) => {
                        let first: usize = first.parse().unwrap();
                        let head =
                            format!("206 part\r\nContent-Range: bytes {first}-{}/{}", bytes.len() - 1, bytes.len());
                        answer(&head, &bytes[first..]);
                    }
                    None => answer("200 yes", &bytes),
                }
            }
            ("DELETE", _) => {
                files.lock().unwrap().remove(&name);
                answer("204 gone", b"");
            }
            ("PUT", _) => {
                assert_eq!(headers.get("transfer-encoding").map(String::as_str), Some("chunked"));
                assert_eq!(headers.get("if-none-match").map(String::as_str), Some("*"));
                let how = taking(&name, before);
                match how {
                    Taking::Status(status) => {
                        answer(&format!("{status} X\r\nConnection: close"), b"");
                        let _ = read_body(&mut reader, 1);
                        return;
                    }
                    Taking::Redirect => {
                        answer("302 X\r\nLocation: /elsewhere?key=secret\r\nConnection: close", b"");
                        return;
                    }
                    Taking::CutAfter(most) => {
                        let _ = read_body(&mut reader, most);
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                        return;
                    }
                    Taking::Stall => {
                        while !stop.load(Ordering::Relaxed) {
                            std::thread::sleep(std::time::Duration::from_millis(50));
                        }
                        return;
                    }
                    Taking::Well | Taking::Flip | Taking::Shorten | Taking::Hasty => {}
                }
                let most = if how == Taking::Hasty { 1 } else { usize::MAX };
                // A body without its end is no file.
                let Some(mut body) = read_body(&mut reader, most) else { return };
                match how {
                    Taking::Flip => {
                        let middle = body.len() / 2;
                        body[middle] ^= 1;
                    }
                    Taking::Shorten => drop(body.pop()),
                    _ => {}
                }
                files.lock().unwrap().insert(name, body);
                answer("201 made", b"");
                if how == Taking::Hasty {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
            _ => answer("405 X", b""),
        }
    }
}
