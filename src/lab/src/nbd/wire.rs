//! The NBD protocol, as much of it as QEMU's client needs: fixed newstyle handshake, simple replies.
//! github.com/NetworkBlockDevice/nbd, doc/proto.md.

use std::io::{self, Read, Write};

const NBDMAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const IHAVEOPT: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;

const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;

/// What the export can do: HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_WRITE_ZEROES. Without SEND_FUA the client flushes,
/// so that there is one way to the medium and not two.
const EXPORT_FLAGS: u16 = 1 | 1 << 2 | 1 << 5 | 1 << 6;

/// More than any client that follows the protocol sends at once.
const LONGEST: u32 = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Read,
    Write,
    Flush,
    Trim,
    Zero,
}

/// One request; of a write with its data.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) cookie: u64,
    pub(super) operation: Operation,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) data: Vec<u8>,
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_of(from: &mut impl Read) -> io::Result<u16> {
    array(from).map(u16::from_be_bytes)
}

fn u32_of(from: &mut impl Read) -> io::Result<u32> {
    array(from).map(u32::from_be_bytes)
}

fn u64_of(from: &mut impl Read) -> io::Result<u64> {
    array(from).map(u64::from_be_bytes)
}

fn bytes_of(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > LONGEST {
        return Err(garbage("the client announces more than it may send"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Shakes hands; `false` if the client only wanted to know, or went away politely.
pub(super) fn negotiate(stream: &mut (impl Read + Write), size: u64) -> io::Result<bool> {
    stream.write_all(&NBDMAGIC.to_be_bytes())?;
    stream.write_all(&IHAVEOPT.to_be_bytes())?;
    stream.write_all(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes())?;
    let without_zeroes = u32_of(stream)? & u32::from(NO_ZEROES) != 0;
    loop {
        if u64_of(stream)? != IHAVEOPT {
            return Err(garbage("the client sends no option where one is due"));
        }
        let option = u32_of(stream)?;
        let length = u32_of(stream)?;
        bytes_of(stream, length)?;
        match option {
            OPT_EXPORT_NAME => {
                let mut answer = [&size.to_be_bytes()[..], &EXPORT_FLAGS.to_be_bytes()].concat();
                answer.resize(if without_zeroes { 10 } else { 134 }, 0);
                stream.write_all(&answer)?;
                return Ok(true);
            }
            OPT_INFO | OPT_GO => {
                let info = [&INFO_EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &EXPORT_FLAGS.to_be_bytes()].concat();
                reply_to_option(stream, option, REP_INFO, &info)?;
                reply_to_option(stream, option, REP_ACK, &[])?;
                if option == OPT_GO {
                    return Ok(true);
                }
            }
            OPT_ABORT => {
                reply_to_option(stream, option, REP_ACK, &[])?;
                return Ok(false);
            }
            _ => reply_to_option(stream, option, REP_ERR_UNSUP, &[])?,
        }
    }
}

fn reply_to_option(stream: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).map_err(io::Error::other)?;
    let head = [&OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes()];
    stream.write_all(&[&head.concat(), data].concat())
}

/// The next request; `None` when the client says goodbye.
pub(super) fn read_request(stream: &mut impl Read) -> io::Result<Option<Request>> {
    if u32_of(stream)? != REQUEST {
        return Err(garbage("the client sends no request where one is due"));
    }
    let _flags = u16_of(stream)?;
    let command = u16_of(stream)?;
    let (cookie, offset, length) = (u64_of(stream)?, u64_of(stream)?, u32_of(stream)?);
    let operation = match command {
        0 => Operation::Read,
        1 => Operation::Write,
        2 => return Ok(None),
        3 => Operation::Flush,
        4 => Operation::Trim,
        6 => Operation::Zero,
        _ => return Err(garbage("the client sends a command that was not offered")),
    };
    let data = if operation == Operation::Write { bytes_of(stream, length)? } else { Vec::new() };
    Ok(Some(Request { cookie, operation, offset, length: length.into(), data }))
}

/// Zero is success; data only after a successful read.
pub(super) fn reply(stream: &mut impl Write, cookie: u64, error: u32, data: &[u8]) -> io::Result<()> {
    let head = [&SIMPLE_REPLY.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat();
    stream.write_all(&[&head, data].concat())
}
