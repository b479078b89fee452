//! Where the log is to go: `speediso.syslog=[udp|tcp|tls]://HOST[:PORT]`.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// As IANA has them.
    fn port(self) -> u16 {
        match self {
            Self::Udp => 514,
            Self::Tcp => 601,
            Self::Tls => 6514,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogTarget {
    pub transport: Transport,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// The text itself is not repeated: it may hold a password, misplaced as that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("the scheme is none of udp, tcp and tls")]
    Scheme,
    #[error("syslog knows no user and password; leave them out")]
    User,
    #[error("the host is missing or malformed")]
    Host,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for SyslogTarget {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (transport, place) = match text.split_once("://") {
            None => (Transport::Udp, text),
            Some(("udp", place)) => (Transport::Udp, place),
            Some(("tcp", place)) => (Transport::Tcp, place),
            Some(("tls", place)) => (Transport::Tls, place),
            Some(_) => return Err(BadTarget::Scheme),
        };
        if place.contains('@') {
            return Err(BadTarget::User);
        }
        let place = place.trim_end_matches('/');
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(BadTarget::Host)?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or(BadTarget::Port)?),
            };
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(BadTarget::Host);
            }
            (host, port)
        } else {
            place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port)))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > 253 || !host.chars().all(plain) {
            return Err(BadTarget::Host);
        }
        let port = match port {
            None => transport.port(),
            Some(port) => port.parse().ok().filter(|p| *p != 0).ok_or(BadTarget::Port)?,
        };
        Ok(Self { transport, host: host.to_owned(), port })
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}://[{}]:{}", self.transport.name(), self.host, self.port),
            false => write!(f, "{}://{}:{}", self.transport.name(), self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, shown) in [
            ("192.0.2.1", "udp://192.0.2.1:514"),
            ("log.example:1514", "udp://log.example:1514"),
            ("tcp://log.example", "tcp://log.example:601"),
            ("tls://log.example/", "tls://log.example:6514"),
            ("tls://[2001:db8::1]:99", "tls://[2001:db8::1]:99"),
            ("udp://[2001:db8::1]", "udp://[2001:db8::1]:514"),
        ] {
            let target: SyslogTarget = text.parse().expect(text);
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse(), Ok(target), "what is shown is read again");
        }
    }

    #[test]
    fn mistakes_are_named_without_repeating_them() {
        for (text, error) in [
            ("http://h", BadTarget::Scheme),
            ("tls://me:CANARY@h", BadTarget::User),
            ("tcp://", BadTarget::Host),
            ("tcp://a b", BadTarget::Host),
            ("tcp://[fe80", BadTarget::Host),
            ("tcp://[CANARY]", BadTarget::Host),
            ("h:0", BadTarget::Port),
            ("h:70000", BadTarget::Port),
            ("[::1]514", BadTarget::Port),
        ] {
            let said = text.parse::<SyslogTarget>().expect_err(text);
            assert_eq!(said, error, "{text}");
            assert!(!said.to_string().contains("CANARY"));
        }
    }
}
