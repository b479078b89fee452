//! Who is at the other end of the cables: listens from boot on, says who we are, and keeps what it hears for everybody
//! else on this machine (`/run/speediso/lldp.json`).

mod command;
mod table;

use std::io;
use std::time::{Duration, Instant};

use speediso_model::lldp::{Announcement, Heard, INTERVAL_SECONDS, parse};
use speediso_sys::lldp::{LldpSocket, Memory, Port, ports, uptime};
use speediso_sys::roots::Roots;
use tokio::sync::watch;

pub use self::command::{LldpArgs, run};
use self::table::Table;

/// Interfaces come up by themselves, while the machine looks for its network.
const LOOK: Duration = Duration::from_secs(1);
/// Longer than any frame on Ethernet that is not a giant; what is cut off is no neighbour.
const LONGEST: usize = 9216;

/// What we say.
#[derive(Clone, Debug)]
pub struct Speaker {
    pub serial: String,
    pub build: String,
}

/// Begins to listen, in a thread that lives as long as the agent. What is heard comes out of the receiver.
///
/// # Errors
/// Without the right to open the socket, or a thread.
pub fn begin(roots: Roots, speaker: Option<Speaker>) -> io::Result<watch::Receiver<Vec<Heard>>> {
    let listener = Listener::open(roots, speaker)?;
    let (tell, told) = watch::channel(Vec::new());
    let live = move || {
        if let Err(error) = listener.run(&tell) {
            tracing::warn!("neighbours (LLDP) are not listened to any more: {error}; proceeding without");
        }
    };
    std::thread::Builder::new().name("lldp".into()).spawn(live)?;
    Ok(told)
}

/// A socket, the interfaces it hears, and the neighbours heard.
struct Listener {
    roots: Roots,
    socket: LldpSocket,
    speaker: Option<Speaker>,
    ports: Vec<Port>,
    table: Table,
    spoken: Instant,
}

impl Listener {
    fn open(roots: Roots, speaker: Option<Speaker>) -> io::Result<Self> {
        let socket = LldpSocket::open()?;
        Ok(Self { roots, socket, speaker, ports: Vec::new(), table: Table::default(), spoken: Instant::now() })
    }

    fn run(mut self, tell: &watch::Sender<Vec<Heard>>) -> io::Result<()> {
        let since = uptime(&self.roots).unwrap_or(0);
        // From now on others know that somebody listens, and since when.
        let mut kept = Memory { since, heard: Vec::new() };
        self.keep(&kept);
        loop {
            self.look()?;
            self.hear(LOOK)?;
            let heard = self.table.heard();
            if heard != kept.heard {
                for new in heard
                    .iter()
                    .filter(|h| !kept.heard.iter().any(|k| k.interface == h.interface && k.neighbour.is(&h.neighbour)))
                {
                    tracing::info!("{} is plugged into {}", new.interface, new.neighbour.in_words());
                    // Who is new has not heard us yet, and need not wait for half a minute.
                    self.ports.iter().filter(|p| p.name == new.interface).for_each(|port| self.speak(port));
                }
                kept.heard = heard;
                self.keep(&kept);
                tell.send_replace(kept.heard.clone());
            }
        }
    }

    fn keep(&self, memory: &Memory) {
        if let Err(error) = memory.keep(&self.roots) {
            tracing::warn!("neighbours (LLDP) could not be written down: {error}; proceeding without");
        }
    }

    /// Takes in the interfaces that are up now. To each new one, and to all of them every half a minute, we speak.
    fn look(&mut self) -> io::Result<()> {
        let now = ports(&self.roots)?;
        self.socket.keep_only(&now);
        let due = self.spoken.elapsed() >= Duration::from_secs(INTERVAL_SECONDS);
        if due {
            self.spoken = Instant::now();
        }
        for port in &now {
            let new = !self.ports.contains(port);
            // One that goes down meanwhile is looked at again the next time.
            if let Err(error) = self.socket.join(port) {
                tracing::debug!("{} is not listened to: {error}", port.name);
            }
            if new || due {
                self.speak(port);
            }
        }
        self.table.keep_only(&now);
        self.ports = now;
        Ok(())
    }

    fn speak(&self, port: &Port) {
        let Some(speaker) = &self.speaker else { return };
        let host = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
        let said = Announcement { serial: &speaker.serial, host: &host, build: &speaker.build, interface: &port.name };
        if let Err(error) = self.socket.send(port, &said.frame(port.mac)) {
            tracing::debug!("{}: saying who we are: {error}", port.name);
        }
    }

    /// Whatever comes until the time is over.
    fn hear(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        let mut frame = [0; LONGEST];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some((index, length)) = self.socket.receive(left, &mut frame)? else { return Ok(()) };
            let Some(port) = self.ports.iter().find(|p| p.index == index) else { continue };
            match parse(&frame[..length.min(LONGEST)]) {
                Ok((neighbour, raw)) => self.table.take(&port.name, neighbour, raw, Instant::now()),
                Err(error) => tracing::debug!("{}: a frame of link layer discovery: {error}", port.name),
            }
            // A flood must not keep us from looking and speaking.
            if left.is_zero() {
                return Ok(());
            }
        }
    }
}
