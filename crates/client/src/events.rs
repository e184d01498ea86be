//! Following the event stream (`GET /v1/events`, server-sent events as in the HTML standard § 9.2).

use std::collections::VecDeque;

use api::{Event, Health, Hello};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use net::{Body, NetError};

use crate::{Client, ClientError, query};

/// Longest line of the stream, in bytes: a purge of 1,000 long URLs fits.
const MAX_LINE_BYTES: usize = 4 << 20;

/// One message of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem {
    /// The first message.
    Hello(Hello),
    /// A numbered event.
    Event(Event),
    /// The health of the nodes.
    Health(Health),
    /// The other side is there and has nothing to say.
    Ping,
}

/// An open event stream.
pub struct EventStream {
    body: Body,
    url: String,
    lines: Lines,
}

impl Client {
    /// Follows the events after number `after` (`None`: from now on).
    ///
    /// # Errors
    /// See [`ClientError`]; `EventsGone` when some of those events are no longer kept.
    pub async fn events(&self, after: Option<u64>, follow: bool) -> Result<EventStream, ClientError> {
        let pairs = [("after", after.map(|n| n.to_string())), ("follow", (!follow).then(|| "false".to_owned()))];
        let path = format!("/v1/events{}", query(pairs));
        let response = self.send(Method::GET, &path, None).await?;
        Ok(EventStream {
            body: response.into_body(),
            url: format!("{}{path}", self.base_url()),
            lines: Lines::default(),
        })
    }
}

impl EventStream {
    /// The next message; nothing when the stream has ended in order.
    ///
    /// # Errors
    /// The connection broke or fell silent, or a message cannot be understood.
    pub async fn next(&mut self) -> Result<Option<StreamItem>, ClientError> {
        loop {
            if let Some(item) = self.lines.next_item().map_err(|why| self.unexpected(why))? {
                return Ok(Some(item));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    let (peer, why) = (self.url.clone(), format!("the stream broke off: {error}"));
                    return Err(NetError::Exchange { peer, why }.into());
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.push(&data).map_err(|why| self.unexpected(why))?;
                    }
                }
            }
        }
    }

    /// The next message that has already arrived, without waiting for more: lets a reader take a burst as one batch.
    ///
    /// # Errors
    /// A message cannot be understood.
    pub fn next_ready(&mut self) -> Result<Option<StreamItem>, ClientError> {
        self.lines.next_item().map_err(|why| self.unexpected(why))
    }

    fn unexpected(&self, why: String) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), status: 200, why }
    }
}

/// Splits bytes into lines and lines into messages. Only the fields `event` and `data` matter to us.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    whole: VecDeque<Bytes>,
    event: Vec<u8>,
    data: Vec<u8>,
}

impl Lines {
    fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(at) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(at);
            self.partial.extend_from_slice(line);
            if self.partial.last() == Some(&b'\r') {
                self.partial.pop();
            }
            self.whole.push_back(std::mem::take(&mut self.partial).into());
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > MAX_LINE_BYTES {
            return Err(format!("a line of the event stream is longer than {MAX_LINE_BYTES} bytes"));
        }
        Ok(())
    }

    fn next_item(&mut self) -> Result<Option<StreamItem>, String> {
        while let Some(line) = self.whole.pop_front() {
            if let Some(value) = line.strip_prefix(b"event: ") {
                self.event = value.to_vec();
            } else if let Some(value) = line.strip_prefix(b"data: ") {
                self.data = value.to_vec();
            } else if line.starts_with(b":") {
                return Ok(Some(StreamItem::Ping));
            } else if line.is_empty() && !self.data.is_empty() {
                let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
                return parse(&event, &data).map(Some).map_err(|error| format!("cannot read an event: {error}"));
            }
        }
        Ok(None)
    }
}

fn parse(event: &[u8], data: &[u8]) -> serde_json::Result<StreamItem> {
    match event {
        b"hello" => serde_json::from_slice(data).map(StreamItem::Hello),
        b"health" => serde_json::from_slice(data).map(StreamItem::Health),
        _ => serde_json::from_slice(data).map(StreamItem::Event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: hello\ndata: {\"catalog_id\":\"c\",\"head\":5,\"oldest\":1,\"generation\":2}\n\n: ping\n\n\
        id: 6\r\nevent: config\r\ndata: {\"seq\":6,\"at_ms\":1,\"kind\":\"config\",\"generation\":3}\r\n\r\n";

    fn items(pieces: impl Iterator<Item = &'static [u8]>) -> Vec<StreamItem> {
        let mut lines = Lines::default();
        let mut items = Vec::new();
        for piece in pieces {
            lines.push(piece).expect("short");
            while let Some(item) = lines.next_item().expect("valid") {
                items.push(item);
            }
        }
        items
    }

    #[test]
    fn messages_survive_any_cutting() {
        let whole = items(std::iter::once(STREAM.as_bytes()));
        assert_eq!(whole.len(), 3);
        assert!(matches!(
            whole.as_slice(),
            [StreamItem::Hello(_), StreamItem::Ping, StreamItem::Event(Event { seq: 6, .. })]
        ));
        for size in 1..STREAM.len() {
            assert_eq!(items(STREAM.as_bytes().chunks(size)), whole, "pieces of {size}");
        }
    }

    #[test]
    fn endless_lines_and_nonsense_are_errors() {
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'x'; MAX_LINE_BYTES]).is_ok());
        assert!(lines.push(b"x").is_err());
        let mut lines = Lines::default();
        lines.push(b"event: purge\ndata: {\n\n").expect("short");
        assert!(lines.next_item().is_err());
    }
}
