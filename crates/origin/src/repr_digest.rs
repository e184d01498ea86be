//! `Repr-Digest` (RFC 9530): the digests that a client declares for the body it sends.
//!
//! A structured-field dictionary of byte sequences (RFC 9651 § 3.2): `sha-256=:base64:, sha-512=:base64:`. Supported are
//! the two algorithms of RFC 9530 § 5 that are not deprecated, and `blake3` as our own. Every supported one is verified;
//! others are passed over, as long as at least one can be verified: a client that declares a digest wants it checked.

use api::{ErrorCode, Problem};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use objects::{Staged, Wanted};

/// The digests that were declared. Lengths are right by construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReprDigest {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
    blake3: Option<[u8; 32]>,
}

/// Members of one field: there are three that matter.
const MAX_MEMBERS: usize = 16;

/// RFC 9651 § 4.2.7 lets parsers take base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl ReprDigest {
    /// Reads the value of the field, all its lines joined with `, `.
    pub(crate) fn parse(value: &str) -> Result<Self, Problem> {
        let mut digests = Self::default();
        for (count, member) in value.split(',').enumerate() {
            if count == MAX_MEMBERS {
                return Err(invalid(format!("more than {MAX_MEMBERS} digests")));
            }
            let member = member.trim_matches([' ', '\t']);
            let (key, bytes) = parse_member(member).ok_or_else(|| {
                let shown: String = member.chars().take(80).collect();
                invalid(format!("{shown:?} is not a member of the form sha-256=:BASE64:"))
            })?;
            let fits = match key {
                "sha-256" => bytes.try_into().map(|bytes| digests.sha256 = Some(bytes)).is_ok(),
                "sha-512" => bytes.try_into().map(|bytes| digests.sha512 = Some(bytes)).is_ok(),
                "blake3" => bytes.try_into().map(|bytes| digests.blake3 = Some(bytes)).is_ok(),
                _ => true,
            };
            if !fits {
                return Err(invalid(format!("the value of {key} does not have the length of such a digest")));
            }
        }
        if digests == Self::default() {
            return Err(invalid("none of its algorithms is supported; use sha-256, sha-512 or blake3".to_owned()));
        }
        Ok(digests)
    }

    /// What must be computed beside BLAKE3.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { sha256: self.sha256.is_some(), sha512: self.sha512.is_some() }
    }

    /// Compares what was declared with what arrived.
    pub(crate) fn verify(&self, staged: &Staged) -> Result<(), Problem> {
        check("sha-256", self.sha256.as_ref(), staged.sha256.as_ref())?;
        check("sha-512", self.sha512.as_ref(), staged.sha512.as_ref())?;
        check("blake3", self.blake3.as_ref(), Some(&staged.digest.0))
    }
}

fn check<const N: usize>(
    algorithm: &str,
    declared: Option<&[u8; N]>,
    arrived: Option<&[u8; N]>,
) -> Result<(), Problem> {
    let Some(declared) = declared else { return Ok(()) };
    if Some(declared) == arrived {
        return Ok(());
    }
    let arrived = arrived.map_or_else(|| "unknown".to_owned(), |bytes| BASE64.encode(bytes));
    let declared = BASE64.encode(declared);
    Err(Problem::new(
        ErrorCode::DigestMismatch,
        format!("Repr-Digest declares {algorithm}=:{declared}: but the body that arrived has {arrived}; send it again"),
    ))
}

/// `key=:base64:`, with or without parameters behind it.
fn parse_member(member: &str) -> Option<(&str, Vec<u8>)> {
    let (key, value) = member.split_once('=')?;
    let (first, rest) = key.as_bytes().split_first()?;
    let key_is_good = (first.is_ascii_lowercase() || *first == b'*')
        && rest.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(b));
    let (encoded, parameters) = value.strip_prefix(':')?.split_once(':')?;
    if !key_is_good || !(parameters.is_empty() || parameters.starts_with(';')) {
        return None;
    }
    Some((key, BASE64.decode(encoded).ok()?))
}

fn invalid(why: String) -> Problem {
    Problem::new(ErrorCode::InvalidRequest, format!("Repr-Digest: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of nothing.
    const EMPTY: &str = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";

    #[test]
    fn what_is_understood() {
        let unpadded = EMPTY.replace("=:", ":").replacen(":", "=:", 1);
        let long = format!("sha-512=:{}:", BASE64.encode([7; 64]));
        let ours = format!("blake3=:{}:", BASE64.encode([9; 32]));
        for (value, count) in [
            (EMPTY.to_owned(), 1),
            (unpadded, 1),
            (format!("{EMPTY};q=1"), 1),
            (format!("{EMPTY} , {long},\t{ours}"), 3),
            (format!("md5=:AAAA:, {EMPTY}"), 1),
            (format!("{EMPTY}, {EMPTY}"), 1),
        ] {
            let digests = ReprDigest::parse(&value).expect(&value);
            let found = [digests.sha256.is_some(), digests.sha512.is_some(), digests.blake3.is_some()];
            assert_eq!(found.iter().filter(|found| **found).count(), count, "{value}");
            assert_eq!(digests.wanted(), Wanted { sha256: found[0], sha512: found[1] });
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        let many = vec!["md5=:AAAA:"; MAX_MEMBERS + 1].join(",");
        for (value, why) in [
            ("", "form sha-256="),
            ("sha-256", "form sha-256="),
            ("sha-256=47DEQ", "form sha-256="),
            ("sha-256=:47DEQ", "form sha-256="),
            ("sha-256=:47!EQ:", "form sha-256="),
            ("sha-256=::x", "form sha-256="),
            ("SHA-256=:AAAA:", "form sha-256="),
            ("sha-256=:AAAA:", "length"),
            ("blake3=:AAAA:", "length"),
            ("md5=:AAAA:, unixsum=:AA==:", "use sha-256, sha-512 or blake3"),
            (&format!("{EMPTY},"), "form sha-256="),
            (&many, "more than 16"),
        ] {
            let problem = ReprDigest::parse(value).expect_err(value);
            assert_eq!(problem.code, ErrorCode::InvalidRequest, "{value}");
            assert!(problem.detail.contains(why), "{value}: {}", problem.detail);
        }
    }
}
