//! The log: lines on standard error, in the form and at the level of the configuration.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock;
use crate::config::{Env, LogConfig, LogFormat, LogLevel};

/// Starts the log of this process. A second call changes nothing.
pub fn init(log: LogConfig) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_timer(Time);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && Env::of_process().filled("NO_COLOR").is_none();
            lines.with_ansi(colour).boxed()
        }
    };
    // Only fails where a log runs already, as in tests that share a process.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets(log.level))).try_init();
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
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        w.write_str(&clock::wall().rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

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
