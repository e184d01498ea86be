//! One fetch for any number of simultaneous requests for the same thing.
//!
//! A flight is a task of its own: a client that goes away does not stop it, and there is no leader that could die. The
//! mutex covers only the map; nothing is awaited under it. A flight removes itself before it announces its result, so
//! who comes later starts from the store.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Requests that may wait for one flight.
pub(crate) const MAX_WAITERS: usize = 20_000;

/// Flights by what they fetch.
///
/// `B` is what says when one began: an event number, for example.
pub(crate) struct Flights<K, V, B = u64> {
    map: Mutex<HashMap<K, Flight<V, B>>>,
}

struct Flight<V, B> {
    began: B,
    announce: Arc<watch::Sender<Option<V>>>,
}

/// A seat in a flight.
pub(crate) struct Seat<V> {
    landed: watch::Receiver<Option<V>>,
    /// Whether somebody else had started it.
    pub(crate) collapsed: bool,
}

impl<V: Clone> Seat<V> {
    /// A seat in a flight that has landed already, with this result.
    pub(crate) fn landed(value: V) -> Self {
        Self { landed: watch::channel(Some(value)).1, collapsed: false }
    }

    /// The result; nothing if the flight died without one (its task panicked).
    pub(crate) async fn result(mut self) -> Option<V> {
        match self.landed.wait_for(Option::is_some).await {
            Ok(value) => value.clone(),
            Err(_) => None,
        }
    }
}

impl<K, V, B> Flights<K, V, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    B: Copy + Send + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { map: Mutex::new(HashMap::new()) })
    }

    /// A seat in the flight for `key`, if one is under way whose beginning is `good_enough`; else in a new one, which
    /// begins at event `now` and is what `start` makes. Nothing when the flight has [`MAX_WAITERS`].
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        key: &K,
        now: B,
        good_enough: impl FnOnce(B) -> bool,
        start: impl FnOnce() -> F,
    ) -> Option<Seat<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut map = self.lock();
        if let Some(flight) = map.get(key)
            && good_enough(flight.began)
        {
            let full = flight.announce.receiver_count() >= MAX_WAITERS;
            return (!full).then(|| Seat { landed: flight.announce.subscribe(), collapsed: true });
        }
        let announce = Arc::new(watch::Sender::new(None));
        map.insert(key.clone(), Flight { began: now, announce: Arc::clone(&announce) });
        drop(map);
        let seat = Seat { landed: announce.subscribe(), collapsed: false };
        let landing = Landing { flights: Arc::clone(self), key: key.clone(), announce };
        let fetch = start();
        tokio::spawn(async move {
            let value = fetch.await;
            landing.land(value);
        });
        Some(seat)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<V, B>>> {
        // The map is whole after every statement, so a panic elsewhere left nothing half done.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, key: &K, announce: &Arc<watch::Sender<Option<V>>>) {
        let mut map = self.lock();
        // A newer flight may have taken the place.
        if map.get(key).is_some_and(|flight| Arc::ptr_eq(&flight.announce, announce)) {
            map.remove(key);
        }
    }
}

/// Takes a flight off the map however its task ends: with a value, or by a panic, which its passengers then see.
struct Landing<K, V, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    B: Copy + Send + 'static,
{
    flights: Arc<Flights<K, V, B>>,
    key: K,
    announce: Arc<watch::Sender<Option<V>>>,
}

impl<K, V, B> Landing<K, V, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    B: Copy + Send + 'static,
{
    fn land(self, value: V) {
        self.flights.remove(&self.key, &self.announce);
        self.announce.send_replace(Some(value));
    }
}

impl<K, V, B> Drop for Landing<K, V, B>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    B: Copy + Send + 'static,
{
    fn drop(&mut self) {
        self.flights.remove(&self.key, &self.announce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn all_who_wait_share_one_fetch() {
        let flights: Arc<Flights<u8, usize>> = Flights::new();
        let (fetches, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let join = |now: u64, good: fn(u64) -> bool| {
            let (fetches, open) = (Arc::clone(&fetches), Arc::clone(&open));
            flights.join(&1, now, good, move || async move {
                let number = fetches.fetch_add(1, Ordering::SeqCst);
                open.notified().await;
                number
            })
        };
        let seats: Vec<_> = (0..100).map(|_| join(5, |_| true).expect("room")).collect();
        assert_eq!(seats.iter().filter(|seat| !seat.collapsed).count(), 1);
        // One who needs a later beginning gets a flight of its own, and those after it share that one.
        let late = join(6, |began| began >= 6).expect("room");
        let later = join(6, |began| began >= 6).expect("room");
        assert!(!late.collapsed && later.collapsed);
        open.notify_waiters();
        while fetches.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        open.notify_one();
        open.notify_one();
        for seat in seats {
            assert_eq!(seat.result().await, Some(0));
        }
        assert_eq!((late.result().await, later.result().await), (Some(1), Some(1)));
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_flight_takes_so_many_and_no_more() {
        let flights: Arc<Flights<u8, ()>> = Flights::new();
        let seats: Vec<_> = (0..MAX_WAITERS)
            .map(|_| flights.join(&1, 0, |_| true, std::future::pending::<()>).expect("room"))
            .collect();
        assert!(flights.join(&1, 0, |_| true, std::future::pending::<()>).is_none());
        drop(seats);
        assert!(flights.join(&1, 0, |_| true, std::future::pending::<()>).is_some());
    }

    #[tokio::test]
    async fn a_flight_that_dies_tells_its_passengers() {
        let flights: Arc<Flights<u8, ()>> = Flights::new();
        let seat = flights.join(&1, 0, |_| true, || async { panic!("on purpose") }).expect("room");
        assert_eq!(seat.result().await, None);
        assert!(flights.lock().is_empty());
    }
}
