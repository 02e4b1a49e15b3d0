//! A line that comes again and again is written a few times, then counted, and summed up once a minute: whoever can make the
//! daemon log the same thing for ever cannot fill a disk with it. The audit and the metrics have all of it.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::clock::{self, Instant};

/// Counts begin anew after so long, and what was kept back is summed up.
const WINDOW: Duration = Duration::from_mins(1);
/// So many of the same line are written in that time,
const SHOWN: u32 = 5;
/// and so many from one place in the program, whatever their words.
const SHOWN_OF_PLACE: u32 = 60;
/// Lines that are told apart. What comes beyond is counted for its place.
const LINES: usize = 512;
/// The most that a sum quotes of a line.
const QUOTED: usize = 400;
/// Words that differ from line to line of the same thing.
const VARYING: [&str; 5] = ["hlc", "lease", "at_least", "remembered", "seen"];
/// A line with this field is a change of role. All are written: this log is the audit where no file is named for that, and the
/// core's pauses bound them.
const OF_A_TRANSITION: &str = "new_generation";

/// Keeps repeated lines back. Those below INFO are for whoever looks closely, and stay.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<Counts>,
    hasher: RandomState,
    /// Wakes the thread that sums up. It is started when there is something to sum up.
    teller: OnceLock<Option<SyncSender<()>>>,
}

/// What was written since the window began.
#[derive(Debug, Default)]
struct Counts {
    began: Instant,
    places: HashMap<Identifier, u32>,
    lines: HashMap<u64, Line>,
    /// Of windows that are over.
    untold: Vec<Line>,
}

/// One line, and how often it was kept back.
#[derive(Clone, Debug)]
struct Line {
    count: u32,
    kept_back: u32,
    level: Level,
    text: String,
}

impl Counts {
    /// Whether to write a line that comes now. `text` is asked for when the first of its kind is kept back.
    fn take(
        &mut self,
        now: Instant,
        place: &Identifier,
        key: u64,
        level: Level,
        text: impl FnOnce() -> String,
    ) -> bool {
        if now.since(self.began) >= WINDOW {
            self.turn(now);
        }
        let of_place = self.places.entry(place.clone()).or_insert(0);
        *of_place = of_place.saturating_add(1);
        let too_many = *of_place > SHOWN_OF_PLACE;
        let known = self.lines.contains_key(&key) || (!too_many && self.lines.len() < LINES);
        let key = if known { key } else { place_key(place) };
        let new = || Line { count: 0, kept_back: 0, level, text: String::new() };
        let line = self.lines.entry(key).or_insert_with(new);
        line.count = line.count.saturating_add(1);
        let write = line.count <= SHOWN && !too_many;
        if !write {
            if line.kept_back == 0 {
                line.text = text();
            }
            line.kept_back = line.kept_back.saturating_add(1);
        }
        write
    }

    /// The window is over.
    fn turn(&mut self, now: Instant) {
        self.began = now;
        self.places.clear();
        let kept_back = self.lines.drain().map(|(_, line)| line).filter(|line| line.kept_back > 0);
        self.untold.extend(kept_back);
        self.untold.truncate(LINES);
    }
}

/// The key of all further lines of a place.
fn place_key(place: &Identifier) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    place.hash(&mut hasher);
    hasher.finish()
}

impl Repeats {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, now: Instant, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        // What sums up is not summed up.
        let sum = metadata.target() == module_path!();
        if *metadata.level() > Level::INFO || sum || metadata.fields().field(OF_A_TRANSITION).is_some() {
            return true;
        }
        let mut words = Words(self.shared.hasher.build_hasher());
        metadata.callsite().hash(&mut words.0);
        event.record(&mut words);
        let text = || {
            let mut text = Text::default();
            event.record(&mut text);
            text.finish()
        };
        let write = self.counts().take(now, &metadata.callsite(), words.0.finish(), *metadata.level(), text);
        if !write {
            self.wake();
        }
        write
    }

    /// Writes what was kept back, for nothing comes after it.
    pub(super) fn end(&self) {
        self.counts().turn(clock::now());
        self.sum_up(clock::now());
    }

    /// Writes what was kept back in windows that are over at `now`.
    fn sum_up(&self, now: Instant) {
        let untold = {
            let mut counts = self.counts();
            if now.since(counts.began) >= WINDOW {
                counts.turn(now);
            }
            std::mem::take(&mut counts.untold)
        };
        for Line { kept_back, level, text, .. } in untold {
            let seconds = WINDOW.as_secs();
            match level {
                Level::ERROR => {
                    tracing::error!(kept_back, "repeated {kept_back} times more within {seconds} s: {text}");
                }
                Level::WARN => tracing::warn!(kept_back, "repeated {kept_back} times more within {seconds} s: {text}"),
                _ => tracing::info!(kept_back, "repeated {kept_back} times more within {seconds} s: {text}"),
            }
        }
    }

    /// Sees to it that what was kept back is summed up when its window is over.
    fn wake(&self) {
        let teller = self.shared.teller.get_or_init(|| {
            let (wake, woken) = sync_channel(1);
            let repeats = Self { shared: Arc::clone(&self.shared) };
            let tell = move || {
                while woken.recv().is_ok() {
                    // Lines go on being kept back, and each says so: that is no reason to look earlier.
                    let began = repeats.counts().began;
                    while let left = (began + WINDOW).since(clock::now())
                        && !left.is_zero()
                    {
                        std::thread::park_timeout(left);
                    }
                    repeats.sum_up(clock::now());
                }
            };
            // Without a thread the lines stay counted, and the metrics tell.
            std::thread::Builder::new().name("repeats".to_owned()).spawn(tell).is_ok().then_some(wake)
        });
        if let Some(teller) = teller {
            // It is awake already where there is no room.
            let _ = teller.try_send(());
        }
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.take(clock::now(), event)
    }
}

/// What makes a line the same as another: its words, and none of its numbers.
struct Words<H>(H);

impl<H: Hasher> Visit for Words<H> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !VARYING.contains(&field.name()) {
            self.0.write(field.name().as_bytes());
            let _ = write!(self, "{value:?}");
        }
    }

    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_f64(&mut self, _: &Field, _: f64) {}
}

impl<H: Hasher> Write for Words<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The line for the sum: the message, then the rest.
#[derive(Default)]
struct Text {
    message: String,
    rest: String,
}

impl Text {
    fn finish(self) -> String {
        (self.message + &self.rest).chars().take(QUOTED).collect()
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs through a filter of its own. Returns the lines.
    fn lines(act: impl FnOnce(&Repeats)) -> Vec<String> {
        let (buffer, repeats) = (Buffer::default(), Repeats::default());
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(repeats.clone()));
        tracing::subscriber::with_default(subscriber, || act(&repeats));
        let text = String::from_utf8(buffer.0.lock().expect("no writer panicked").clone()).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_same_line_is_written_a_few_times_and_then_summed_up() {
        let written = lines(|repeats| {
            for n in 0..1_000_u64 {
                tracing::warn!(election = "orders", generation = n, hlc = %n, "not elected");
                tracing::info!(election = "orders", "another line");
            }
            tracing::warn!(election = "billing", generation = 1, "not elected");
            repeats.sum_up(clock::now() + WINDOW);
        });
        let count = |part: &str| written.iter().filter(|l| l.contains(part)).count();
        assert_eq!(written.len(), 5 + 5 + 1 + 2, "{written:#?}");
        assert_eq!(count("billing"), 1, "another election is another line");
        let sum = written.iter().find(|l| l.contains("repeated") && l.contains("not elected")).expect("a sum");
        assert!(sum.contains("repeated 995 times more within 60 s: not elected") && sum.contains("orders"), "{sum}");
        assert!(sum.contains("WARN"), "{sum}");
    }

    #[test]
    fn a_history_that_goes_backwards_each_second_is_one_line() {
        let written = lines(|repeats| {
            for n in 0..20_i64 {
                tracing::error!(remembered = ?(n, n), revision = n, raft_term = n, "history went backwards");
                tracing::error!(election = %"orders", remembered = %n, seen = %n, "the generation went back");
            }
            repeats.end();
        });
        assert_eq!(written.len(), 2 * (5 + 1), "{written:#?}");
    }

    #[test]
    fn what_was_kept_back_is_summed_up_at_the_end_of_the_process() {
        let written = lines(|repeats| {
            (0..7).for_each(|_| tracing::warn!("not elected"));
            repeats.end();
        });
        assert!(written.len() == 6 && written[5].contains("repeated 2 times more"), "{written:#?}");
    }

    #[test]
    fn lines_whose_words_never_repeat_are_bounded_by_their_place() {
        let written = lines(|repeats| {
            for n in 0..1_000 {
                tracing::warn!(error = %format!("from port {n}"), "not elected");
            }
            repeats.sum_up(clock::now() + WINDOW);
        });
        assert_eq!(written.len(), 60 + 1, "{written:#?}");
        assert!(written[60].contains("repeated 940 times more"), "{}", written[60]);
    }

    #[test]
    fn a_new_window_writes_again_and_changes_of_role_and_what_is_below_info_are_never_kept_back() {
        let written = lines(|repeats| {
            for _ in 0..2 {
                (0..10).for_each(|_| tracing::info!("again"));
                repeats.counts().turn(clock::now());
            }
            (0..100).for_each(|_| tracing::debug!("closely"));
            (0..100).for_each(|_| tracing::info!(reason = "queued", new_generation = 0, "transition"));
        });
        assert_eq!(written.len(), 2 * 5 + 200, "{written:#?}");
    }
}
