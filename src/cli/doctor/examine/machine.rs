//! What the role may do, who else has our id, and the clocks of this machine.

use std::time::Duration;

use super::super::{Findings, Rights};
use super::{Level, Remarks, listing};
use crate::config::{Config, duration_text};

pub(super) fn rights(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    for (election, rights) in &findings.rights {
        match rights {
            Rights::Granted => {
                let observed = config.elections.iter().any(|e| e.observe && e.name.as_str() == election);
                let what = if observed { "read" } else { "read and written" };
                remarks.say(Level::Good, format!("the keys of {election} may be {what}"));
            }
            Rights::Denied(what) => {
                remarks.say(Level::Bad, format!("the keys of {election} may not be used: etcd's role lacks {what}"));
            }
            Rights::Unknown(why) => {
                remarks.say(Level::Note, format!("whether the keys of {election} may be used is unknown: {why}"));
            }
        }
    }
}

/// One daemon has one lease, so that two leases with one id are two daemons.
pub(super) fn namesakes(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    let mut leases: Vec<i64> = findings.namesakes.iter().map(|n| n.lease).collect();
    leases.sort_unstable();
    leases.dedup();
    let mut urls: Vec<String> = findings.namesakes.iter().map(|n| n.url.clone()).filter(|u| !u.is_empty()).collect();
    urls.sort();
    urls.dedup();
    let at = if urls.is_empty() { String::new() } else { format!(" (at {})", listing(&urls)) };
    let id = &config.id;
    if leases.len() > 1 {
        let text =
            format!("{} daemons with the id {id} are in the queues{at}: each needs an id of its own", leases.len());
        remarks.say(Level::Bad, text);
    } else if let Some(other) =
        urls.iter().find(|url| config.http.advertise_url.as_ref().is_some_and(|own| own != *url))
    {
        remarks.say(Level::Warn, format!("another daemon has the id {id}, at {other}: each needs an id of its own"));
    } else if !leases.is_empty() {
        let text =
            format!("a daemon with the id {id} is in the queue{at}: right if it is the one of this configuration");
        remarks.say(Level::Note, text);
    }
}

pub(super) fn clocks(findings: &Findings, config: &Config, remarks: &mut Remarks) {
    let watched = findings.clocks.watched;
    if watched.is_zero() {
        return;
    }
    let moved = Duration::from_millis(findings.clocks.moved_ms.unsigned_abs());
    let drift = u64::from(config.timing.spec().drift_ppm);
    // A millisecond is what the wall clock resolves here: less than two prove nothing.
    let ppm = if moved.as_millis() < 2 { 0 } else { moved.as_micros() * 1_000_000 / watched.as_micros().max(1) };
    let text =
        format!("the wall clock moved {} against the boot clock in {}", duration_text(moved), duration_text(watched));
    if moved > config.timing.slack() {
        let text = format!("{text}: a jump, and each one ends a leadership; slew the clock instead of stepping it");
        remarks.say(Level::Bad, text);
    } else if ppm > u128::from(drift) {
        remarks.say(Level::Warn, format!("{text}: faster than session.drift allows for"));
    } else {
        remarks.say(Level::Good, format!("{text}: steady"));
    }
    let slewed = findings.clocks.slewed_ppm;
    let shown = format!("{}.{:02} %", slewed.unsigned_abs() / 10_000, slewed.unsigned_abs() % 10_000 / 100);
    let way = if slewed < 0 { "slower" } else { "faster" };
    if slewed.unsigned_abs() > drift {
        let text = format!(
            "the boot clock runs {shown} {way} than the oscillator, more than session.drift allows for: something slews it (chrony may by 8.3 %); `maxslewrate 2500` in chrony.conf, or a larger drift"
        );
        remarks.say(Level::Warn, text);
    } else {
        remarks
            .say(Level::Good, format!("the boot clock runs {shown} {way} than the oscillator: within session.drift"));
    }
}
