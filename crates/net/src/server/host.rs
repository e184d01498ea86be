//! Host and authority: what a host is, and when two of them are the same.

use std::net::Ipv6Addr;

use super::refusal::Refusal;

/// Bytes of a host name (RFC 1035 section 2.3.4), or of an address.
const HOST_BYTES: usize = 255;

/// A host with the port that stands beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostPort<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> HostPort<'a> {
    /// Reads `host[:port]` (RFC 3986 section 3.2). Stricter than the grammar: no percent-encoding, no sub-delimiters (a
    /// comma, above all), no empty host, no empty port, no user.
    ///
    /// # Errors
    /// [`Refusal::Host`].
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(text).map_err(|_| Refusal::Host)?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(Refusal::Host)?;
                address.parse::<Ipv6Addr>().map_err(|_| Refusal::Host)?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or(Refusal::Host)?) };
                (address, port)
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        let bracketed = text.starts_with('[');
        if host.is_empty() || host.len() > HOST_BYTES || !(bracketed || host.bytes().all(is_name)) {
            return Err(Refusal::Host);
        }
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }

    /// Whether both are the same place, where `default_port` is meant if none is said.
    pub(crate) fn is(&self, other: &HostPort<'_>, default_port: u16) -> bool {
        let port = |one: &HostPort<'_>| one.port.unwrap_or(default_port);
        self.host.eq_ignore_ascii_case(other.host) && port(self) == port(other)
    }
}

/// What names consist of: the unreserved characters of RFC 3986.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn parse_port(text: &str) -> Result<u16, Refusal> {
    if text.is_empty() || text.len() > 5 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Host);
    }
    text.parse().map_err(|_| Refusal::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_some_and_that_are_none() {
        for good in ["a", "A.b-c_d~e", "1.2.3.4:80", "[::1]", "[::1]:65535", "x:0", &"x".repeat(255)] {
            assert!(HostPort::parse(good.as_bytes()).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        let bad = [
            "", ":80", "a:", "a:b", "a:65536", "a:+1", "a:1:2", "a b", "a,b", "a/b", "u@a", "a%41", "[::1", "::1",
            "[x]", "[::1]x", "[]", "ä", "a?", "a#", "a\\b", &long,
        ];
        for bad in bad {
            assert_eq!(HostPort::parse(bad.as_bytes()).err(), Some(Refusal::Host), "{bad}");
        }
    }

    #[test]
    fn the_same_place() {
        let same =
            |a: &str, b: &str| HostPort::parse(a.as_bytes()).unwrap().is(&HostPort::parse(b.as_bytes()).unwrap(), 80);
        assert!(same("A.example", "a.EXAMPLE:80") && same("[::1]:80", "[::1]"));
        assert!(!same("a", "b") && !same("a", "a:81") && !same("a:443", "a"));
    }
}
