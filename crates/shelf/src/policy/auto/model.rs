//! The model of `auto`: how likely it is that a key is asked for by the next request, given its [`Record`].
//!
//! The rate of a key is a product of five factors: of how often it was used, of its usual gap between uses, of its size
//! (with levels of their own for what was used once, of which size is nearly all that is known, so that a few popular
//! entries do not speak for every newcomer that is as large), of the time since its last use (its age), and of that
//! time and the gap together: what came back after short gaps is overdue long before what came back after long ones.
//! What was used once has no gap; it has the novelty of the requests that it came with instead (`novelty.rs`), and with the
//! objective `bytes` its company (`company.rs`).
//! This is a piecewise constant proportional hazards model (Cox 1972; Friedman, Annals of Statistics 10, 1982). It is
//! learnt from everything that happens: each level of each factor counts the *uses* that there were, and the *expected*
//! uses, which are the sum of the rates of all keys over all the time that they waited at that level. At intervals each
//! level moves by a root of used / expected (generalised iterative scaling; Darroch and Ratcliff, Annals of
//! Mathematical Statistics 43, 1972). Both counts decay, so that the model follows when habits change.
//!
//! [`Model::worth`] is not the rate of the moment. A newcomer's rate falls with every request that passes, that of a file
//! in a loop rises until its turn comes. The worth is the Gittins index: the best average rate that can be had by keeping
//! the key from now on for some time, whichever is best (Gittins, J. R. Statist. Soc. B 41, 1979). Where rates fall with
//! age it is the rate; where they rise it looks ahead. The best of many averages, each a little wrong, is too high, most of
//! all for what was used once, of which least is known. With the objective `bytes`, where one large newcomer drives out
//! much, the look ahead for these is a short one ([`ONCE_AHEAD`]); with `requests` they are mostly small, and cost little.
//! Company is left out there: it wins next to nothing, and where long rows of keys come back now and then a long look ahead
//! that heeds it keeps the wrong ones (up to four points more misses).
//!
//! For the same reason sizes are judged by less than was learnt of them: large ones are rare, each level is known badly, and
//! whoever keeps what promises most keeps those that were overrated ([`Factor::along_a_line`]).

use super::company::COMPANY_MOST;
use super::factor::Factor;
use super::novelty::NOVELTY_MOST;
use super::record::Record;
use crate::policy::Objective;

/// Requests between two adjustments, which take some microseconds each.
const FIT_REQUESTS: u32 = 128;
/// Requests between two reckonings of the indices, at least; they take some tens of microseconds each.
const LOOK_REQUESTS: u32 = 512;
/// So many uses are taken to have been seen at each level of novelty that were no more than expected: with many people at
/// once, or none who read one page after the other, novelty says nothing.
const NOVELTY_DOUBT_USES: f64 = 1000.0;
/// The same of company, which says more.
const COMPANY_DOUBT_USES: f64 = 100.0;
/// Below so many uses and expected uses nothing is known of an age, and it is taken to be like the age before.
const KNOWN_USES: f64 = 1.0;
/// Levels of the factor of age: two for each doubling of 32 bits.
const AGES: usize = 64;
/// Classes of records: see [`class`].
const CLASSES: usize = 6;
/// With the objective `bytes`: for what was used once, the levels of age that are looked at, this one and the next.
const ONCE_AHEAD: usize = 2;
/// Levels of use: see [`use_level`].
const USES: usize = 13;
/// Levels of gap and of size.
const GAPS: usize = 26;
const SIZES: usize = 65;
/// Levels of novelty, of which only what was used once has one.
const NOVELTIES: usize = NOVELTY_MOST as usize + 1;
/// Levels of company, of which only what was used once has one.
const COMPANIES: usize = COMPANY_MOST as usize + 1;
/// What rates begin with is `uses / 5 / (age + 30)`: hyperbolic, as popularity in the manner of Zipf makes them.
const BEGIN_RATE: f64 = 0.2;
const BEGIN_AGE: f64 = 30.0;

/// The model, and the clock that its adjustments go by.
#[derive(Debug)]
pub(super) struct Model {
    objective: Objective,
    uses: Factor<USES>,
    gap: Factor<GAPS>,
    novelty: Factor<NOVELTIES>,
    /// With the objective `bytes`; 1 at each level with `requests`.
    company: Factor<COMPANIES>,
    /// Of what was used once, and of all else.
    size: [Factor<SIZES>; 2],
    age: Factor<AGES>,
    /// The factors of size that worth is reckoned with, along a line; worked out with the indices.
    sizes: [[f64; SIZES]; 2],
    /// How the factor of age differs in each class.
    class_age: [Factor<AGES>; CLASSES],
    /// The Gittins index at the beginning of each level of age, for other factors of 1.
    index: [[f64; AGES]; CLASSES],
    /// They are due to be worked out again.
    outdated: bool,
}

impl Model {
    pub(super) fn new(objective: Objective) -> Self {
        let mut model = Self {
            objective,
            uses: Factor::new(typical_uses),
            gap: Factor::new(|_| 1.0),
            novelty: Factor::new(|_| 1.0),
            company: Factor::new(|_| 1.0),
            size: [Factor::new(|_| 1.0); 2],
            sizes: [[1.0; SIZES]; 2],
            age: Factor::new(|level| BEGIN_RATE / (age_from(level) + BEGIN_AGE)),
            class_age: [Factor::new(|_| 1.0); CLASSES],
            index: [[0.0; AGES]; CLASSES],
            outdated: false,
        };
        model.look_ahead();
        model
    }

    /// The uses for each request that keeping a key promises at best, from now on for as long as is best.
    pub(super) fn worth(&self, record: &Record, now: u32) -> f64 {
        let age = record.age(now);
        let level = age_level(age);
        let indices = self.index.get(class(record));
        let index = |level: usize| indices?.get(level).copied();
        let (here, ahead) = (index(level).unwrap_or(0.0), index(level + 1));
        let part = (f64::from(age) - age_from(level)) / (age_from(level + 1) - age_from(level));
        let sizes = self.sizes.get(size_class(record));
        let size = sizes.and_then(|sizes| sizes.get(usize::from(record.size))).copied().unwrap_or(1.0);
        size * self.habits(record) * (here + (ahead.unwrap_or(here) - here) * part)
    }

    /// Learns that a key was not asked for since this was last said of it, nor since its last use.
    pub(super) fn waited(&mut self, record: &mut Record, now: u32) {
        let (mut from, to) = (record.counted.wrapping_sub(record.last), record.age(now));
        if from >= to {
            return;
        }
        let others = self.others(record);
        let mut expected = 0.0;
        let Some(class_age) = self.class_age.get_mut(class(record)) else { return };
        for level in age_level(from)..=age_level(to - 1) {
            let end = if age_from(level + 1) < f64::from(to) { age_from(level + 1) as u32 } else { to };
            let here = others * self.age.value(level) * class_age.value(level) * f64::from(end - from);
            self.age.count(level, 0.0, here);
            class_age.count(level, 0.0, here);
            expected += here;
            from = end;
        }
        self.uses.count(use_level(record.uses), 0.0, expected);
        self.count_gap(record, 0.0, expected);
        self.count_size(record, 0.0, expected);
        record.counted = now;
    }

    /// Learns that a key is asked for now.
    pub(super) fn used(&mut self, record: &Record, now: u32) {
        let level = age_level(record.age(now).saturating_sub(1));
        self.age.count(level, 1.0, 0.0);
        if let Some(class_age) = self.class_age.get_mut(class(record)) {
            class_age.count(level, 1.0, 0.0);
        }
        self.uses.count(use_level(record.uses), 1.0, 0.0);
        self.count_gap(record, 1.0, 0.0);
        self.count_size(record, 1.0, 0.0);
    }

    /// Adjusts the factors when it is time for it. To be called once at each request.
    pub(super) fn tick(&mut self, now: u32) {
        if !now.is_multiple_of(FIT_REQUESTS) {
            return;
        }
        self.uses.fit(0.0);
        self.gap.fit(0.0);
        self.novelty.fit(NOVELTY_DOUBT_USES);
        if self.objective == Objective::Bytes {
            self.company.fit(COMPANY_DOUBT_USES);
        }
        self.size.iter_mut().for_each(|size| size.fit(0.0));
        self.age.fit(0.0);
        let mut before: Option<f64> = None;
        for (number, level) in self.age.levels.iter_mut().enumerate() {
            if let Some(before) = before
                && level.used + level.expected < KNOWN_USES
            {
                // As if rates went on falling in the way that they began with.
                level.value = before * (age_from(number - 1) + BEGIN_AGE) / (age_from(number) + BEGIN_AGE);
            }
            before = Some(level.value);
        }
        for class_age in &mut self.class_age {
            class_age.fit(0.0);
        }
        self.outdated |= now.is_multiple_of(LOOK_REQUESTS);
    }

    /// To be called before [`Self::worth`]: works out the indices and the factors of size where that is due. While nothing has
    /// to leave, nobody asks what anything is worth, and hits need not pay for it.
    pub(super) fn make_ready(&mut self) {
        if std::mem::take(&mut self.outdated) {
            for (sizes, size) in self.sizes.iter_mut().zip(&self.size) {
                *sizes = size.along_a_line();
            }
            self.look_ahead();
        }
    }

    /// The factors other than that of age.
    fn others(&self, record: &Record) -> f64 {
        let size = self.size.get(size_class(record)).map_or(1.0, |size| size.value(usize::from(record.size)));
        size * self.habits(record)
    }

    /// The factors other than those of age and size.
    fn habits(&self, record: &Record) -> f64 {
        let uses = self.uses.value(use_level(record.uses));
        if used_once(record) {
            let (novelty, company) = (record.novelty(), record.company());
            uses * self.novelty.value(usize::from(novelty)) * self.company.value(usize::from(company))
        } else {
            uses * self.gap.value(usize::from(record.gap))
        }
    }

    fn count_gap(&mut self, record: &Record, used: f64, expected: f64) {
        if used_once(record) {
            self.novelty.count(usize::from(record.novelty()), used, expected);
            self.company.count(usize::from(record.company()), used, expected);
        } else {
            self.gap.count(usize::from(record.gap), used, expected);
        }
    }

    fn count_size(&mut self, record: &Record, used: f64, expected: f64) {
        if let Some(size) = self.size.get_mut(size_class(record)) {
            size.count(usize::from(record.size), used, expected);
        }
    }

    /// Works out the indices: for each age the best average of the rate from there to the end of any level above.
    fn look_ahead(&mut self) {
        let once_ahead = match self.objective {
            Objective::Requests => AGES,
            Objective::Bytes => ONCE_AHEAD,
        };
        for (number, (class_age, indices)) in self.class_age.iter().zip(&mut self.index).enumerate() {
            let ahead = if number == ONCE { once_ahead } else { AGES };
            for (from, index) in indices.iter_mut().enumerate() {
                let (mut uses, mut best) = (0.0, 0.0_f64);
                for (level, here) in self.age.levels.iter().enumerate().skip(from).take(ahead) {
                    uses += here.value * class_age.value(level) * (age_from(level + 1) - age_from(level));
                    best = best.max(uses / (age_from(level + 1) - age_from(from)));
                }
                *index = best;
            }
        }
    }
}

/// The class of what was used once, which has no gap.
const ONCE: usize = 0;

/// The class of a record, by its gap, which decides how its rate goes with its age: what came back after a short gap is
/// overdue long before what came back after a long one.
const fn class(record: &Record) -> usize {
    if used_once(record) { ONCE } else { (record.gap as usize).div_ceil(6) }
}

/// Which of the two factors of size is a record's.
const fn size_class(record: &Record) -> usize {
    !used_once(record) as usize
}

const fn used_once(record: &Record) -> bool {
    record.uses < 2
}

/// The level of an age: 0, 1, and then two for each doubling.
const fn age_level(age: u32) -> usize {
    if age < 2 {
        return age as usize;
    }
    let doublings = age.ilog2();
    (doublings as usize) << 1 | (age >> (doublings - 1) & 1) as usize
}

/// The age at which a level begins.
fn age_from(level: usize) -> f64 {
    if level < 2 {
        return level as f64;
    }
    let half = (1_u64 << (level >> 1)) >> 1;
    ((2 + (level as u64 & 1)) * half) as f64
}

/// The level of a number of uses: alone as long as they are few, then together.
const fn use_level(uses: u16) -> usize {
    match uses {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4..=5 => 3,
        6..=7 => 4,
        8..=11 => 5,
        12..=15 => 6,
        16..=23 => 7,
        24..=31 => 8,
        32..=63 => 9,
        64..=127 => 10,
        128..=511 => 11,
        512.. => 12,
    }
}

/// What the uses of a level are like.
fn typical_uses(level: usize) -> f64 {
    const TYPICAL: [f64; USES] = [1.0, 2.0, 3.0, 4.5, 6.5, 9.5, 13.5, 19.0, 27.0, 45.0, 90.0, 250.0, 800.0];
    TYPICAL.get(level).copied().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_age_are_half_octaves() {
        let from: Vec<f64> = (0..9).map(age_from).collect();
        assert_eq!(from, [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0]);
        assert_eq!(age_from(AGES), f64::from(u32::MAX) + 1.0);
        for age in (0..100_000).chain([u32::MAX - 1, u32::MAX]) {
            let level = age_level(age);
            assert!(level < AGES && age_from(level) <= f64::from(age) && f64::from(age) < age_from(level + 1), "{age}");
        }
        assert!((0..=u16::MAX).all(|uses| use_level(uses) < USES));
    }

    /// Keys in two halves: those with one use are never asked for again, those with two at every eighth request.
    #[test]
    fn rates_are_learnt() {
        let mut model = Model::new(Objective::Requests);
        let idle = Record::new(0, 1000, 0, 0);
        let record = |last: u32| Record { last, counted: last, uses: 2, ..idle };
        let mut waiting = idle;
        for now in 1..20_000 {
            model.tick(now);
            model.waited(&mut waiting, now);
            if now % 8 == 0 {
                model.waited(&mut record(now - 8), now);
                model.used(&record(now - 8), now);
            }
        }
        // At age 7 it will be used by the next request, and before that one of the next eight uses it.
        model.make_ready();
        let worth = |age: u32| model.worth(&record(20_000 - age), 20_000);
        assert!(worth(6) > 4.0 * worth(40), "{} {}", worth(6), worth(40));
        assert!(worth(0) > 0.08 && worth(6) < 2.0, "{} {}", worth(0), worth(6));
        assert!(model.worth(&waiting, 20_000) < 1e-4);
    }

    /// Of large keys those that were used twice come back and those that were used once never do; of small ones it is the
    /// other way round.
    #[test]
    fn the_size_of_what_was_used_once_speaks_for_itself() {
        let mut model = Model::new(Objective::Requests);
        let record =
            |uses: u16, size: u8| Record { uses, size, gap: u8::from(uses > 1) * 6, ..Record::new(0, 1, 0, 0) };
        for now in (64..40_000).step_by(64) {
            (now - 63..=now).for_each(|now| model.tick(now));
            for (uses, size, comes_back) in [(1, 20, false), (1, 10, true), (2, 20, true), (2, 10, false)] {
                let mut record = Record { last: now - 64, counted: now - 64, ..record(uses, size) };
                model.waited(&mut record, now);
                if comes_back {
                    model.used(&record, now);
                }
            }
        }
        model.make_ready();
        let worth = |uses: u16, size: u8| model.worth(&record(uses, size), 0);
        assert!(worth(1, 10) > 6.0 * worth(1, 20), "{} {}", worth(1, 10), worth(1, 20));
        assert!(worth(2, 20) > 6.0 * worth(2, 10), "{} {}", worth(2, 20), worth(2, 10));
    }

    /// What comes in good company comes back, and what comes in bad company never does.
    #[test]
    fn company_speaks_with_the_objective_bytes_only() {
        for (objective, at_least) in [(Objective::Requests, 1.0), (Objective::Bytes, 3.0)] {
            let mut model = Model::new(objective);
            for now in (64..40_000).step_by(64) {
                (now - 63..=now).for_each(|now| model.tick(now));
                for company in [3, 10] {
                    let mut record = Record::new(now - 64, 1000, 4, company);
                    model.waited(&mut record, now);
                    if company == 10 {
                        model.used(&record, now);
                    }
                }
            }
            model.make_ready();
            let worth = |company: u8| model.worth(&Record::new(0, 1000, 4, company), 10);
            let ratio = worth(10) / worth(3);
            assert!(ratio >= at_least && (at_least > 1.0 || ratio == 1.0), "{objective:?}: {ratio}");
        }
    }

    /// What the model takes for a key's rate, over all of its keys and time, is what was used.
    #[test]
    fn expected_uses_come_to_the_uses() {
        let mut model = Model::new(Objective::Requests);
        let (mut used, mut expected) = (0.0, 0.0);
        let mut records: Vec<Record> = (0..40).map(|_| Record::new(0, 1000, 0, 0)).collect();
        for now in 1..60_000_u32 {
            model.tick(now);
            // Key k is used at every (k + 2)th request that is left to it.
            let Some(key) = (0..40_u32).find(|key| now.is_multiple_of(key + 2)) else { continue };
            let record = &mut records[key as usize];
            if now > 40_000 {
                let before: f64 = model.age.levels.iter().map(|level| level.expected).sum();
                model.waited(record, now);
                expected += model.age.levels.iter().map(|level| level.expected).sum::<f64>() - before;
                used += 1.0;
            }
            model.waited(record, now);
            model.used(record, now);
            *record = record.used(now, 1000);
        }
        assert!((expected / used - 1.0_f64).abs() < 0.2, "{expected} {used}");
    }

    #[test]
    fn the_index_looks_ahead_only_where_that_pays() {
        let mut model = Model::new(Objective::Requests);
        assert!(model.index[0].windows(2).all(|pair| pair[0] >= pair[1]), "rates that fall need no looking ahead");
        for level in &mut model.age.levels {
            level.value = 1e-9;
        }
        // A loop: everything comes back at ages from 1024 to 1535.
        model.age.levels[20].value = 0.01;
        model.look_ahead();
        let (index, loop_uses) = (model.index[0], 0.01 * 512.0);
        assert!((index[20] - 0.01).abs() < 1e-6);
        assert!((index[18] - loop_uses / (1536.0 - 512.0)).abs() < 1e-6);
        assert!(index[21] < 1e-8 && index[0] < index[18]);
        // With the objective bytes only as far as the next level for what was used once.
        let mut bytes = Model { age: model.age, ..Model::new(Objective::Bytes) };
        bytes.look_ahead();
        assert!(bytes.index[ONCE][18] < 1e-8 && (bytes.index[ONCE][20] - 0.01).abs() < 1e-6);
        assert!((bytes.index[ONCE][19] - loop_uses / (1536.0 - 768.0)).abs() < 1e-6);
        assert_eq!(bytes.index[ONCE + 1], model.index[ONCE + 1]);
    }

    #[test]
    fn it_stays_finite_whatever_it_sees() {
        let mut model = Model::new(Objective::Requests);
        let mut now = u32::MAX - 5_000_000;
        for round in 0..2_000_u32 {
            now = now.wrapping_add(FIT_REQUESTS * (round % 30));
            let mut old = Record { last: 7, counted: now.wrapping_sub(round), uses: round as u16, gap: 25, size: 64 };
            model.waited(&mut old, now);
            model.used(&Record { gap: 255, size: 255, ..old }, now);
            model.tick(now & !(FIT_REQUESTS - 1));
            let worth = model.worth(&old, now);
            assert!(worth.is_finite() && worth >= 0.0, "{worth}");
        }
    }
}
