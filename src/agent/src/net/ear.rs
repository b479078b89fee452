//! A socket for whole frames, waited for as others are.

use std::io;
use std::os::fd::AsFd as _;

use speediso_sys::ether::{Ether, Seen};
use tokio::io::Interest;
use tokio::net::UdpSocket;

#[derive(Debug)]
pub(crate) struct Ear {
    ether: Ether,
    /// A second descriptor of the same socket, in the one form that the runtime takes over safely. Only its readiness
    /// is of use.
    ready: UdpSocket,
}

impl Ear {
    /// # Errors
    /// As [`Ether::open`].
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        let ether = Ether::open(index)?;
        let ready = UdpSocket::from_std(std::net::UdpSocket::from(ether.as_fd().try_clone_to_owned()?))?;
        Ok(Self { ether, ready })
    }

    /// What cannot be sent is lost, as on the wire: every question is asked more than once.
    pub(crate) fn ask(&self, frame: &[u8]) {
        if let Err(error) = self.ether.send(frame) {
            tracing::debug!(%error, "a frame was not sent");
        }
    }

    /// The next frame, cut to the buffer.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<Seen> {
        loop {
            self.ready.readable().await?;
            match self.ready.try_io(Interest::READABLE, || self.ether.receive(buffer)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}
