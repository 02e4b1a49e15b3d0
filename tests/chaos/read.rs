//! A history as it lies in its directory, put into order for the checker.
//!
//! * `*.jsonl`: [`Record`]s of the harness, the clients and the registers;
//! * `audit-EPOCH-DAEMON.jsonl`: the audit file of a daemon;
//! * `etcd-history-EPOCH*.json`: what `etcdctl get --prefix PREFIX/history/ -w json` printed, at the end of an epoch and
//!   before anything that takes etcd's history back. An epoch's name has no `-` in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::history::{Apply, Ask, Fault, Healed, Record, Write};

/// All that happened on one etcd.
#[derive(Debug, Default)]
pub struct Epoch {
    pub name: String,
    pub at: u64,
    pub rounds: u64,
    pub faults: Vec<Fault>,
    /// Ends of faults, and the beginning.
    pub healed: Vec<Healed>,
    /// Whether etcd's records at the end are missing, and that is known.
    pub unread: bool,
    pub asks: Vec<Ask>,
    pub writes: Vec<Write>,
    /// Of each register process, in its order.
    pub applied: Vec<Vec<Apply>>,
    /// By daemon.
    pub audits: BTreeMap<String, Vec<Transition>>,
    /// In no order: each is what etcd held at some moment.
    pub dumps: Vec<Vec<Generation>>,
}

/// A line of an audit.
#[derive(Clone, Debug, Deserialize)]
pub struct Transition {
    pub election: String,
    pub id: String,
    pub to: String,
    pub new_generation: u64,
}

/// A history record in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub election: String,
    /// By its key.
    pub number: u64,
    /// By its value.
    pub says: u64,
    pub holder: Option<String>,
    /// The candidate's key: the incarnation of the holder.
    pub key: String,
    pub created: i64,
    pub version: i64,
}

/// Reads a directory.
///
/// # Errors
/// When something is missing or is not what it should be: nothing is skipped, but for a last line that was cut off.
pub fn read(dir: &Path) -> Result<Vec<Epoch>, String> {
    let (audits, files): (Vec<_>, Vec<_>) =
        list(dir, "jsonl")?.into_iter().partition(|p| stem(p).starts_with("audit-"));
    let files: Vec<Vec<Record>> = files.iter().map(|path| lines(path)).collect::<Result<_, _>>()?;
    let mut epochs: Vec<Epoch> = files.iter().flatten().filter_map(epoch).collect();
    epochs.sort_by_key(|e| e.at);
    if epochs.is_empty() {
        return Err(format!("{}: no epoch has begun", dir.display()));
    }
    for records in files {
        for epoch in &mut epochs {
            epoch.applied.push(Vec::new());
        }
        for record in records {
            let next = epochs.partition_point(|e| e.at <= at(&record));
            // Clients and registers begin after their epoch; nothing is compared before the first.
            let epoch = next.checked_sub(1).and_then(|n| epochs.get_mut(n));
            epoch.ok_or_else(|| format!("before the first epoch: {record:?}"))?.take(record);
        }
    }
    for epoch in &mut epochs {
        epoch.applied.retain(|a| !a.is_empty());
    }
    for path in audits {
        let name = stem(&path).split_off("audit-".len());
        let (name, daemon) = name.split_once('-').ok_or_else(|| format!("{}: which daemon?", path.display()))?;
        named(&mut epochs, name, &path)?.audits.insert(daemon.to_owned(), lines_of_a_daemon(&path)?);
    }
    for path in list(dir, "json")?.into_iter().filter(|p| stem(p).starts_with("etcd-history-")) {
        let name = stem(&path).split_off("etcd-history-".len());
        let name = name.split('-').next().unwrap_or_default();
        let dump = dump(&path)?;
        named(&mut epochs, name, &path)?.dumps.push(dump);
    }
    Ok(epochs)
}

impl Epoch {
    fn take(&mut self, record: Record) {
        match record {
            Record::Epoch { .. } => {}
            Record::Round { .. } => self.rounds += 1,
            Record::Fault(fault) => self.faults.push(fault),
            Record::Healed(healed) => self.healed.push(healed),
            Record::Unread { .. } => self.unread = true,
            Record::Ask(ask) => self.asks.push(ask),
            Record::Write(write) => self.writes.push(write),
            Record::Apply(apply) => self.applied.last_mut().expect("a file is open").push(apply),
        }
    }

    /// Every election that somebody asked about, wrote under or led.
    pub fn elections(&self) -> Vec<String> {
        let asked = self.asks.iter().map(|a| &a.election);
        let applied = self.applied.iter().flatten().map(|a| &a.election);
        let audited = self.audits.values().flatten().map(|t| &t.election);
        let mut all: Vec<String> = asked.chain(applied).chain(audited).cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

fn epoch(record: &Record) -> Option<Epoch> {
    let Record::Epoch { at, name } = record else { return None };
    Some(Epoch { at: *at, name: name.clone(), ..Epoch::default() })
}

/// When a record belongs to an epoch: an answer by its question.
fn at(record: &Record) -> u64 {
    match record {
        Record::Epoch { at, .. } | Record::Round { at, .. } | Record::Unread { at } => *at,
        Record::Healed(healed) => healed.at,
        Record::Fault(fault) => fault.at,
        Record::Ask(ask) => ask.sent,
        Record::Write(write) => write.sent,
        Record::Apply(apply) => apply.at,
    }
}

fn named<'a>(epochs: &'a mut [Epoch], name: &str, path: &Path) -> Result<&'a mut Epoch, String> {
    epochs.iter_mut().find(|e| e.name == name).ok_or_else(|| format!("{}: no epoch {name}", path.display()))
}

fn list(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|e| e.map(|e| e.path()).map_err(|e| format!("{}: {e}", dir.display())))
        .collect::<Result<_, _>>()?;
    paths.retain(|p| p.extension().is_some_and(|e| e == extension));
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every line but a last one without its end: its writer was killed.
fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let parse =
        |(n, line)| serde_json::from_str(line).map_err(|e| format!("{}:{}: {e}: {line}", path.display(), n + 1));
    whole_lines(&text(path)?).enumerate().map(parse).collect()
}

/// A daemon that is killed may cut a line short anywhere in its file: its next life goes on below. Only such a line, the
/// beginning of one and no more, is passed over.
fn lines_of_a_daemon(path: &Path) -> Result<Vec<Transition>, String> {
    let mut transitions = Vec::new();
    for line in whole_lines(&text(path)?) {
        match serde_json::from_str(line) {
            Ok(transition) => transitions.push(transition),
            Err(e) if e.is_eof() => {}
            Err(e) => return Err(format!("{}: {e}: {line}", path.display())),
        }
    }
    Ok(transitions)
}

fn dump(path: &Path) -> Result<Vec<Generation>, String> {
    let json: Value = serde_json::from_str(&text(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    let none = Vec::new();
    let kvs = json["kvs"].as_array().unwrap_or(&none);
    let parse = |kv| generation(kv).ok_or_else(|| format!("{}: not a history record: {kv}", path.display()));
    kvs.iter().map(parse).collect()
}

fn generation(kv: &Value) -> Option<Generation> {
    let key = String::from_utf8(base64(kv["key"].as_str()?)?).ok()?;
    let (rest, number) = key.rsplit_once('/')?;
    let value: Value = serde_json::from_slice(&base64(kv["value"].as_str()?)?).ok()?;
    Some(Generation {
        election: rest.rsplit_once('/')?.1.to_owned(),
        number: number.parse().ok()?,
        says: value["generation"].as_u64()?,
        holder: value["holder"].as_str().map(str::to_owned),
        key: value["key"].as_str()?.to_owned(),
        created: kv["create_revision"].as_i64()?,
        version: kv["version"].as_i64()?,
    })
}

/// The standard alphabet with padding, as etcdctl writes it.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for digit in text.trim_end_matches('=').bytes() {
        let digit = ALPHABET.iter().position(|a| *a == digit)?;
        held = held << 6 | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}
