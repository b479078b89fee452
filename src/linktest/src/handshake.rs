//! Who may join. Each end proves that it knows the secret over a number that the other has just made, so that nothing
//! that was heard before helps anybody; and all streams of a session are bound to the first one's numbers.
//!
//! ```text
//! connects -> listens   magic, kind, index, its number
//! listens  -> connects  its number, proof
//! connects -> listens   proof
//! ```

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::LinkError;
use crate::payload::Payload;
use crate::secret::{Secret, Tag};

const MAGIC: &[u8; 8] = b"SPDLINK1";
/// For somebody who knows the secret it takes two round trips.
const LIMIT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Words,
    Stream(u8),
}

impl Kind {
    fn bytes(self) -> [u8; 2] {
        match self {
            Self::Words => [0, 0],
            Self::Stream(n) => [1, n],
        }
    }

    fn of(bytes: [u8; 2]) -> Option<Self> {
        match bytes {
            [0, 0] => Some(Self::Words),
            [1, n] => Some(Self::Stream(n)),
            _ => None,
        }
    }
}

/// What both ends derive keys from.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    secret: Secret,
    id: Tag,
}

impl Session {
    /// For the bytes of stream `n` that go away from the end that listens, or towards it.
    pub(crate) fn payload(&self, what: &str, n: u8, from_listener: bool) -> Payload {
        Payload::new(self.secret.seed("payload", &[&self.id, what.as_bytes(), &[n, u8::from(from_listener)]]))
    }

    /// In front of every datagram, so that strays are known.
    pub(crate) fn mark(&self) -> u64 {
        self.secret.seed("datagram", &[&self.id])
    }
}

fn limits(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))
}

fn broken(source: std::io::Error) -> LinkError {
    LinkError::Broken { what: "the handshake".into(), source }
}

/// The part of the end that connects. The streams of a session name it.
pub(crate) fn ask(
    stream: &mut TcpStream,
    secret: &Secret,
    kind: Kind,
    session: Option<&Session>,
) -> Result<Session, LinkError> {
    limits(stream).map_err(broken)?;
    let mine: Tag = rand::random();
    let of = session.map_or([0; 32], |s| s.id);
    stream.write_all(&[&MAGIC[..], &kind.bytes(), &mine].concat()).map_err(broken)?;
    let (mut theirs, mut proof) = ([0; 32], [0; 32]);
    stream.read_exact(&mut theirs).map_err(broken)?;
    stream.read_exact(&mut proof).map_err(broken)?;
    let parts: [&[u8]; 4] = [&kind.bytes(), &of, &mine, &theirs];
    if !secret.is_tag("listens", &parts, &proof) {
        return Err(LinkError::WrongSecret);
    }
    stream.write_all(&secret.tag("connects", &parts)).map_err(broken)?;
    Ok(Session { secret: secret.clone(), id: secret.tag("session", &parts) })
}

/// The part of the end that listens. `session` is the one that streams must belong to.
pub(crate) fn answer(
    stream: &mut TcpStream,
    secret: &Secret,
    session: Option<&Session>,
) -> Result<(Kind, Session), LinkError> {
    limits(stream).map_err(broken)?;
    let mut hello = [0; 42];
    stream.read_exact(&mut hello).map_err(broken)?;
    let kind = Kind::of([hello[8], hello[9]]).filter(|_| hello[..8] == MAGIC[..]).ok_or(LinkError::WrongSecret)?;
    let of = session.map_or([0; 32], |s| s.id);
    let mine: Tag = rand::random();
    let parts: [&[u8]; 4] = [&kind.bytes(), &of, &hello[10..], &mine];
    stream.write_all(&[mine, secret.tag("listens", &parts)].concat()).map_err(broken)?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof).map_err(broken)?;
    if !secret.is_tag("connects", &parts, &proof) {
        return Err(LinkError::WrongSecret);
    }
    Ok((kind, Session { secret: secret.clone(), id: secret.tag("session", &parts) }))
}
