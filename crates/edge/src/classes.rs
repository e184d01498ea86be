//! Which part of the memory tier a zone's entries go to: zones may name a policy of their own.
//!
//! There is one class for each choice that was ever named, so that there are few, however often zones are changed. What is
//! stored stays in the class that it went to until it is replaced. The mutex covers the classes that were made, the lock the
//! zones of the present configuration.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use api::ZoneDoc;
use api::names::ZoneName;
use shelf::{Class, PolicyChoice};

/// See the head of the file.
pub(crate) struct Classes {
    /// The edge's own choice: that of the default class.
    default: PolicyChoice,
    made: Mutex<HashMap<PolicyChoice, Class>>,
    zones: RwLock<HashMap<ZoneName, (PolicyChoice, Class)>>,
}

impl Classes {
    pub(crate) fn new(default: PolicyChoice) -> Self {
        Self { default, made: Mutex::default(), zones: RwLock::default() }
    }

    /// Takes up a configuration; `make` makes a class.
    pub(crate) fn configure(&self, zones: &[ZoneDoc], make: impl Fn(PolicyChoice) -> Class) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let class = |zone: &ZoneDoc| {
            let choice = self.choice(zone)?;
            let class = *made.entry(choice).or_insert_with(|| make(choice));
            Some((zone.name.clone(), (choice, class)))
        };
        let zones = zones.iter().filter_map(class).collect();
        *self.zones.write().unwrap_or_else(PoisonError::into_inner) = zones;
    }

    /// The class of a zone's entries.
    pub(crate) fn of(&self, zone: &ZoneName) -> Class {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        zones.get(zone).map_or(Class::default(), |(_, class)| *class)
    }

    /// The choices of zones that are not the edge's own, with the names of those zones.
    pub(crate) fn named(&self) -> Vec<(PolicyChoice, Vec<ZoneName>)> {
        let zones = self.zones.read().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<(PolicyChoice, Vec<ZoneName>)> = Vec::new();
        for (zone, (choice, _)) in zones.iter() {
            match named.iter_mut().find(|(other, _)| other == choice) {
                Some((_, names)) => names.push(zone.clone()),
                None => named.push((*choice, vec![zone.clone()])),
            }
        }
        named.iter_mut().for_each(|(_, names)| names.sort());
        named.sort_by(|(_, one), (_, other)| one.cmp(other));
        named
    }

    /// What a zone says, where that is not what the edge says.
    fn choice(&self, zone: &ZoneDoc) -> Option<PolicyChoice> {
        let policy = zone.eviction.map_or(Ok(self.default.policy), |named| named.as_str().parse()).ok()?;
        let objective = zone.objective.map_or(Ok(self.default.objective), |named| named.as_str().parse()).ok()?;
        Some(PolicyChoice { policy, objective }).filter(|choice| *choice != self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Eviction, Objective};
    use shelf::Memory;

    #[test]
    fn zones_with_the_same_choice_share_a_class_and_changes_make_no_more() {
        let memory = Memory::<u32, u32>::new(1 << 20);
        let classes = Classes::new(PolicyChoice::default());
        let zone = |name: &str, eviction, objective| ZoneDoc {
            eviction,
            objective,
            ..ZoneDoc::new(name.parse().expect("name"))
        };
        let name = |text: &str| text.parse::<ZoneName>().expect("name");
        let lru = Some(Eviction::Lru);
        for round in 0..40 {
            let of_b = if round % 2 == 0 { lru } else { Some(Eviction::Auto) };
            let zones = [
                zone("a", lru, None),
                zone("b", of_b, None),
                zone("c", None, Some(Objective::Bytes)),
                zone("d", None, None),
            ];
            classes.configure(&zones, |choice| memory.class_for(choice));
            let [a, b, c, d] = ["a", "b", "c", "d"].map(|zone| classes.of(&name(zone)));
            assert_eq!((a == b, b == d), (round % 2 == 0, round % 2 == 1));
            assert!(a != c && c != d && d == Class::default());
            assert_eq!(classes.of(&name("unknown")), Class::default());
        }
        let named = classes.named().into_iter().map(|(choice, zones)| (choice.to_string(), zones)).collect::<Vec<_>>();
        assert_eq!(named, [("lru".to_owned(), vec![name("a")]), ("auto:bytes".to_owned(), vec![name("c")])]);
        assert_eq!(classes.made.lock().expect("classes").len(), 2);
    }
}
