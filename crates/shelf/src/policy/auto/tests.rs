//! `auto` against the other policies, on requests that are made up: it must be as good as the best of them, or nearly so,
//! for both objectives, whatever the requests are like.

use super::{Auto, spread};
use crate::policy::nodes::{Node, Nodes};
use crate::policy::{Objective, Order, PolicyChoice, PolicyName};
use crate::simulate::{Outcome, Simulation};

/// So many requests are made of each kind: enough for caches to fill and for habits to show.
const REQUESTS: u64 = 10_000;
/// By how much `auto` may miss more than the best of the others.
const MARGIN: f64 = 0.01;

/// Numbers that look like chance, in 0..1; another row of them for each `row`.
fn chance(row: u64, number: u64) -> f64 {
    (spread(spread(row).wrapping_add(number)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// One of `most` ids, popular as Zipf has it with exponent 0.9: the inverse of the integral of `rank^-0.9`.
fn zipf(number: u64, most: u64) -> u64 {
    let span = (most as f64).powf(0.1) - 1.0;
    ((1.0 + chance(1, number) * span).powf(10.0) as u64).min(most) - 1
}

/// Sizes about 8 kB, most within a factor of 4: what the sum of some numbers of chance is like.
fn uneven(id: u64) -> u64 {
    let sum: f64 = (2..6).map(|row| chance(row, id)).sum();
    (8_000.0 * (4.0 * (sum - 2.0)).exp()) as u64 + 1
}

/// Kinds of requests: the id and the size of each.
fn kinds() -> Vec<(&'static str, Vec<(u64, u64)>)> {
    let make = |request: fn(u64) -> (u64, u64)| (0..REQUESTS).map(request).collect();
    vec![
        ("sizes without meaning", make(|n| (zipf(n, 5000), uneven(zipf(n, 5000))))),
        ("what is popular is large", make(|n| (zipf(n, 5000), 100_000 / (zipf(n, 5000) + 10)))),
        ("what is popular is small", make(|n| (zipf(n, 5000), 20 * (zipf(n, 5000) + 10)))),
        ("all of one size", make(|n| (zipf(n, 5000), 1000))),
        // Ids rise: what was popular is soon gone.
        ("news", make(|n| (zipf(n, 2000) + n / 8, uneven(zipf(n, 2000) + n / 8)))),
        // Half of the requests are for what nobody asks for again.
        (
            "one hit",
            make(|n| if n % 2 == 0 { ((1 << 32) + n, uneven(n)) } else { (zipf(n, 2000), uneven(zipf(n, 2000))) }),
        ),
        // Every third request reads on in a loop that is longer than the cache.
        ("loop", make(|n| if n % 3 == 0 { ((1 << 32) + n / 3 % 1500, 8000) } else { (zipf(n, 2000), 8000) })),
    ]
}

fn simulate(requests: &[(u64, u64)], limit_bytes: u64, choice: PolicyChoice) -> Outcome {
    let mut simulation = Simulation::new(limit_bytes, choice);
    for (id, bytes) in requests {
        simulation.request(*id, *bytes, 0);
    }
    simulation.outcome()
}

#[test]
fn it_is_as_good_as_the_best() {
    for (kind, requests) in kinds() {
        let sizes: std::collections::HashMap<u64, u64> = requests.iter().copied().collect();
        let limit_bytes = sizes.values().sum::<u64>() / 12;
        for (objective, missed) in [
            (Objective::Requests, Outcome::request_miss_ratio as fn(&Outcome) -> f64),
            (Objective::Bytes, Outcome::byte_miss_ratio),
        ] {
            let ratio = |policy| missed(&simulate(&requests, limit_bytes, PolicyChoice { policy, objective }));
            let others = PolicyName::ALL.into_iter().filter(|policy| *policy != PolicyName::Auto);
            let best = others.map(ratio).fold(1.0, f64::min);
            let auto = ratio(PolicyName::Auto);
            assert!(auto <= best + MARGIN, "{kind}, {objective:?}: {auto:.4}, the best of the others {best:.4}");
        }
    }
}

#[test]
fn what_came_in_learns_its_company_from_the_next_two_requests() {
    for (objective, expected) in [(Objective::Bytes, [0, 1, 2]), (Objective::Requests, [0; 3])] {
        let (mut nodes, mut auto) = (Nodes::new(), Auto::new(objective));
        let slots = [1_u64, 2, 3].map(|n| {
            let slot = nodes.take_slot(Node::new(n << 32, 100, 0));
            auto.insert(&mut nodes, slot, u64::MAX);
            slot
        });
        let companies = |auto: &Auto| slots.map(|slot| auto.held[slot as usize].record.company());
        assert_eq!(companies(&auto), [0; 3], "nobody has seen any of them before");
        // The first one comes back after 1,000 requests, as far as the clock says: ten bits, the mean of 6 and of 7 requests.
        auto.held[0].record.last = auto.now.wrapping_sub(999);
        auto.hit(&mut nodes, slots[0]);
        assert_eq!(companies(&auto)[1..], [expected[1], expected[1]], "{objective:?}");
        // Then the same after 2,000: 21 bits, of 7 requests.
        auto.held[0].record.last = auto.now.wrapping_sub(1999);
        auto.hit(&mut nodes, slots[0]);
        assert_eq!(companies(&auto)[1..], expected[1..], "{objective:?}");
        // Later requests are no company of theirs, and what was used twice has a gap instead.
        auto.held[0].record.last = auto.now.wrapping_sub(1 << 20);
        auto.hit(&mut nodes, slots[0]);
        assert_eq!(companies(&auto)[1..], expected[1..], "{objective:?}");
        auto.hit(&mut nodes, slots[2]);
        auto.hit(&mut nodes, slots[0]);
        assert_eq!((auto.held[2].record.uses, auto.held[2].record.gap), (2, 3), "{objective:?}");
    }
}
