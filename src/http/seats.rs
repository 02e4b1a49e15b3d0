//! How many connections one listener holds, and who leaves when the house is full.
//!
//! A connection waits for its client most of the time. So that many idle or slow clients cannot shut the probes out, a new
//! connection that finds no seat takes that of whoever has kept us waiting longest. Questions to etcd hold at most a quarter
//! of the seats, however silent etcd is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::clock;

/// How long a newcomer waits before it looks again for somebody to send away.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Whoever was served within this time is still being written to.
const SETTLED: Duration = Duration::from_millis(100);

/// What the holder of a seat is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Waiting for the client: idle, or its request is incomplete.
    Waiting,
    /// Working on an answer.
    Serving,
    /// A long poll: it may be ended early, with an answer.
    Polling,
    /// Waiting for etcd on behalf of the client: likewise.
    Asking,
}

/// The seats of one listener.
#[derive(Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    count: u32,
    taken: Mutex<HashMap<u64, Arc<Place>>>,
    next: AtomicU64,
    /// Connections that were accepted and wait for a seat.
    queueing: AtomicUsize,
    /// Those that wait for etcd.
    asking: AtomicUsize,
}

#[derive(Debug)]
struct Place {
    doing: AtomicU8,
    since: AtomicU64,
    /// The client sends no more: it has gone, or only waits for its answer.
    quiet: AtomicBool,
    /// Ends the connection, unless its request has come meanwhile.
    leave: Notify,
    /// It ends whatever it does.
    must: AtomicBool,
    /// Ends a long poll, with an answer.
    hurry: Notify,
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub struct Seat {
    id: u64,
    place: Arc<Place>,
    seats: Arc<Seats>,
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// That many seats, at least one.
    pub fn new(count: usize) -> Arc<Self> {
        let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(1, 1 << 20);
        Arc::new(Self {
            free: Arc::new(Semaphore::new(count as usize)),
            count,
            taken: Mutex::default(),
            next: AtomicU64::new(0),
            queueing: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
        })
    }

    /// A seat, as soon as there is one.
    pub async fn take(self: &Arc<Self>) -> Seat {
        let waiting = Queueing::new(&self.queueing);
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                break permit;
            }
            self.send_someone_away();
            let freed = timeout(LOOK_AGAIN, Arc::clone(&self.free).acquire_owned()).await;
            if let Ok(Ok(permit)) = freed {
                break permit;
            }
        };
        drop(waiting);
        let place = Arc::new(Place {
            doing: AtomicU8::new(Doing::Waiting as u8),
            since: AtomicU64::new(clock::now().as_nanos()),
            quiet: AtomicBool::new(false),
            leave: Notify::new(),
            must: AtomicBool::new(false),
            hurry: Notify::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.locked().insert(id, Arc::clone(&place));
        Seat { id, place, seats: Arc::clone(self), _permit: permit }
    }

    /// Whether somebody waits for a seat: then every answer also ends its connection.
    pub fn crowded(&self) -> bool {
        self.queueing.load(Ordering::Relaxed) > 0
    }

    /// Whether as many wait for etcd as may.
    pub fn no_more_questions(&self) -> bool {
        self.asking.load(Ordering::Relaxed) >= self.most_asking()
    }

    fn most_asking(&self) -> usize {
        (self.count as usize / 4).max(1)
    }

    /// Frees the seat of whoever has kept us waiting longest; failing that, ends the oldest poll or question, of those first
    /// whose clients may have gone. Whoever came just now goes last: its request may be on the way.
    pub fn send_someone_away(&self) {
        let taken = self.locked();
        let now = clock::now();
        let oldest = |all: &[Doing], fits: &dyn Fn(&Place) -> bool| {
            let one = |p: &&Arc<Place>| all.iter().any(|d| *d as u8 == p.doing.load(Ordering::Relaxed)) && fits(p);
            taken.values().filter(one).min_by_key(|p| p.since.load(Ordering::Relaxed))
        };
        let settled = |p: &Place| now.since(clock::Instant::from_nanos(p.since.load(Ordering::Relaxed))) > SETTLED;
        let quiet = |p: &Place| p.quiet.load(Ordering::Relaxed);
        let any = |_: &Place| true;
        if let Some(place) = oldest(&[Doing::Waiting], &settled) {
            place.leave.notify_one();
        } else if let Some(place) = oldest(&[Doing::Polling, Doing::Asking], &quiet)
            .or_else(|| oldest(&[Doing::Polling], &any))
            .or_else(|| oldest(&[Doing::Asking], &any))
        {
            place.hurry.notify_one();
        } else if let Some(place) = oldest(&[Doing::Waiting], &any) {
            place.leave.notify_one();
        }
    }

    /// Ends what waits for clients at once, polls with an answer, and everything else after `limit`.
    pub async fn empty(&self, limit: Duration) {
        let everyone_left = async {
            while timeout(LOOK_AGAIN, self.free.acquire_many(self.count)).await.is_err() {
                self.send_all_away();
            }
        };
        if timeout(limit, everyone_left).await.is_err() {
            for place in self.locked().values() {
                place.must.store(true, Ordering::Relaxed);
                place.leave.notify_one();
            }
        }
    }

    fn send_all_away(&self) {
        let now = clock::now();
        for place in self.locked().values() {
            let since = now.since(clock::Instant::from_nanos(place.since.load(Ordering::Relaxed)));
            if place.doing.load(Ordering::Relaxed) == Doing::Waiting as u8 && since > SETTLED {
                place.leave.notify_one();
            }
            place.hurry.notify_one();
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        // Each entry stands for itself: a panic elsewhere cannot have left the map half written.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a newcomer for as long as it waits, also when its wait is cut short.
struct Queueing<'a>(&'a AtomicUsize);

impl<'a> Queueing<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Queueing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seat {
    /// Says what the connection is doing from now on.
    pub fn now(&self, doing: Doing) {
        self.place.since.store(clock::now().as_nanos(), Ordering::Relaxed);
        self.place.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// Ready when the connection must end. Poll it after the connection: a request that has arrived keeps the seat, however
    /// long we took to read it.
    pub async fn asked_to_leave(&self) {
        loop {
            self.place.leave.notified().await;
            if !self.working() || self.place.must.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Ready when a long poll must answer.
    pub async fn asked_to_hurry(&self) {
        self.place.hurry.notified().await;
    }

    /// Whether somebody waits for a seat.
    pub fn crowded(&self) -> bool {
        self.seats.crowded()
    }

    /// Whether we work for the client, rather than wait for it.
    pub fn working(&self) -> bool {
        self.place.doing.load(Ordering::Relaxed) != Doing::Waiting as u8
    }

    /// The client sends no more.
    pub fn falls_quiet(&self) {
        self.place.quiet.store(true, Ordering::Relaxed);
    }

    /// Leave to wait for etcd until the question is dropped; none where a quarter of the seats do.
    pub fn ask(&self) -> Option<Question<'_>> {
        let most = self.seats.most_asking();
        let one_more = |asking| (asking < most).then_some(asking + 1);
        self.seats.asking.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        self.now(Doing::Asking);
        Some(Question(self))
    }
}

/// A connection that waits for etcd.
#[derive(Debug)]
pub struct Question<'a>(&'a Seat);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.seats.asking.fetch_sub(1, Ordering::Relaxed);
        self.0.now(Doing::Serving);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.locked().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newcomer_takes_the_seat_of_whoever_kept_us_waiting_longest() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().await, seats.take().await);
        first.now(Doing::Serving);
        let newcomer = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take().await }
        });
        second.asked_to_leave().await;
        assert!(seats.crowded());
        drop(second);
        newcomer.await.expect("the newcomer gets the seat");
        assert!(!seats.crowded());
    }

    #[tokio::test]
    async fn questions_hold_at_most_a_quarter_of_the_seats_and_give_way() {
        let seats = Seats::new(8);
        let mut taken = Vec::new();
        for _ in 0..8 {
            taken.push(seats.take().await);
        }
        let first = taken[0].ask();
        assert!(!seats.no_more_questions());
        let second = taken[1].ask();
        assert!(first.is_some() && second.is_some() && taken[2].ask().is_none() && seats.no_more_questions());
        drop(first);
        let third = taken[2].ask();
        assert!(third.is_some());
        taken.iter().filter(|seat| seat.id != 1 && seat.id != 2).for_each(|seat| seat.now(Doing::Serving));
        // The younger one, whose client may have gone, goes first.
        taken[2].falls_quiet();
        seats.send_someone_away();
        taken[2].asked_to_hurry().await;
        drop(third);
        seats.send_someone_away();
        taken[1].asked_to_hurry().await;
    }

    #[tokio::test]
    async fn whoever_works_by_the_time_it_is_asked_to_leave_stays_but_not_at_the_end() {
        let seats = Seats::new(1);
        let seat = seats.take().await;
        seats.send_someone_away();
        // Its request had arrived, and was read before the connection heard that it must end.
        seat.now(Doing::Serving);
        assert!(timeout(LOOK_AGAIN, seat.asked_to_leave()).await.is_err());
        seat.now(Doing::Waiting);
        seats.send_someone_away();
        seat.asked_to_leave().await;
    }

    #[tokio::test]
    async fn the_house_is_empty_after_the_limit() {
        let seats = Seats::new(1);
        let seat = seats.take().await;
        seat.now(Doing::Serving);
        seats.empty(Duration::from_millis(10)).await;
        seat.asked_to_leave().await;
    }
}
