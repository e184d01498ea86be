//! URLs of files, derived and never stored: a zone that gets another host gets other URLs.

use api::{FileDoc, NodeDoc, Receipt, ZoneDoc, Zones};
use catalog::StoredFile;
use http::Uri;

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`, without a trailing slash.
#[derive(Debug, Clone)]
pub(crate) struct PublicUrl {
    whole: String,
    scheme: String,
    port: Option<u16>,
}

impl PublicUrl {
    /// The URL, if it has this form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.trim_end_matches('/').parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none() && !authority.as_str().contains('@');
        let good = plain && matches!(scheme, "http" | "https") && !authority.host().is_empty();
        let whole = format!("{scheme}://{authority}");
        good.then(|| Self { whole, scheme: scheme.to_owned(), port: authority.port_u16() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.whole
    }

    /// What URLs in `zone` begin with: its own base URL, else its first host at this port, else this.
    pub(crate) fn base(&self, zone: &ZoneDoc) -> String {
        match (&zone.base_url, zone.hosts.first(), self.port) {
            (Some(base), _, _) => base.clone(),
            (None, Some(host), Some(port)) => format!("{}://{host}:{port}", self.scheme),
            (None, Some(host), None) => format!("{}://{host}", self.scheme),
            (None, None, _) => self.whole.clone(),
        }
    }

    /// The document of a file in `zone`.
    pub(crate) fn document(&self, zone: &ZoneDoc, file: StoredFile, receipts: Vec<Receipt>) -> FileDoc {
        let base = self.base(zone);
        FileDoc {
            url: format!("{base}/{}", file.path.to_url()),
            id_url: format!("{base}/-/{}", file.id),
            id: file.id,
            zone: file.zone,
            path: file.path,
            version: file.version,
            digest: file.digest,
            size: file.size,
            media_type: file.media_type,
            cache_control: file.cache_control,
            tags: file.tags,
            event: file.event,
            modified_ms: file.modified_ms,
            receipts,
        }
    }
}

/// Where `file` is read at one node, whose own host may be another zone's.
pub(crate) fn at_node(node_url: &str, file: &StoredFile, zones: &Zones) -> String {
    let base = node_url.trim_end_matches('/');
    let host = base.split_once("://").map_or(base, |(_, host)| host);
    let path = file.path.to_url();
    match zones.by_host(host) {
        Some(zone) if zone.name == file.zone => format!("{base}/{path}"),
        _ => format!("{base}/-/content/{}/{path}", file.zone),
    }
}

/// That a node's URL can be one.
pub(crate) fn check_node(node: &NodeDoc) -> Result<(), String> {
    if PublicUrl::parse(&node.url).is_none() {
        return Err(format!("url: {:?} is not of the form http://HOST:PORT", node.url));
    }
    match &node.https_url {
        Some(url) if !url.starts_with("https://") || PublicUrl::parse(url).is_none() => {
            Err(format!("https_url: {url:?} is not of the form https://HOST:PORT"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let zone = |hosts: &[&str], base: Option<&str>| ZoneDoc {
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            base_url: base.map(str::to_owned),
            ..ZoneDoc::new("z".parse().expect("zone"))
        };
        let at = |url: &str, zone: &ZoneDoc| PublicUrl::parse(url).expect(url).base(zone);
        assert_eq!(at("http://127.0.0.1:8600/", &zone(&[], None)), "http://127.0.0.1:8600");
        assert_eq!(at("http://127.0.0.1:8600", &zone(&["a.example", "b"], None)), "http://a.example:8600");
        assert_eq!(at("https://cdn.example", &zone(&["a.example"], None)), "https://a.example");
        assert_eq!(at("http://x:1", &zone(&["a.example"], Some("https://y"))), "https://y");
        for bad in ["", "x", "ftp://x", "http://", "http://x/y", "http://x?y", "http://u@x", "http://:80"] {
            assert!(PublicUrl::parse(bad).is_none(), "{bad}");
        }
    }
}
