//! A TCP port of the host's loopback that leads into the namespace, so that a browser, ssh and the command line on the
//! host reach the dashboard and the machines. Listens on 127.0.0.1 only.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::namespace::Namespace;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Forward {
    /// Listens on `port` of 127.0.0.1 (0 lets the kernel choose) and leads each connection to `target` inside.
    pub fn start(namespace: &Namespace, port: u16, target: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).doing(|| format!("listening on 127.0.0.1:{port}"))?;
        let local = listener.local_addr().doing(|| "asking for the port listened on".to_owned())?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (namespace, stop) = (namespace.clone(), Arc::clone(&stop));
            move || {
                for client in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Ok(client) = client {
                        serve(&namespace, client, target);
                    }
                }
            }
        });
        Ok(Self { local, stop, listener: Some(thread) })
    }

    /// The port of 127.0.0.1 that was opened.
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees the flag. Connections under way end with their peers.
        let _ = TcpStream::connect(self.local);
        if let Some(thread) = self.listener.take() {
            let _ = thread.join();
        }
    }
}

/// One connection: connected from inside on a thread of its own, since a target that does not answer takes its time.
fn serve(namespace: &Namespace, client: TcpStream, target: SocketAddr) {
    namespace.spawn(move || {
        // No answer from inside: dropping the client closes it, which is what a refused connection looks like here.
        let inside = TcpStream::connect_timeout(&target, CONNECT_LIMIT).doing(|| format!("connecting to {target}"))?;
        let (from, to) = (clone(&client)?, clone(&inside)?);
        let back = std::thread::spawn(move || copy(&inside, &client));
        copy(&from, &to);
        // The other direction ends with its own end of file.
        let _ = back.join();
        Ok(())
    });
}

fn clone(stream: &TcpStream) -> Result<TcpStream> {
    stream.try_clone().doing(|| "duplicating a socket".to_owned())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // Either end may go away at any time; the close is passed on and that is all there is to say.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
