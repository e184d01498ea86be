//! [`Bounded`] against a model that says nothing about order, for every policy and with classes; against one that says
//! everything, for LRU; and what classes and expiry promise.

use std::collections::BTreeMap;

use proptest::prelude::{Strategy, any, prop_oneof};

use super::*;

const LIMIT: u64 = 100;
const ALL: [&str; 9] = ["lru", "lfu", "s3fifo", "sieve", "gdsf", "gdsf:bytes", "auto", "auto:bytes", "none"];

fn hash(key: u8) -> u64 {
    // Few different hashes: keys collide.
    u64::from(key / 2 + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

fn choice(text: &str) -> PolicyChoice {
    text.parse().unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Get(u8),
    Peek(u8),
    Insert(u8, u32, u64, Terms),
    RemoveIfEven(u8),
    RemoveWhere(u64),
    Wait(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..24_u8;
    let terms = || {
        (0..4_u8, proptest::option::of(0..60_u32))
            .prop_map(|(class, expires_s)| Terms { class: Class(class), expires_s })
    };
    prop_oneof![
        6 => key().prop_map(Op::Get),
        1 => key().prop_map(Op::Peek),
        6 => (key(), any::<u32>(), 0..20_u64, terms()).prop_map(|(key, value, bytes, terms)| Op::Insert(key, value, bytes, terms)),
        1 => (key(), any::<u32>(), 0..LIMIT + 3, terms()).prop_map(|(key, value, bytes, terms)| Op::Insert(key, value, bytes, terms)),
        1 => key().prop_map(Op::RemoveIfEven),
        1 => (15..20_u64).prop_map(Op::RemoveWhere),
        1 => (0..5_u32).prop_map(Op::Wait),
    ]
}

/// What is held, as far as the answers of the map say it, and what should have been counted.
#[derive(Default)]
struct Model {
    held: BTreeMap<u8, (u32, Facts)>,
    counters: Counters,
    removed: u64,
    now_s: u32,
}

impl Model {
    fn value(&self, key: u8) -> Option<u32> {
        self.held.get(&key).map(|(value, _)| *value)
    }

    fn remove(&mut self, key: u8) -> Option<u32> {
        self.held.remove(&key).map(|(value, _)| value)
    }

    fn expired(&self, facts: &Facts) -> bool {
        facts.expires_s.is_some_and(|expires_s| expires_s <= self.now_s)
    }

    fn insert(&mut self, key: u8, value: u32, facts: Facts, insertion: &Insertion<u8, u32>) {
        let before = self.remove(key);
        let (replaced, evicted, stored) = match insertion {
            Insertion::Stored { replaced, evicted } => (replaced, evicted.as_slice(), true),
            Insertion::Refused { replaced, evicted } => (replaced, evicted.as_slice(), false),
            Insertion::TooLarge { replaced } => (replaced, &[][..], false),
        };
        assert_eq!(*replaced, before);
        assert_eq!(matches!(insertion, Insertion::TooLarge { .. }), facts.bytes > LIMIT);
        let mut living = false;
        for (key, value) in evicted {
            let (held, facts) = self.held.remove(key).expect("it was held");
            let expired = self.expired(&facts);
            assert!(held == *value && !(living && expired), "what has expired goes first");
            living |= !expired;
            self.counters.expired += u64::from(expired);
            self.counters.evictions += u64::from(!expired);
        }
        assert!(!living || !self.held.values().any(|(_, facts)| self.expired(facts)), "what has expired goes first");
        self.counters.insertions += u64::from(stored);
        self.counters.refused += u64::from(!stored);
        self.removed += u64::from(before.is_some());
        if stored {
            self.held.insert(key, (value, facts));
        }
    }

    fn check(&self, cache: &Bounded<u8, u32>) {
        let mut seen = BTreeMap::new();
        let mut from = Some(0);
        while let Some(slot) = from {
            from = cache.visit(slot, 3, |key, value, facts| {
                assert_eq!(seen.insert(*key, (*value, facts)), None);
                assert_eq!(cache.peek(hash(*key), key), Some(value));
            });
        }
        assert_eq!(seen, self.held);
        let bytes = |class: Option<u8>| {
            let all = self.held.values().map(|(_, facts)| facts);
            all.filter(|facts| class.is_none_or(|class| facts.class.0 == class)).map(|facts| facts.bytes).sum::<u64>()
        };
        assert!(cache.bytes() <= LIMIT && cache.bytes() == bytes(None));
        for (number, members) in (0..).zip(&cache.classes) {
            let len = self.held.values().filter(|(_, facts)| facts.class.0 == number).count();
            assert_eq!((members.bytes, members.len), (bytes(Some(number)), len));
        }
        assert_eq!((cache.len(), cache.counters()), (self.held.len(), self.counters));
        let Counters { insertions, evictions, expired, .. } = self.counters;
        assert_eq!(insertions - evictions - expired - self.removed, self.held.len() as u64);
        assert_eq!(cache.requests, cache.classes.iter().map(|members| members.requests).sum());
    }
}

/// Does the same to a map and the model. Whatever a policy has let go of must be gone everywhere, and nothing else.
fn run(mut cache: Bounded<u8, u32>, ops: &[Op]) {
    let mut model = Model::default();
    for op in ops.iter().cloned() {
        match op {
            Op::Get(key) => {
                let found = cache.get(hash(key), &key).copied();
                assert_eq!(found, model.value(key));
                model.counters.hits += u64::from(found.is_some());
                model.counters.misses += u64::from(found.is_none());
            }
            Op::Peek(key) => assert_eq!(cache.peek(hash(key), &key).copied(), model.value(key)),
            Op::Insert(key, value, bytes, terms) => {
                let insertion = cache.insert(hash(key), key, value, bytes, terms, model.now_s);
                let class = if usize::from(terms.class.0) < cache.classes.len() { terms.class } else { Class(0) };
                model.insert(key, value, Facts { bytes, class, expires_s: terms.expires_s }, &insertion);
            }
            Op::RemoveIfEven(key) => {
                let even = model.value(key).filter(|value| value % 2 == 0);
                assert_eq!(cache.remove_if(hash(key), &key, |value| value % 2 == 0), even);
                model.removed += u64::from(even.and_then(|_| model.remove(key)).is_some());
            }
            Op::RemoveWhere(least) => {
                let mut from = Some(0);
                while let Some(slot) = from {
                    let removed;
                    (removed, from) = cache.remove_where(slot, 5, |_, _, facts| facts.bytes >= least);
                    for (key, value) in removed {
                        assert!(model.held[&key].1.bytes >= least && model.remove(key) == Some(value));
                        model.removed += 1;
                    }
                }
                assert!(model.held.values().all(|(_, facts)| facts.bytes < least));
            }
            Op::Wait(seconds) => model.now_s += seconds,
        }
        model.check(&cache);
    }
    // Whoever is left leaves through the policies in the end: they know of all that is held.
    for key in 100..110 {
        let bytes = LIMIT / 10;
        for _ in 0..40 {
            let insertion = cache.insert(hash(key), key, 0, bytes, Terms::default(), model.now_s);
            model.insert(key, 0, Facts { bytes, class: Class(0), expires_s: None }, &insertion);
            model.check(&cache);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn it_holds_what_it_says_with_every_policy(ops in proptest::collection::vec(op(), 0..150)) {
        for policy in ALL {
            run(Bounded::new(LIMIT, choice(policy)), &ops);
        }
    }

    #[test]
    fn it_holds_what_it_says_with_classes(
        ops in proptest::collection::vec(op(), 0..200),
        policies in proptest::collection::vec(0..ALL.len(), 3),
    ) {
        let mut cache = Bounded::new(LIMIT, choice(ALL[policies[0]]));
        for (number, policy) in (1..).zip(&policies[1..]) {
            assert_eq!(cache.add_class(choice(ALL[*policy])), Some(Class(number)));
        }
        run(cache, &ops);
    }

    #[test]
    fn with_lru_the_order_is_that_of_use(ops in proptest::collection::vec((0..3_u8, 0..12_u8, 0..30_u64), 0..200)) {
        let mut cache = Bounded::new(LIMIT, choice("lru"));
        let mut order: Vec<(u8, u64)> = Vec::new();
        for (op, key, bytes) in ops {
            let at = order.iter().position(|(other, _)| *other == key);
            match (op, at) {
                (0, at) => {
                    assert_eq!(cache.get(hash(key), &key).is_some(), at.is_some());
                    let used = at.map(|at| order.remove(at));
                    order.extend(used);
                }
                (1, at) => {
                    assert_eq!(cache.remove_if(hash(key), &key, |_| true), at.map(|at| order.remove(at).1));
                }
                (_, at) => {
                    match at {
                        Some(at) => order[at].1 = bytes,
                        None => order.push((key, bytes)),
                    }
                    let mut expected = Vec::new();
                    while order.iter().map(|(_, bytes)| bytes).sum::<u64>() > LIMIT {
                        expected.push(order.remove(0));
                    }
                    let refused = expected.last().is_some_and(|(other, _)| *other == key);
                    match cache.insert(hash(key), key, bytes, bytes, Terms::default(), 0) {
                        Insertion::Stored { evicted, .. } => assert!(!refused && evicted == expected),
                        Insertion::Refused { evicted, .. } => {
                            assert!(refused && evicted == expected[..expected.len() - 1]);
                        }
                        Insertion::TooLarge { .. } => panic!("it is not too large"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_limit_itself_fits_and_a_byte_more_does_not() {
    for policy in ALL {
        let mut cache = Bounded::new(LIMIT, choice(policy));
        let mut insert = |key, bytes| cache.insert(hash(key), key, (), bytes, Terms::default(), 0);
        assert_eq!(insert(1, LIMIT), Insertion::Stored { replaced: None, evicted: vec![] }, "{policy}");
        assert_eq!(insert(1, LIMIT + 1), Insertion::TooLarge { replaced: Some(()) }, "{policy}");
        assert_eq!(insert(1, u64::MAX), Insertion::TooLarge { replaced: None }, "{policy}");
        // Many that weigh nothing.
        (0..200).for_each(|key| assert!(matches!(insert(key, 0), Insertion::Stored { .. }), "{policy}"));
        assert_eq!((cache.len(), cache.bytes()), (200, 0), "{policy}");
    }
}

#[test]
fn an_entry_that_grows_may_have_to_go_itself() {
    let mut cache = Bounded::new(LIMIT, choice("lru"));
    for key in 0..4 {
        cache.insert(hash(key), key, key, 25, Terms::default(), 0);
    }
    let mut insert = |key: u8, value, bytes| cache.insert(hash(key), key, value, bytes, Terms::default(), 0);
    // A replacement is no use: 0 is still the oldest.
    assert_eq!(insert(0, 10, 25), Insertion::Stored { replaced: Some(0), evicted: vec![] });
    assert_eq!(insert(0, 11, 26), Insertion::Refused { replaced: Some(10), evicted: vec![] });
    assert_eq!(insert(3, 13, 75), Insertion::Stored { replaced: Some(3), evicted: vec![(1, 1)] });
    assert_eq!((cache.bytes(), cache.counters().refused, cache.counters().evictions), (100, 1, 1));
}

/// How many of 50 busy keys are still there after 1,000 others came in one after the other, each once, in a cache for 200.
fn left_after_a_scan(apart: bool) -> u32 {
    let mut cache: Bounded<u32, ()> = Bounded::new(200, choice("lru"));
    let scanned = if apart { cache.add_class(choice("lru")).unwrap() } else { Class::default() };
    let mut ask = |key: u32, class| {
        let hash = u64::from(key + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let hit = cache.get(hash, &key).is_some();
        if !hit {
            cache.insert(hash, key, (), 1, Terms { class, expires_s: None }, 0);
        }
        u32::from(hit)
    };
    (0..500).for_each(|n| {
        ask(n % 50, Class::default());
    });
    (50..1_050).for_each(|key| {
        ask(key, scanned);
    });
    (0..50).map(|key| ask(key, Class::default())).sum()
}

#[test]
fn a_scan_through_one_class_does_not_push_out_another() {
    // With 500 of 1,500 requests the busy class may have 66 of the 200 bytes.
    assert_eq!((left_after_a_scan(false), left_after_a_scan(true)), (0, 50));
}

#[test]
fn what_a_class_does_not_use_the_others_may() {
    let mut cache: Bounded<u8, ()> = Bounded::new(LIMIT, choice("lru"));
    let other = cache.add_class(choice("sieve")).unwrap();
    let mut insert = |key, class| cache.insert(hash(key), key, (), 10, Terms { class, expires_s: None }, 0);
    for key in 0..10 {
        assert_eq!(insert(key, other), Insertion::Stored { replaced: None, evicted: vec![] });
    }
    // The first of the default class has a share of an eleventh, and takes it from the one that has too much.
    assert_eq!(insert(100, Class::default()), Insertion::Stored { replaced: None, evicted: vec![(0, ())] });
    // A class that does not exist is the default one: with two of twelve requests it has too much with three entries.
    assert_eq!(insert(101, Class(9)), Insertion::Stored { replaced: None, evicted: vec![(1, ())] });
    // An entry that changes its class leaves the old one.
    assert_eq!(insert(2, Class::default()), Insertion::Stored { replaced: Some(()), evicted: vec![] });
    assert_eq!(cache.classes.iter().map(|members| members.len).collect::<Vec<_>>(), [3, 7]);
}

#[test]
fn counts_of_requests_are_halved() {
    let mut cache: Bounded<u8, ()> = Bounded::new(LIMIT, choice("lru"));
    let other = cache.add_class(choice("lru")).unwrap();
    cache.insert(hash(1), 1, (), 1, Terms::default(), 0);
    cache.insert(hash(2), 2, (), 1, Terms { class: other, expires_s: None }, 0);
    for _ in 2..DECAY_REQUESTS - 1 {
        cache.get(hash(1), &1);
    }
    assert_eq!((cache.requests, cache.classes[0].requests), (DECAY_REQUESTS - 1, DECAY_REQUESTS - 2));
    cache.get(hash(1), &1);
    assert_eq!((cache.classes[0].requests, cache.classes[1].requests), ((DECAY_REQUESTS - 1) / 2, 0));
    assert_eq!(cache.requests, (DECAY_REQUESTS - 1) / 2);
}

/// Pages of this process that are in memory, in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

/// Twice as many are put in as fit, so that policies remember what left.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "alone in its process and in release: cargo test --release -p shelf a_million -- --ignored --test-threads 1"]
fn a_million_entries_cost_less_than_200_bytes_each() {
    const ENTRIES: u64 = 1_000_000;
    for policy in ALL {
        let before = resident_bytes();
        let mut cache: Bounded<u64, ()> = Bounded::new(ENTRIES, choice(policy));
        for key in 0..2 * ENTRIES {
            let terms = Terms { class: Class(0), expires_s: Some(1 + key as u32) };
            cache.insert(crate::simulate::hash(key), key, (), 1, terms, 0);
        }
        let each = (resident_bytes().saturating_sub(before) / ENTRIES, cache.heap_bytes() as u64 / ENTRIES);
        assert!(cache.len() as u64 == ENTRIES && each.0.max(each.1) <= 200, "{policy}: {each:?} bytes");
    }
}
