//! The log: lines on standard error, in the form and at the level of the configuration.
//!
//! Whoever logs never waits: `writer` has the queue, and the thread that writes.

mod repeats;
mod writer;

use std::backtrace::BacktraceStatus;
use std::fmt;
use std::io::{self, IsTerminal};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use self::repeats::Repeats;
use crate::clock;
use crate::config::{Env, LogConfig, LogFormat, LogLevel};

pub use writer::{dropped, flush};

/// Starts the log of this process. A second call changes nothing.
///
/// # Errors
/// When no thread can be had.
pub fn init(log: LogConfig) -> io::Result<Log> {
    let lines = tracing_subscriber::fmt::layer().with_writer(writer::start()?).with_timer(Time);
    let lines = match log.format {
        LogFormat::Json => lines.event_format(JsonLines).boxed(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && Env::of_process().filled("NO_COLOR").is_none();
            lines.with_ansi(colour).boxed()
        }
    };
    // Only fails where a log runs already, as in tests that share a process.
    let repeats = Repeats::default();
    let kept = targets(log.level).and(repeats.clone());
    let _ = tracing_subscriber::registry().with(lines.with_filter(kept)).try_init();
    std::panic::set_hook(Box::new(panicked));
    Ok(Log { repeats })
}

/// The running log. What was kept back and what waits is written when this is dropped, as far as [`flush`] goes.
#[derive(Debug)]
pub struct Log {
    repeats: Repeats,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.repeats.end();
        flush();
    }
}

/// A panic is a line of the log like any other. The standard library's own message would wait for whoever reads, and a
/// daemon that hangs there neither leads nor ends.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("no words");
    // Only where RUST_BACKTRACE asks for it.
    let trace = std::backtrace::Backtrace::capture();
    let trace = if trace.status() == BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    tracing::error!("thread '{}' panicked at {at}: {what}{trace}", thread.name().unwrap_or("unnamed"));
}

/// What is written of whose events.
///
/// The crates below us are kept short: what matters of theirs comes back to us as an error, and is logged once, where it is
/// handled. warp logs each broken client connection at ERROR: whoever can connect could fill the log, so it says nothing.
fn targets(level: LogLevel) -> Targets {
    let (ours, others, warp) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR, LevelFilter::OFF),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN, LevelFilter::OFF),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN, LevelFilter::OFF),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN, LevelFilter::OFF),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG, LevelFilter::DEBUG),
    };
    Targets::new().with_default(others).with_target("tenure", ours).with_target("warp", warp)
}

/// Wall-clock time as everything else of ours writes it.
struct Time;

impl FormatTime for Time {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&clock::wall().rfc3339())
    }
}

/// One JSON object a line, whose words for a transition are those of the audit: `time` first, then the event's own.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut object = Object(Map::new());
        object.put("time", clock::wall().rfc3339().into());
        object.put("level", event.metadata().level().as_str().into());
        object.put("target", event.metadata().target().into());
        event.record(&mut object);
        writeln!(w, "{}", Value::Object(object.0))
    }
}

/// Gathers the fields of an event.
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    /// Collects what is written.
    #[derive(Clone, Default)]
    struct Buffer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_lines_carry_the_words_of_the_audit() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(election = %"orders", from = "candidate", new_generation = 7_u64, "transition");
        });
        let text = String::from_utf8(buffer.0.lock().expect("no writer panicked").clone()).expect("text");
        let line: Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(
            (&line["election"], &line["from"], &line["new_generation"]),
            (&"orders".into(), &"candidate".into(), &7.into())
        );
        assert!(line["time"].as_str().is_some_and(|t| t.ends_with('Z')) && line["level"] == "INFO", "{line}");
        assert_eq!(line["message"], "transition");
    }

    #[test]
    fn clients_cannot_fill_the_log_through_the_crates_below() {
        let info = targets(LogLevel::Info);
        assert!(
            info.would_enable("tenure::driver", &Level::INFO) && !info.would_enable("tenure::driver", &Level::DEBUG)
        );
        assert!(!info.would_enable("warp::server", &Level::ERROR));
        assert!(!info.would_enable("h2::proto", &Level::INFO) && !info.would_enable("tonic", &Level::DEBUG));
        assert!(!targets(LogLevel::Debug).would_enable("hyper::proto", &Level::DEBUG));
    }
}
