//! The PROXY protocol, versions 1 and 2: what a load balancer in front says about the client, before all else on a connection.
//!
//! It is only looked for on connections from listed networks, and there it has to be: to guess would let clients choose
//! their address. Read so that not one byte after it is taken from the socket.
//!
//! Source: «The PROXY protocol», versions 1 & 2, HAProxy, sections 2.1 and 2.2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// For the whole of it, in milliseconds.
const HEADER_MS: u64 = 5_000;
/// Longest line of version 1, with its CRLF.
const LINE_BYTES: usize = 107;
/// What follows the first 16 bytes of version 2, at most: addresses and extensions.
const BLOCK_BYTES: usize = 4 << 10;
/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The shortest line of version 1, `PROXY UNKNOWN` and CRLF, is longer than the signature of version 2.
const FIRST_BYTES: usize = SIGNATURE.len();

/// Why there is no address of a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the connection ended or broke before the end of the PROXY header: {0}")]
    Io(#[from] io::Error),
    #[error("the PROXY header did not arrive within {HEADER_MS} ms")]
    TooSlow,
    #[error(
        "the connection does not begin with a PROXY header of version 1 or 2, although it comes from a listed proxy"
    )]
    Missing,
    #[error("the line of the PROXY header has no end within {LINE_BYTES} bytes")]
    LineTooLong,
    #[error("the PROXY header has {bytes} bytes of addresses and extensions; at most {BLOCK_BYTES} are taken")]
    BlockTooLong { bytes: usize },
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads the header. The client's address; nothing where the proxy speaks for itself or does not know.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let read = async {
        let mut first = [0; FIRST_BYTES];
        stream.read_exact(&mut first).await?;
        if first == SIGNATURE {
            return version_2(stream).await;
        }
        if !first.starts_with(b"PROXY ") {
            return Err(ProxyError::Missing);
        }
        version_1(&line(stream, first.to_vec()).await?)
    };
    tokio::time::timeout(Duration::from_millis(HEADER_MS), read).await.unwrap_or(Err(ProxyError::TooSlow))
}

/// The rest of the line that began with `line`, without its CRLF.
async fn line(stream: &mut TcpStream, mut line: Vec<u8>) -> Result<Vec<u8>, ProxyError> {
    let mut ahead = [0; LINE_BYTES - FIRST_BYTES];
    loop {
        let room = ahead.get_mut(..LINE_BYTES - line.len()).filter(|room| !room.is_empty());
        let room = room.ok_or(ProxyError::LineTooLong)?;
        // Looked at first, so that what follows the line stays where it is.
        let seen = stream.peek(room).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let seen = room.get(..seen).unwrap_or_default();
        let end = memchr::memchr(b'\n', seen);
        let taken = end.map_or(seen.len(), |end| end + 1);
        let begun = line.len();
        line.extend_from_slice(seen.get(..taken).unwrap_or_default());
        stream.read_exact(line.get_mut(begun..).unwrap_or_default()).await?;
        if end.is_some() {
            return match line.strip_suffix(b"\r\n") {
                Some(line) => Ok(line.to_vec()),
                None => Err(ProxyError::Malformed("its line ends with LF alone")),
            };
        }
    }
}

/// `PROXY TCP4 CLIENT SERVER PORT PORT`.
fn version_1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    let text = str::from_utf8(line).map_err(|_| ProxyError::Malformed("its line is not ASCII"))?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let words: Vec<&str> = words.collect();
    let [client, server, client_port, server_port] = words.as_slice() else {
        return Err(ProxyError::Malformed("it has to hold two addresses and two ports"));
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits && (text == "0" || !text.starts_with('0')))
    };
    match (address(client), address(server), port(client_port), port(server_port)) {
        (Some(client), Some(_), Some(client_port), Some(_)) => Ok(Some(SocketAddr::new(client, client_port))),
        _ => {
            Err(ProxyError::Malformed("an address or a port is none, or not of the family TCP4 or TCP6 that it names"))
        }
    }
}

/// What follows the signature.
async fn version_2(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version_and_command, family, high, low] = head;
    let bytes = usize::from(u16::from_be_bytes([high, low]));
    if bytes > BLOCK_BYTES {
        return Err(ProxyError::BlockTooLong { bytes });
    }
    let mut block = vec![0; bytes];
    stream.read_exact(&mut block).await?;
    addresses_2(version_and_command, family, &block)
}

fn addresses_2(version_and_command: u8, family: u8, block: &[u8]) -> Result<Option<SocketAddr>, ProxyError> {
    match version_and_command {
        // LOCAL: a health check of the proxy's own; whatever addresses there are mean nothing.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(ProxyError::Malformed("its version is not 2, or its command neither LOCAL nor PROXY")),
    }
    let short = ProxyError::Malformed("its addresses are cut off");
    // What follows the addresses are extensions, which nobody here asks for.
    match family {
        0x11 => {
            let Some((&[a, b, c, d], rest)) = block.split_first_chunk::<4>() else { return Err(short) };
            let Some(&[_, _, _, _, high, low, _, _]) = rest.first_chunk::<8>() else { return Err(short) };
            Ok(Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))))
        }
        0x21 => {
            let Some((client, rest)) = block.split_first_chunk::<16>() else { return Err(short) };
            let Some(&[high, low, _, _]) = rest.get(16..).and_then(|ports| ports.first_chunk::<4>()) else {
                return Err(short);
            };
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*client).into(), u16::from_be_bytes([high, low]))))
        }
        // Not of TCP over IP (a Unix socket, for example): as if it were not known.
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_version_1() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 56324 443", Ok(Some("192.0.2.7:56324"))),
            ("PROXY TCP6 2001:db8::7 2001:db8::1 1 65535", Ok(Some("[2001:db8::7]:1"))),
            ("PROXY UNKNOWN", Ok(None)),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2", Ok(None)),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2", Err("family")),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 1 2", Err("family")),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 1", Err("two addresses")),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3", Err("two addresses")),
            ("PROXY TCP4 192.0.2.7  198.51.100.1 1 2", Err("two addresses")),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 2", Err("port")),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 2", Err("port")),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 01 2", Err("port")),
            ("PROXY TCP4 192.0.2.007 198.51.100.1 1 2", Err("address")),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 1 2", Err("TCP4 or TCP6")),
            ("PROXY ", Err("two addresses")),
            ("PROXY TCP4 \u{e4} 198.51.100.1 1 2", Err("address")),
        ] {
            match (version_1(line.as_bytes()), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found, expected.map(|text| text.parse().expect("address")), "{line}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }

    #[test]
    fn blocks_of_version_2() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb];
        let mut six = vec![0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        six.extend_from_slice(&[0; 16]);
        six.extend_from_slice(&[0, 1, 1, 0xbb]);
        let with_extension = [&four[..], &[0x20, 0, 2, 1, 2]].concat();
        for (command, family, block, expected) in [
            (0x21, 0x11, &four[..], Ok(Some("192.0.2.7:56324"))),
            (0x21, 0x11, &with_extension[..], Ok(Some("192.0.2.7:56324"))),
            (0x21, 0x21, &six[..], Ok(Some("[2001:db8::7]:1"))),
            (0x20, 0x00, &[][..], Ok(None)),
            (0x20, 0x11, &four[..3], Ok(None)),
            (0x21, 0x31, &four[..], Ok(None)),
            (0x21, 0x11, &four[..11], Err("cut off")),
            (0x21, 0x21, &six[..35], Err("cut off")),
            (0x11, 0x11, &four[..], Err("version")),
            (0x22, 0x11, &four[..], Err("command")),
        ] {
            match (addresses_2(command, family, block), expected) {
                (Ok(found), Ok(expected)) => {
                    assert_eq!(found, expected.map(|text| text.parse().expect("address")), "{command:x} {family:x}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{command:x} {family:x}: {error}"),
                (found, _) => panic!("{command:x} {family:x}: {found:?}"),
            }
        }
    }
}
