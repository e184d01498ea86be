//! Answers that are ready: a plain read ([`net::Plain`]) of something that memory has whole and fresh is answered with what
//! was worked out for an earlier one, before anything of it is parsed.
//!
//! What is remembered of a URL is what never changes while the configuration stays: its zone, its key and, for the response
//! that was sent last, the fields that are the same each time. It is learnt from a plain read that went the whole way, and
//! was a hit or left the page in memory. Everything that can change is looked at each time, with the functions that the whole way uses: which variant
//! is selected, what was purged, how old it is. Whatever is not a plain hit then goes the whole way.
//!
//! Each thread remembers for itself, so nothing here is shared between cores but what the store and the marks are. What is
//! remembered keeps no body in memory.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_cache::Outcome;
use http_cache::coding::{self, Accepted, Coding};
use http_cache::response::{self, Use};
use net::{Peer, Plain, ReadyAnswers};

use crate::access_log::Line;
use crate::node::{Link, Node, StoredAs};
use crate::pull::Site;
use crate::pull::answer::{CACHE_STATUS, SERVER_TIMING, X_CACHE};
use crate::pull::stored::{Content, Page, Variant};
use crate::pull::zone::PullZone;
use crate::purges::Verdict;

/// URLs that a thread remembers: [`WAYS`] in each of so many sets. One to two kilobytes each, and another for each further form.
const SETS: usize = 8_192;
/// Places for the URLs of one set.
const WAYS: usize = 4;
/// Bytes of host and target of a URL that is remembered.
const URL_BYTES: usize = 1_024;
/// Bytes of the head of a response that is remembered.
const HEAD_BYTES: usize = 4_096;

thread_local! {
    static MEMORY: RefCell<Remembered> = RefCell::new(Remembered::default());
}

/// What a plain read that goes the whole way may teach.
pub(crate) struct Lesson {
    of: Site,
    secure: bool,
    host: Box<[u8]>,
    target: Box<[u8]>,
}

impl Lesson {
    /// Nothing where the request is not plain, or the zone looks at fields that plain reads may have.
    pub(crate) fn of(zone: &PullZone, of: Site, parts: &Parts, has_body: bool) -> Option<Self> {
        if has_body || !zone.plain {
            return None;
        }
        let Plain { peer, host, target, .. } =
            Plain::of(&parts.method, &parts.uri, &parts.headers, *parts.extensions.get::<Peer>()?, parts.version)?;
        let secure = peer.secure;
        let fits = host.len() + target.len() <= URL_BYTES;
        fits.then(|| Self { of, secure, host: host.into(), target: target.into() })
    }

    /// Remembers where the answer is.
    pub(crate) fn learn(self, node: &Arc<Node>, zone: &Arc<PullZone>, stored_as: StoredAs) {
        let Self { of, secure, host, target } = self;
        let known =
            Known { node: node.number, of, secure, host, target, stored_as, zone: Arc::clone(zone), answers: None };
        MEMORY.with_borrow_mut(|memory| memory.keep(known));
    }
}

/// The answers of an edge that are ready.
pub(crate) struct Ready(pub(crate) Arc<Node>);

impl ReadyAnswers for Ready {
    fn answer(&self, asked: &Plain<'_>, head: &mut Vec<u8>) -> Option<Bytes> {
        self.hit(asked, |made, hit| {
            head.extend_from_slice(made.head());
            hit.finish_head(head);
            hit.body
        })
    }

    fn answer_block(&self, asked: &Plain<'_>, block: &mut Vec<u8>) -> Option<Bytes> {
        self.hit(asked, |made, hit| {
            block.extend_from_slice(made.block());
            hit.finish_block(block);
            hit.body
        })
    }
}

impl Ready {
    /// What `write` makes of a request that is a plain hit.
    fn hit<T>(&self, asked: &Plain<'_>, write: impl FnOnce(&mut Made, Hit<'_>) -> T) -> Option<T> {
        let started = Instant::now();
        let node = &self.0;
        if !node.standalone() && *node.link.borrow() != Link::Live {
            return None;
        }
        MEMORY.with_borrow_mut(|memory| {
            let place = memory.find(node, asked)?;
            let written = place.as_mut()?.hit(node, asked, started, write);
            if written.is_none() {
                // It is looked at as a whole now, and learnt anew.
                *place = None;
            }
            written
        })
    }
}

/// What a thread remembers.
struct Remembered {
    hasher: RandomState,
    /// Made when the first URL is learnt.
    places: Vec<Place>,
    /// In which place of a full set the next URL is put.
    turn: usize,
}

/// A place for a URL. Its hash stands beside it, so that others' places cost no look elsewhere: what many thousands of URLs
/// are remembered in is not in the processor's cache.
#[derive(Default)]
struct Place {
    hash: u64,
    known: Option<Box<Known>>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { hasher: RandomState::new(), places: Vec::new(), turn: 0 }
    }
}

impl Remembered {
    fn hash(&self, secure: bool, host: &[u8], target: &[u8]) -> u64 {
        self.hasher.hash_one((secure, host, target))
    }

    fn set(&mut self, hash: u64) -> &mut [Place] {
        let first = usize::try_from(hash % SETS as u64).unwrap_or(0) * WAYS;
        self.places.get_mut(first..first + WAYS).unwrap_or_default()
    }

    fn find(&mut self, node: &Node, asked: &Plain<'_>) -> Option<&mut Option<Box<Known>>> {
        let fits = |known: &Known| {
            *known.target == *asked.target
                && *known.host == *asked.host
                && known.secure == asked.peer.secure
                && known.node == node.number
        };
        let hash = self.hash(asked.peer.secure, asked.host, asked.target);
        let mut set = self.set(hash).iter_mut();
        let place = set.find(|place| place.hash == hash && place.known.as_deref().is_some_and(fits))?;
        Some(&mut place.known)
    }

    fn keep(&mut self, known: Known) {
        if self.places.is_empty() {
            self.places.resize_with(SETS * WAYS, Place::default);
        }
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % WAYS;
        let hash = self.hash(known.secure, &known.host, &known.target);
        let set = self.set(hash);
        let same = set.iter().position(|place| place.hash == hash);
        let at = same.or_else(|| set.iter().position(|place| place.known.is_none())).unwrap_or(turn);
        if let Some(place) = set.get_mut(at) {
            *place = Place { hash, known: Some(Box::new(known)) };
        }
    }
}

/// What is remembered of a URL.
struct Known {
    /// Of which edge of this process.
    node: u64,
    of: Site,
    secure: bool,
    host: Box<[u8]>,
    target: Box<[u8]>,
    stored_as: StoredAs,
    zone: Arc<PullZone>,
    answers: Option<Answers>,
}

impl Known {
    fn hit<T>(
        &mut self,
        node: &Arc<Node>,
        asked: &Plain<'_>,
        started: Instant,
        write: impl FnOnce(&mut Made, Hit<'_>) -> T,
    ) -> Option<T> {
        if self.of.view != node.view_number() || !self.stored_as.in_era(node) {
            return None;
        }
        let page = node.use_stored(&mut self.stored_as)?;
        let variant = selected(&page, asked, &self.zone)?;
        let key = self.stored_as.key()?;
        if node.verdict_on_variant(key, variant) != Verdict::Clean {
            return None;
        }
        let now_ms = node.now_ms();
        let age_s = variant.age_s(now_ms);
        let Use::Fresh { ttl_s } = response::reuse(&variant.terms, age_s, None) else { return None };
        let answers = match &mut self.answers {
            Some(answers) if std::ptr::eq(answers.variant.as_ptr(), Arc::as_ptr(variant)) => answers,
            answers => answers.insert(Answers::of(&self.zone, variant)),
        };
        // Only this costs a look at `Accept-Encoding`; that of most responses is settled.
        let compression = self.zone.compression.as_ref().filter(|_| answers.compressed);
        let accepted = compression.map(|of| (of, Accepted::read(asked.values(header::ACCEPT_ENCODING.as_str()))));
        let form = accepted.and_then(|(compression, accepted)| compression.form(variant, &accepted));
        let (coding, body) = match form {
            Some((coding, bytes)) => (Some(coding), bytes.clone()),
            None => (None, variant.body.get_or_init(|| body(variant)).clone()?),
        };
        let made = match answers.made.get_mut(coding.map_or(0, |coding| coding.index() + 1))? {
            Some(made) => made,
            made => made.insert(Made::of(node, &self.zone, &self.of, variant, coding, body.len() as u64)?),
        };
        node.bring_to_disk(key, variant);
        if let Some(wanted) = accepted.and_then(|(compression, accepted)| accepted.best(compression.codings())) {
            node.pack(key, variant, wanted);
        }
        node.count_stored_use(&self.stored_as, variant.length.unwrap_or(0));
        let took = started.elapsed();
        let name = node.config.node.name.as_str();
        node.metrics.count_ready(took);
        if let Some(log) = node.config.access_log.as_ref().filter(|log| log.picks()) {
            log.add(&line(name, asked, now_ms, body.len() as u64, took));
        }
        Some(write(made, Hit { node: name, age_s, ttl_s, took, body }))
    }
}

/// The answers out of a variant.
struct Answers {
    /// It keeps the variant's place, and so its address, but nothing of it.
    variant: Weak<Variant>,
    /// The zone compresses it.
    compressed: bool,
    /// As it came, and in each coding.
    made: [Option<Made>; Coding::ALL.len() + 1],
}

impl Answers {
    fn of(zone: &PullZone, variant: &Arc<Variant>) -> Self {
        let compressed = zone.compresses(variant).is_some();
        Self { variant: Arc::downgrade(variant), compressed, made: Default::default() }
    }
}

/// What is the same in each answer in one form.
struct Made {
    fields: HeaderMap,
    length: u64,
    /// The same as text, once it was asked for,
    head: Option<Box<[u8]>>,
    /// and as a block of HPACK.
    block: Option<Box<[u8]>>,
}

impl Made {
    /// Nothing where it has no `Date`, or is too large to be remembered.
    fn of(
        node: &Node,
        zone: &PullZone,
        of: &Site,
        variant: &Variant,
        coding: Option<Coding>,
        length: u64,
    ) -> Option<Self> {
        let mut fields = variant.fields.clone();
        if zone.compresses(variant).is_some() {
            coding::vary_by_coding(&mut fields);
        }
        if let Some(coding) = coding {
            coding.describe(&mut fields);
        }
        fields.insert(X_CACHE, HeaderValue::from_static(Outcome::Hit.x_cache()));
        let via = format!("1.1 littoral-{}", node.config.node.name);
        fields.append(header::VIA, HeaderValue::try_from(via).ok()?);
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        zone.change_response(&mut fields);
        http_cache::hop::strip(&mut fields);
        if let (Some(hsts), false) = (&of.hsts, fields.contains_key(header::STRICT_TRANSPORT_SECURITY)) {
            fields.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        let bytes: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let fits = bytes <= HEAD_BYTES && fields.contains_key(header::DATE);
        fits.then(|| Self { fields, length, head: None, block: None })
    }

    fn head(&mut self) -> &[u8] {
        self.head.get_or_insert_with(|| net::ready_head(&self.fields, self.length).into())
    }

    fn block(&mut self) -> &[u8] {
        self.block.get_or_insert_with(|| net::ready_block(&self.fields, self.length).into())
    }
}

/// What is different in each answer.
struct Hit<'a> {
    node: &'a str,
    age_s: u64,
    ttl_s: u64,
    /// Until now.
    took: Duration,
    body: Bytes,
}

impl Hit<'_> {
    /// Adds what is different to a head.
    fn finish_head(&self, head: &mut Vec<u8>) {
        let Self { node, age_s, ttl_s, .. } = self;
        let (ms, us) = self.took();
        head.extend_from_slice(b"age: ");
        push_number(head, *age_s, 1);
        head.extend_from_slice(b"\r\ncache-status: littoral-");
        head.extend_from_slice(node.as_bytes());
        head.extend_from_slice(b"; hit; ttl=");
        push_number(head, *ttl_s, 1);
        head.extend_from_slice(b"\r\nserver-timing: edge;dur=");
        push_number(head, ms, 1);
        head.push(b'.');
        push_number(head, us, 3);
        head.extend_from_slice(b"\r\n");
    }

    /// The same for a block of HPACK.
    fn finish_block(&self, block: &mut Vec<u8>) {
        let Self { node, age_s, ttl_s, .. } = self;
        let (ms, us) = self.took();
        let (hit, timing) = (b"; hit; ttl=", b"edge;dur=");
        let (prefix, length) = (b"littoral-", digits(*ttl_s));
        net::block_literal(block, "age", digits(*age_s));
        push_number(block, *age_s, 1);
        net::block_literal(block, "cache-status", prefix.len() + node.len() + hit.len() + length);
        block.extend_from_slice(prefix);
        block.extend_from_slice(node.as_bytes());
        block.extend_from_slice(hit);
        push_number(block, *ttl_s, 1);
        net::block_literal(block, "server-timing", timing.len() + digits(ms) + 4);
        block.extend_from_slice(timing);
        push_number(block, ms, 1);
        block.push(b'.');
        push_number(block, us, 3);
    }

    /// Milliseconds and microseconds.
    fn took(&self) -> (u64, u64) {
        let us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        (us / 1_000, us % 1_000)
    }
}

/// Writes a number in at least so many digits: several times as fast as what `format!` does.
fn push_number(text: &mut Vec<u8>, mut number: u64, digits: usize) {
    let mut reversed = [b'0'; 20];
    let mut count = 0;
    for digit in &mut reversed {
        if number == 0 && count >= digits {
            break;
        }
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        count += 1;
    }
    text.extend(reversed.iter().take(count).rev());
}

/// Digits that a number has.
fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// What the access log says of a plain hit.
fn line<'a>(node: &'a str, asked: &Plain<'a>, time_ms: u64, bytes: u64, took: Duration) -> Line<'a> {
    Line {
        time_ms,
        node,
        client: asked.peer.address.ip().to_canonical(),
        secure: asked.peer.secure,
        version: asked.version,
        method: "GET",
        host: asked.host,
        target: asked.target,
        user_agent: asked.values("user-agent").next().unwrap_or_default(),
        status: StatusCode::OK.as_u16(),
        bytes,
        complete: true,
        cache: Outcome::Hit.x_cache().as_bytes(),
        took,
    }
}

/// The variant of a page that a plain read selects.
fn selected<'a>(page: &'a Page, asked: &Plain<'_>, zone: &PullZone) -> Option<&'a Arc<Variant>> {
    if let [only] = page.variants.as_slice()
        && only.selected_by.is_empty()
    {
        return Some(only);
    }
    let mut fields = HeaderMap::new();
    for name in page.selecting_names() {
        for value in asked.values(name.as_str()) {
            fields.append(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    page.select(&fields, !zone.strict())
}

/// The body of a 200 all of which is in memory, in one piece.
fn body(variant: &Variant) -> Option<Bytes> {
    let Content::Parts(parts) = &variant.content else { return None };
    if variant.status != StatusCode::OK || !variant.whole() {
        return None;
    }
    match parts.as_slice() {
        [] => Some(Bytes::new()),
        [part] => <&[Bytes; 1]>::try_from(part.pieces.as_slice()).ok().map(|[piece]| piece.clone()),
        _ => None,
    }
}

/// Whether no field that a plain read may have plays a part in a zone's decisions, and nothing that [`Hit`] adds is
/// changed by it.
pub(crate) fn suits(doc: &api::PullDoc) -> bool {
    let plain = |name: &String| net::is_plain_field(name.as_bytes());
    let added = [header::AGE, CACHE_STATUS, SERVER_TIMING];
    let changes = |name: &str| name.parse::<HeaderName>().is_ok_and(|name| added.contains(&name));
    !doc.key.headers.iter().any(plain)
        && !doc.bypass.iter().filter_map(|entry| entry.header.as_ref()).any(plain)
        && !doc.response_headers.iter().any(|change| changes(&change.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (number, digits, expected) in [
            (0, 1, "0"),
            (0, 3, "000"),
            (7, 3, "007"),
            (1_234, 3, "1234"),
            (90, 1, "90"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut text = Vec::new();
            push_number(&mut text, number, digits);
            assert_eq!(String::from_utf8(text).expect("digits"), expected);
            assert!(digits > 1 || self::digits(number) == expected.len());
        }
    }
}
