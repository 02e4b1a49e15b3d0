//! Time. The only module that asks the operating system what time it is.
//!
//! Decisions use [`Instant`], which counts suspended time (`CLOCK_BOOTTIME`). Wall-clock time is for people and for the
//! hybrid logical clock; it decides nothing, but a *jump* of it against the boot clock is how a paused virtual machine shows.

use std::fmt;
use std::ops::Add;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A moment on `CLOCK_BOOTTIME`, in nanoseconds since boot. Suspended time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// A moment `nanos` nanoseconds after boot: for tests, simulators and arithmetic. Use [`now`] for the present.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self` minus `by`, not before boot.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(by)))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos(by)))
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The present on the boot clock.
#[must_use]
pub fn now() -> Instant {
    let t = clock_gettime(ClockId::Boottime);
    Instant(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// Wall-clock time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

impl Wall {
    /// Time since the Unix epoch.
    #[must_use]
    pub const fn since_1970(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// RFC 3339 in UTC with milliseconds, for people: `2026-11-20T12:00:00.123Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        // humantime panics past the year 9999; a wild wall clock must not.
        let capped = self.0.min(253_402_300_799_999);
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(capped)).to_string()
    }
}

/// The present on the wall clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this module owns the clock")]
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Both clocks read together, so that one can be held against the other.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The boot clock.
    pub now: Instant,
    /// Wall clock minus boot clock, in milliseconds. It is constant but for steps and slewing of the wall clock, and for a
    /// virtual machine that was paused with its boot clock stopped.
    pub offset_ms: i64,
}

/// How far the boot clock may move while the wall clock is read; more means that this thread was put aside in between.
const TOGETHER: Duration = Duration::from_millis(10);
/// Tries to read them together. On a machine that is busier than that, the last try counts.
const READING_TRIES: usize = 4;

/// Reads both clocks, as one moment: a thread that is put aside between the two must not look like a jump.
#[must_use]
pub fn reading() -> Reading {
    let (mut before, mut at, mut after) = (now(), wall(), now());
    for _ in 1..READING_TRIES {
        if after.since(before) <= TOGETHER {
            break;
        }
        (before, at, after) = (now(), wall(), now());
    }
    let wall_ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    let boot_ms = i64::try_from(before.0 / 1_000_000).unwrap_or(i64::MAX);
    Reading { now: after, offset_ms: wall_ms.saturating_sub(boot_ms) }
}

/// The boot clock beside the oscillator that it is made from.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// The boot clock, which slewing (NTP) makes faster or slower, as it does the wall clock.
    pub boot: Instant,
    /// The oscillator (`CLOCK_MONOTONIC_RAW`), which nothing touches; it stops in suspend.
    pub raw: Duration,
    /// As in [`Reading`].
    pub offset_ms: i64,
}

/// How far the boot clock may move while the oscillator is read.
const AT_ONCE: Duration = Duration::from_micros(50);

/// Reads them together, as far as this machine lets us.
#[must_use]
pub fn rates() -> Rates {
    let offset_ms = reading().offset_ms;
    let mut best: Option<(Duration, Rates)> = None;
    for _ in 0..READING_TRIES {
        let before = now();
        let t = clock_gettime(ClockId::MonotonicRaw);
        let apart = now().since(before);
        let nanos = u32::try_from(t.tv_nsec).unwrap_or(0);
        let raw = Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), nanos);
        if best.is_none_or(|(least, _)| apart < least) {
            best = Some((apart, Rates { boot: before + apart / 2, raw, offset_ms }));
        }
        if apart <= AT_ONCE {
            break;
        }
    }
    best.map_or(Rates { boot: now(), raw: Duration::ZERO, offset_ms }, |(_, rates)| rates)
}

/// A hybrid logical timestamp: wall milliseconds and a counter for what shares them.
///
/// Its text form sorts, as text, in causal order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc {
    wall: Wall,
    counter: u32,
}

impl Hlc {
    /// Parses the text form. `None` for anything else: records come from etcd, where others may write too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, counter) = text.rsplit_once('+')?;
        let at = humantime::parse_rfc3339(time).ok()?.duration_since(UNIX_EPOCH).ok()?;
        let wall = Wall(u64::try_from(at.as_millis()).ok()?);
        Some(Self { wall, counter: u32::from_str_radix(counter, 16).ok()? })
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}", self.wall.rfc3339(), self.counter)
    }
}

/// How far ahead of our wall clock a foreign timestamp may be and still be taken over. A record with a date in the year
/// 9000 would otherwise drag every later timestamp of the cluster there.
const HLC_MAX_AHEAD_MS: u64 = 60 * 60 * 1000;

/// The daemon's hybrid logical clock.
#[derive(Debug, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// The next timestamp: later than every one given or observed before.
    pub fn tick(&mut self, wall: Wall) -> Hlc {
        self.last = if wall > self.last.wall {
            Hlc { wall, counter: 0 }
        } else {
            Hlc { wall: self.last.wall, counter: self.last.counter.saturating_add(1) }
        };
        self.last
    }

    /// Takes note of a timestamp from elsewhere; one implausibly far ahead is ignored.
    pub fn observe(&mut self, seen: Hlc, wall: Wall) {
        if seen > self.last && seen.wall.0 <= wall.0.saturating_add(HLC_MAX_AHEAD_MS) {
            self.last = seen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hlc_text_sorts_in_causal_order() {
        let mut clock = HlcClock::default();
        let stamps = [5, 5, 4, 9, 9].map(|ms| clock.tick(Wall(1_700_000_000_000 + ms)).to_string());
        assert!(stamps.is_sorted() && stamps.windows(2).all(|w| w[0] != w[1]), "{stamps:?}");
    }

    #[test]
    fn the_oscillator_and_the_boot_clock_run_alike_to_within_a_tenth() {
        let before = rates();
        while now().since(before.boot) < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let after = rates();
        let (boot, raw) = (after.boot.since(before.boot), after.raw.saturating_sub(before.raw));
        assert!(boot.abs_diff(raw) < boot / 10, "{boot:?} {raw:?}");
    }

    #[test]
    fn an_observed_timestamp_is_followed_by_later_ones_even_when_our_wall_clock_is_behind() {
        let (mut ahead, mut behind) = (HlcClock::default(), HlcClock::default());
        let seen = ahead.tick(Wall(10_000));
        behind.observe(Hlc::parse(&seen.to_string()).expect("own text form parses"), Wall(9_000));
        assert!(behind.tick(Wall(9_001)) > seen);
    }

    #[test]
    fn a_timestamp_far_in_the_future_is_not_taken_over() {
        let mut clock = HlcClock::default();
        clock.observe(Hlc { wall: Wall(u64::MAX), counter: 0 }, Wall(1_000));
        assert_eq!(clock.tick(Wall(1_001)).wall, Wall(1_001));
    }

    #[test]
    fn text_that_is_no_timestamp_is_refused() {
        for text in ["", "+", "2026-01-01T00:00:00.000Z", "x+0000", "2026-01-01T00:00:00.000Z+zz"] {
            assert_eq!(Hlc::parse(text), None, "{text}");
        }
    }
}
