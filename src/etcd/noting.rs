//! What is noted of every try: whether the member serves, whether its connection is worth keeping, and what the log says of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connect::{Live, Pool, lock};
use super::error::{Error, Kind};
use super::reason::{CLOSED_WORD, of_alert};
use crate::clock::{self, Instant};
use crate::health::Reason;

/// So many tries in a row without an answer, over at least this time, and the connection is made anew: after a partition, TCP
/// itself would wait out its last retransmission time-out, which by then is many seconds.
const SILENT_TRIES: u32 = 3;
const SILENT_FOR: Duration = Duration::from_secs(2);

/// How often the same refusal is logged.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// Tries in a row that nobody answered.
#[derive(Default)]
pub(super) struct Silence {
    tries: u32,
    since: Option<Instant>,
}

impl Pool {
    /// Takes note of how a try of `operation` ended.
    pub(super) fn note(&self, index: usize, operation: &str, live: Option<&Live>, result: Result<(), &Error>) {
        // What disables the member is said of the member, and what is asked about rights is said by whoever asked.
        if let Err(error) = &result
            && !error.disables(operation)
            && operation != "permissions"
        {
            self.complain(index, operation, error);
        }
        if let Some(answered) = result.map_or_else(Error::answered, |()| Some(true)) {
            // Another cluster's answer is no silence of ours.
            if !answered && result.err().is_none_or(|error| error.kind() != Kind::Foreign) {
                self.unheard(index);
            }
            self.note_silence(index, live, answered);
        }
        match result {
            Ok(()) if proves(operation) => self.note_health(index, Ok(())),
            // etcd looks at the rights only once it may answer: after the read index, or after the commit (`v3_server.go`).
            Err(error) if error.is_lack_of_rights() && proves(operation) => self.note_health(index, Ok(())),
            Err(error) if error.disables(operation) => self.note_health(index, Err(self.reason(index, error))),
            Ok(()) | Err(_) => {}
        }
    }

    /// Why, as far as anybody said.
    fn reason(&self, index: usize, error: &Error) -> Reason {
        let reason = error.reason();
        let member = &self.members[index];
        let alert = member.dial.alert().filter(|_| reason.word == CLOSED_WORD);
        alert.map_or(reason, |alert| of_alert(&alert, &member.endpoint))
    }

    /// Silence that lasts is the connection's, until a new one is silent as well.
    fn note_silence(&self, index: usize, live: Option<&Live>, answered: bool) {
        let mut silence = lock(&self.members[index].silence);
        if answered {
            *silence = Silence::default();
            return;
        }
        silence.tries += 1;
        let since = *silence.since.get_or_insert_with(clock::now);
        if silence.tries >= SILENT_TRIES && clock::now().since(since) >= SILENT_FOR {
            *silence = Silence::default();
            if let Some(live) = live {
                live.retired.store(true, Ordering::Release);
            }
        }
        self.tls_check_soon();
    }

    fn note_health(&self, index: usize, outcome: Result<(), Reason>) {
        let (serves, now) = (outcome.is_ok(), clock::now());
        let before = self.health.note(index, outcome, now);
        // At once, other than the log: a gauge costs no more for changing often, and an alert waits by itself.
        if before.as_ref().is_some_and(|before| before.members[index].serves != Some(serves)) {
            self.telemetry.endpoint_up(&self.members[index].endpoint, serves);
        }
        let mut voice = lock(&self.voice);
        let line = if serves {
            voice.serves(index, &self.members[index].endpoint, now)
        } else {
            voice.fails(index, &self.health.report(), now)
        };
        if let Some(line) = line {
            line.log();
        }
    }

    /// Says what only a person can mend, and what mends it; each minute at most, since it is met at every request.
    fn complain(&self, index: usize, operation: &str, error: &Error) {
        let kind = error.kind();
        if !matches!(kind, Kind::Permission | Kind::NoSpace | Kind::Corrupt | Kind::Invalid) {
            return;
        }
        let (mut complained, now) = (lock(&self.complained), clock::now());
        if complained.iter().any(|(of, at)| *of == kind && now.since(*at) < COMPLAIN_EVERY) {
            return;
        }
        complained.retain(|(of, _)| *of != kind);
        complained.push((kind, now));
        tracing::error!(
            operation,
            endpoint = self.members[index].endpoint,
            "etcd refuses what we need: {}",
            error.reason()
        );
    }
}

/// Whether an answer shows that the member serves what is needed: a linearizable read, or a write. An answered renewal does
/// not: a member that has lost its quorum gives some, and a proxy gives them by itself.
fn proves(operation: &str) -> bool {
    !matches!(operation, "keep_alive" | "grant" | "revoke")
}

#[cfg(test)]
mod tests {
    use super::super::error::Cause;
    use super::*;

    #[test]
    fn a_right_that_lacks_is_no_member_that_does_not_serve() {
        let met = |kind, text: &str| {
            let source = Cause::local(kind, text);
            Error::Request { operation: "roll_call", endpoint: "m0".into(), source }
        };
        let lacks = met(Kind::Permission, "permission_denied: etcdserver: permission denied");
        assert!(lacks.is_lack_of_rights() && !lacks.disables("roll_call") && !lacks.disables("look"));
        assert!(met(Kind::Permission, "permission_denied: RBAC: access denied").disables("roll_call"));
        let password = "invalid_argument: etcdserver: authentication failed, invalid user ID or password";
        assert!(met(Kind::Auth, password).disables("look"));
    }
}
