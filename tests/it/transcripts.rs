//! Transcript tests of the core: a scenario is a text file, and its diff is the review.
//!
//! A line `@MS INPUT` feeds an input at that many milliseconds; the indented lines below it are all the outputs it causes.
//! `TRANSCRIPTS=rewrite` writes what the core does now; read the diff before you commit it.
//!
//! Words of the inputs: `key=value` pairs. Answers without a `round` are to the newest request. A candidate's key is `SUFFIX@CREATED`, with `+N` for a priority and `!` for a
//! foreign client. A generation is `N:KEY@REV` (`N:-@REV` held by nobody, `?@REV` corrupt, `-` absent), `handed` in front
//! of a hand-over's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tenure::clock::{Hlc, Instant, Wall};
use tenure::election::event::{
    Command, ElectOutcome, ElectionInput, HandOverOutcome, Input, Output, Reply, Round, SessionInput, Ticket,
};
use tenure::election::ids::{CandidateKey, ElectionIndex, Generation, LeaseId, MemberId, RaftTerm, Revision};
use tenure::election::pause::Jitter;
use tenure::election::record::{
    CandidateInfo, Cause, Cell, ControlRecord, GenerationRecord, Header, HighWater, Holder, OwnKey, Pulse, QueueEntry,
    View,
};
use tenure::election::{Core, Settings};
use tenure::timing::{Timing, TimingSpec};

/// Goal: every scenario behaves as written. Method: replay each file, and compare the whole text.
#[test]
fn every_transcript_is_as_the_core_behaves() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .expect("tests/transcripts is there")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts in {}", dir.display());
    let rewrite = std::env::var("TRANSCRIPTS").is_ok_and(|v| v == "rewrite");
    let mut wrong = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a text file");
        let actual = replay(&text);
        if rewrite {
            std::fs::write(&path, &actual).expect("written");
        } else if actual != text {
            let _ = writeln!(wrong, "{}:\n{}", path.display(), difference(&text, &actual));
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n`TRANSCRIPTS=rewrite` writes what the core does now");
}

/// Goal: no edge of the transition table, and no reason, goes without a transcript.
#[test]
fn every_reason_for_a_transition_has_a_transcript() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut all = String::new();
    for entry in std::fs::read_dir(dir).expect("tests/transcripts is there") {
        all += &std::fs::read_to_string(entry.expect("an entry").path()).expect("a text file");
    }
    let edges = [
        ("follower -> candidate", "queued"),
        ("candidate -> leader", "elected"),
        ("candidate -> leader", "handed_over"),
        ("candidate -> follower", "guard_expired"),
        ("candidate -> follower", "lease_lost"),
        ("candidate -> follower", "key_deleted"),
        ("candidate -> follower", "drained"),
        ("candidate -> follower", "shutdown"),
        ("candidate -> follower", "history_rewound"),
        ("leader -> follower", "guard_expired"),
        ("leader -> follower", "lease_lost"),
        ("leader -> follower", "key_deleted"),
        ("leader -> follower", "superseded"),
        ("leader -> follower", "resigned"),
        ("leader -> follower", "drained"),
        ("leader -> follower", "shutdown"),
        ("leader -> follower", "clock_jumped"),
        ("leader -> follower", "history_rewound"),
    ];
    for (edge, reason) in edges {
        let found = all.lines().any(|l| l.contains(edge) && l.ends_with(reason));
        assert!(found, "no transcript shows {edge} because {reason}");
    }
}

fn difference(expected: &str, actual: &str) -> String {
    let (mut old, mut new) = (expected.lines(), actual.lines());
    for n in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                return format!(
                    "  line {n}\n  expected: {}\n  actual:   {}",
                    a.unwrap_or("(end)"),
                    b.unwrap_or("(end)")
                );
            }
        }
    }
    String::new()
}

/// The newest rounds that were asked for: `look` and `feel` of each election, and `renew`.
#[derive(Default)]
struct Rounds {
    looks: BTreeMap<usize, u64>,
    renewal: u64,
}

impl Rounds {
    fn note(&mut self, output: &Output) {
        match output {
            Output::Look { election, round, .. } | Output::Feel { election, round, .. } => {
                self.looks.insert(election.0, round.0);
            }
            Output::KeepAlive { round, .. } => self.renewal = round.0,
            _ => {}
        }
    }

    fn fill(&self, input: &mut Input) {
        match input {
            Input::Election(
                election,
                ElectionInput::Looked { round, .. }
                | ElectionInput::Felt { round, .. }
                | ElectionInput::LookFailed { round },
            ) if *round == Round(0) => *round = Round(self.looks.get(&election.0).copied().unwrap_or(0)),
            Input::Session(
                SessionInput::KeepAliveAnswered { round, .. }
                | SessionInput::KeepAliveFailed { round, .. }
                | SessionInput::Confirmed { round, .. }
                | SessionInput::ConfirmFailed { round, .. },
            ) if *round == Round(0) => *round = Round(self.renewal),
            _ => {}
        }
    }
}

fn replay(text: &str) -> String {
    let mut rounds = Rounds::default();
    let mut core = None;
    let mut actual = String::new();
    for line in text.lines() {
        if let Some(config) = line.strip_prefix("config") {
            core = Some(Core::new(settings(&Words::new(config)), at(0)));
        }
        if line.starts_with("    ") {
            continue;
        }
        actual += line;
        actual.push('\n');
        let Some(step) = line.strip_prefix('@') else { continue };
        let (ms, input) = step.split_once(' ').expect("`@MS INPUT`");
        let core = core.as_mut().expect("`config` comes first");
        let mut input = parse(input);
        rounds.fill(&mut input);
        let (now, woken) = (at(ms.parse().expect("milliseconds")), core.poll_timeout());
        let (first, tick) = (now == at(0), input == Input::Tick);
        core.handle(now, Jitter(0), input);
        let outputs = actual.len();
        while let Some(output) = core.poll_output() {
            rounds.note(&output);
            let _ = writeln!(actual, "    {}", render(&output));
        }
        assert!(core.poll_timeout().is_none_or(|t| t > now), "{line}: busy loop");
        // What a tick does must be what the core asked to be woken for.
        let asked = woken.is_some_and(|t| t <= now);
        assert!(first || !tick || asked || actual.len() == outputs, "{line}: nobody would have woken the core");
    }
    actual
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// `name word key=value …`.
struct Words<'a> {
    plain: Vec<&'a str>,
    pairs: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let (pairs, plain): (Vec<_>, Vec<_>) = text.split_whitespace().partition(|w| w.contains('='));
        Self { plain, pairs: pairs.iter().filter_map(|w| w.split_once('=')).collect() }
    }

    fn get(&self, key: &str) -> &'a str {
        self.pairs.get(key).copied().unwrap_or_default()
    }

    fn num(&self, key: &str) -> u64 {
        let text = self.get(key);
        if text.is_empty() { 0 } else { text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number")) }
    }

    fn lease(&self) -> LeaseId {
        LeaseId(i64::from_str_radix(self.get("lease"), 16).expect("lease=HEX"))
    }

    fn round(&self) -> Round {
        Round(self.num("round"))
    }

    fn header(&self) -> Header {
        let revision = Revision(i64::try_from(self.num("rev")).expect("a revision"));
        let raft_term = RaftTerm(self.pairs.get("term").map_or(2, |t| t.parse().expect("a term")));
        let member = MemberId(self.pairs.get("member").map_or(1, |m| m.parse().expect("a member")));
        Header { sent_at: at(self.num("sent")), revision, raft_term, member }
    }

    fn revision(&self) -> Revision {
        self.header().revision
    }
}

fn settings(words: &Words<'_>) -> Settings {
    let millis =
        |key: &str, default| Duration::from_millis(words.pairs.get(key).map_or(default, |v| v.parse().expect(key)));
    let spec = TimingSpec { ttl: millis("ttl", 10_000), vacancy_grace: millis("grace", 0), ..TimingSpec::default() };
    let observe = words.get("observe") == "yes";
    let floor = words.num("remembered");
    Settings {
        timing: Timing::new(spec).expect("good timing"),
        observe: vec![observe; words.pairs.get("elections").map_or(1, |n| n.parse().expect("a number"))],
        by_revision: words.get("source") == "revision",
        remembered: (floor > 0).then(|| HighWater { generations: vec![Generation(floor)], ..HighWater::default() }),
        moved: false,
    }
}

fn key(text: &str) -> CandidateKey {
    let (suffix, created) = text.split_once('@').unwrap_or_else(|| panic!("{text} is no SUFFIX@CREATED"));
    CandidateKey { suffix: suffix.to_owned(), created: Revision(created.parse().expect("a revision")) }
}

fn entry(text: &str) -> QueueEntry {
    let foreign = text.ends_with('!');
    let (text, priority) = text.trim_end_matches('!').split_once('+').unwrap_or((text.trim_end_matches('!'), "0"));
    let key = key(text);
    let info = CandidateInfo {
        id: format!("id-{}", key.suffix),
        url: String::new(),
        term: 0,
        priority: priority.parse().expect("a priority"),
        version: String::new(),
    };
    let lease = i64::from_str_radix(&key.suffix, 16).unwrap_or(0);
    QueueEntry { key, lease, candidate: (!foreign).then_some(info) }
}

fn generation(text: &str) -> Cell<GenerationRecord> {
    if text.is_empty() || text == "-" {
        return Cell::Absent;
    }
    let (cause, text) = match text.strip_prefix("handed:") {
        Some(rest) => (Cause::HandedOver, rest),
        None => (Cause::Elected, text),
    };
    let (value, modified) = text.rsplit_once('@').expect("N:KEY@REV");
    let modified = Revision(modified.parse().expect("a revision"));
    if value == "?" {
        return Cell::Corrupt { modified };
    }
    let (number, holder) = value.split_once(':').expect("N:KEY");
    let holder = (holder != "-").then(|| Holder { id: "id".into(), url: String::new(), key: key(holder) });
    let record = GenerationRecord {
        generation: Generation(number.parse().expect("a generation")),
        term: 0,
        cause: if holder.is_some() { cause } else { Cause::Raised },
        holder,
        elected_at: Wall(0),
        hlc: Hlc::default(),
        leaderless_ms: 0,
    };
    Cell::Valid { value: record, modified }
}

fn record(text: &str) -> Option<GenerationRecord> {
    generation(text).value().cloned()
}

fn control(text: &str) -> Cell<ControlRecord> {
    match text.split_once('@') {
        None => Cell::Absent,
        Some((word, modified)) => Cell::Valid {
            value: ControlRecord { paused: word == "paused" },
            modified: Revision(modified.parse().expect("a revision")),
        },
    }
}

fn queue(text: &str) -> Vec<QueueEntry> {
    text.split(',').filter(|t| !t.is_empty()).map(entry).collect()
}

fn view(words: &Words<'_>) -> View {
    let queue = queue(words.get("queue"));
    let own = queue.iter().position(|e| e.key.suffix == words.get("own"));
    View {
        header: words.header(),
        generation: generation(words.get("gen")),
        control: control(words.get("control")),
        queued: queue.len(),
        ahead: own.filter(|i| *i > 0).map(|i| queue[i - 1].key.clone()),
        own: own.map(|i| queue[i].key.clone()),
        queue,
    }
}

fn parse(text: &str) -> Input {
    let words = Words::new(text);
    let name = words.plain.first().copied().expect("a name");
    let election = ElectionIndex(words.plain.get(1).map_or(0, |n| n.parse().expect("an election")));
    let session = session_input(name, &words);
    let token = || Some(Generation(words.num("token"))).filter(|token| token.0 > 0);
    let election_input = || election_input(name, &words).unwrap_or_else(|| panic!("unknown input {name}"));
    match name {
        "tick" => Input::Tick,
        "resign" => Input::Command(Command::Resign {
            election,
            ticket: Ticket(words.num("ticket")),
            cooldown: Duration::from_millis(words.num("cooldown")),
            token: token(),
        }),
        "drain" => Input::Command(Command::Drain { until: at(words.num("until")) }),
        "undrain" => Input::Command(Command::Undrain),
        "drained" => Input::Command(Command::Drained { election, ticket: Ticket(words.num("ticket")), token: token() }),
        "shutdown" => Input::Command(Command::Shutdown { deadline: at(words.num("deadline")) }),
        _ => session.map_or_else(|| Input::Election(election, election_input()), Input::Session),
    }
}

fn session_input(name: &str, words: &Words<'_>) -> Option<SessionInput> {
    let ttl = || Duration::from_millis(words.num("ttl"));
    Some(match name {
        "granted" => SessionInput::Granted { lease: words.lease(), ttl: ttl(), header: words.header() },
        "grant-failed" => SessionInput::GrantFailed,
        "renewed" => SessionInput::KeepAliveAnswered {
            lease: words.lease(),
            round: words.round(),
            ttl: ttl(),
            header: words.header(),
        },
        "renew-failed" => SessionInput::KeepAliveFailed { lease: words.lease(), round: words.round() },
        "confirmed" => SessionInput::Confirmed {
            lease: words.lease(),
            round: words.round(),
            header: words.header(),
            keys: words
                .get("keys")
                .split(',')
                .filter(|k| !k.is_empty())
                .map(|k| k.split_once('@').expect("ELECTION@CREATED"))
                .map(|(e, created)| OwnKey {
                    election: ElectionIndex(e.parse().expect("an election")),
                    created: Revision(created.parse().expect("a revision")),
                })
                .collect(),
        },
        "confirm-failed" => SessionInput::ConfirmFailed { lease: words.lease(), round: words.round() },
        "lease-unknown" => SessionInput::LeaseUnknown { lease: words.lease() },
        "revoked" => SessionInput::Revoked { lease: words.lease() },
        "revoke-failed" => SessionInput::RevokeFailed { lease: words.lease() },
        "clock-jumped" => SessionInput::ClockJumped,
        _ => return None,
    })
}

fn election_input(name: &str, words: &Words<'_>) -> Option<ElectionInput> {
    let own = || key(words.get("key"));
    Some(match name {
        "looked" => ElectionInput::Looked { round: words.round(), view: view(words) },
        "felt" => ElectionInput::Felt {
            round: words.round(),
            pulse: Pulse {
                header: words.header(),
                generation: Revision(i64::try_from(words.num("gen")).expect("a revision")),
                control: Revision(i64::try_from(words.num("control")).expect("a revision")),
                keys: words.get("keys").split(',').filter(|k| !k.is_empty()).map(key).collect(),
            },
        },
        "look-failed" => ElectionInput::LookFailed { round: words.round() },
        "queued" => {
            let created =
                if words.get("created").is_empty() { words.revision().0.unsigned_abs() } else { words.num("created") };
            let created = Revision(i64::try_from(created).expect("a revision"));
            ElectionInput::Queued { lease: words.lease(), created, header: words.header() }
        }
        "queue-failed" => ElectionInput::QueueFailed { lease: words.lease() },
        "won" => ElectionInput::ElectAnswered {
            key: own(),
            outcome: ElectOutcome::Won {
                header: words.header(),
                record: record(words.get("gen")).expect("gen=…"),
                queue: queue(words.get("queue")),
            },
        },
        "elect-refused" => ElectionInput::ElectAnswered {
            key: own(),
            outcome: ElectOutcome::Refused { view: view(words), logged: words.get("completed") != "yes" },
        },
        "elect-failed" => ElectionInput::ElectAnswered { key: own(), outcome: ElectOutcome::Failed },
        "elect-unknown" => ElectionInput::ElectAnswered { key: own(), outcome: ElectOutcome::Unknown },
        "handed-over" => ElectionInput::HandOverAnswered {
            key: own(),
            outcome: HandOverOutcome::Done { header: words.header(), record: record(words.get("gen")) },
        },
        "hand-over-refused" => ElectionInput::HandOverAnswered { key: own(), outcome: HandOverOutcome::Refused },
        "hand-over-unknown" => ElectionInput::HandOverAnswered { key: own(), outcome: HandOverOutcome::Unknown },
        "raised" => ElectionInput::RaiseAnswered { raised: true },
        "raise-refused" => ElectionInput::RaiseAnswered { raised: false },
        "sealed" => ElectionInput::Sealed { until: at(words.num("until")) },
        "deleted" => ElectionInput::KeyDeleted { suffix: words.get("suffix").to_owned(), revision: words.revision() },
        "generation" => {
            ElectionInput::GenerationChanged { cell: generation(words.get("gen")), revision: words.revision() }
        }
        "control" => ElectionInput::ControlChanged { cell: control(words.get("to")), revision: words.revision() },
        "watch-broken" => ElectionInput::WatchBroken,
        _ => return None,
    })
}

fn named(key: &CandidateKey) -> String {
    format!("{}@{}", key.suffix, key.created)
}

fn render(output: &Output) -> String {
    match output {
        Output::Publish => "publish".into(),
        Output::Transition(t) => format!(
            "{} {} -> {} ({} -> {}): {}",
            t.election.0,
            t.from.as_str(),
            t.to.as_str(),
            t.old_generation,
            t.new_generation,
            t.reason.as_str()
        ),
        Output::SealPromises(e) => format!("{} seal promises", e.0),
        Output::Grant { ttl } => format!("grant ttl={}", ttl.as_millis()),
        Output::KeepAlive { lease, round, elsewhere } => {
            format!("renew lease={lease} round={}{}", round.0, if *elsewhere { " elsewhere" } else { "" })
        }
        Output::Confirm { lease, round, elections, anchor } => {
            let elections: Vec<_> = elections.iter().map(|e| e.0).collect();
            let anchor = anchor.map_or_else(String::new, |e| format!(" by {}", e.0));
            format!("confirm lease={lease} round={} of {elections:?}{anchor}", round.0)
        }
        Output::Revoke { lease } => format!("revoke lease={lease}"),
        Output::Look { election, round, lease } => {
            let own = lease.map_or_else(String::new, |l| format!(" own={l}"));
            format!("{} look round={}{own}", election.0, round.0)
        }
        Output::Feel { election, round, suffixes } => {
            format!("{} feel round={} {}", election.0, round.0, suffixes.join(","))
        }
        Output::Queue { election, lease } => format!("{} queue lease={lease}", election.0),
        Output::Elect { election, txn } => format!(
            "{} elect {}@{} generation={} if gen@{} control@{} leaderless={}ms",
            election.0,
            txn.lease,
            txn.created,
            txn.generation,
            txn.generation_modified,
            txn.control_modified,
            txn.leaderless_ms
        ),
        Output::HandOver { election, txn } => {
            let to = txn.successor.as_ref().map_or_else(String::new, |s| {
                let skipped: Vec<_> = s.skipped.iter().map(named).collect();
                let past = if skipped.is_empty() { String::new() } else { format!(" past {}", skipped.join(",")) };
                format!(
                    " to {} generation={} if gen@{}{past}",
                    named(&s.entry.key),
                    s.generation,
                    s.generation_modified
                )
            });
            format!("{} hand over {}{to}", election.0, named(&txn.key))
        }
        Output::Raise { election, at_least, modified } => {
            format!("{} raise to {at_least} if gen@{modified}", election.0)
        }
        Output::Watch { election, plan } => {
            format!("{} watch {} from {}", election.0, plan.suffixes.join(","), plan.from)
        }
        Output::Remember(mark) => {
            let generations: Vec<_> = mark.generations.iter().map(|g| g.0).collect();
            format!("remember {generations:?}")
        }
        Output::ElectionRewound(election, remembered, seen) => {
            format!("{} rewound from generation {remembered} to {seen}", election.0)
        }
        Output::Rewound { seen, .. } => format!("rewound to revision {}", seen.revision),
        Output::Reply { ticket, reply } => match reply {
            Reply::Resigned { successor, generation } => {
                let to = successor.as_ref().map_or_else(|| "nobody".into(), |s| named(&s.key));
                format!("reply {}: resigned to {to}, generation {generation}", ticket.0)
            }
            Reply::HandingOver => format!("reply {}: handing over", ticket.0),
            Reply::Stale => format!("reply {}: stale", ticket.0),
            Reply::NotLeader => format!("reply {}: not leader", ticket.0),
            Reply::Unknown => format!("reply {}: unknown", ticket.0),
        },
        Output::Stopped { clean } => format!("stopped {}", if *clean { "clean" } else { "unclean" }),
    }
}
