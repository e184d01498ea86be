//! Which stored responses of a pull zone are compressed at the edge.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{CachePolicy, PullDoc, essence, glob};

/// The most that [`CompressionDoc::max_bytes`] may be: 4 MiB.
pub const MAX_COMPRESSED_BYTES: u32 = 4 << 20;

/// Which stored responses are compressed, once for each encoding. It is about whole ones (200) that came without a
/// `Content-Encoding` and without `no-transform`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionDoc {
    /// What is made; of those that a client likes equally, the first. Empty: nothing is compressed.
    pub encodings: Vec<Encoding>,
    /// Media types: [patterns](glob) like `text/*`.
    pub types: Vec<String>,
    /// The smallest body, in bytes.
    pub min_bytes: u32,
    /// The largest body, in bytes; at most [`MAX_COMPRESSED_BYTES`].
    pub max_bytes: u32,
}

/// A content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Zstandard.
    Zstd,
    /// Brotli.
    Br,
    /// Gzip.
    Gzip,
}

impl Encoding {
    /// Its name in `Content-Encoding`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// Media types that are text, or as good as text, inside. Web fonts (`woff`, `woff2`) and pictures are compressed already.
const COMPRESSED_TYPES: [&str; 14] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

impl Default for CompressionDoc {
    fn default() -> Self {
        Self {
            encodings: vec![Encoding::Zstd, Encoding::Br, Encoding::Gzip],
            types: COMPRESSED_TYPES.map(str::to_owned).to_vec(),
            min_bytes: 1_024,
            max_bytes: MAX_COMPRESSED_BYTES,
        }
    }
}

impl CompressionDoc {
    /// Nothing is compressed.
    pub fn off() -> Self {
        Self { encodings: Vec::new(), ..Self::default() }
    }

    /// Whether it is about bodies of this media type.
    pub fn has_type(&self, media_type: &str) -> bool {
        let essence = essence(media_type);
        self.types.iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), &essence))
    }

    /// Whether it is about bodies of so many bytes.
    pub fn has_length(&self, bytes: u64) -> bool {
        (u64::from(self.min_bytes)..=u64::from(self.max_bytes)).contains(&bytes)
    }
}

impl PullDoc {
    /// What is compressed, with what the policy leaves open filled in.
    pub fn compression(&self) -> CompressionDoc {
        match (&self.compression, self.policy) {
            (Some(doc), _) => doc.clone(),
            (None, CachePolicy::Safe) => CompressionDoc::default(),
            // A cache that does what the RFCs say and nothing else hands on what it got.
            (None, CachePolicy::Rfc) => CompressionDoc::off(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_lengths() {
        let doc = CompressionDoc::default();
        for (media_type, expected) in [
            ("text/html; charset=utf-8", true),
            ("Text/CSS", true),
            ("application/json", true),
            ("application/ld+json", true),
            ("image/svg+xml", true),
            ("application/wasm", true),
            ("font/ttf", true),
            ("font/woff2", false),
            ("image/png", false),
            ("video/mp4", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(doc.has_type(media_type), expected, "{media_type}");
        }
        for (bytes, expected) in [(0, false), (1_023, false), (1_024, true), (4 << 20, true), ((4 << 20) + 1, false)] {
            assert_eq!(doc.has_length(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_the_policy_has_it() {
        let mut pull = PullDoc::new(Vec::new());
        assert_eq!(pull.compression(), CompressionDoc::default());
        pull.policy = CachePolicy::Rfc;
        assert_eq!(pull.compression(), CompressionDoc::off());
        let asked = CompressionDoc { encodings: vec![Encoding::Gzip], ..CompressionDoc::default() };
        pull.compression = Some(asked.clone());
        assert_eq!(pull.compression(), asked);
    }
}
