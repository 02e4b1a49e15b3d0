//! Where things are in etcd: the key layout of the protocol, which candidates share with etcd's own election recipe.

use std::sync::Mutex;

use etcd_client::{Compare, CompareOp, KeyValue};

use super::codec;
use super::connect::lock;
use crate::election::ids::{Generation, LeaseId, Revision};
use crate::election::record::{Cell, GenerationRecord};

/// The digits of a generation in a history key: as many as the largest u64 has, so that keys sort like numbers.
const DIGITS: usize = 20;

/// Marks a suffix that is not text. Foreign keys may hold any bytes, and the queue must be able to name every one of them.
const ESCAPE: &str = "\0x";

/// The keys of one election.
#[derive(Debug)]
pub struct Keys {
    /// `P/generations/NAME`. Outside the range of the candidates, where every key counts as a candidate.
    pub generation: String,
    /// `P/control/NAME`.
    pub control: String,
    /// `P/elections/NAME/`.
    pub candidates: String,
    /// `P/history/NAME/`.
    pub history: String,
    /// The newest value of the generation key that was read or written, by its `mod_revision`.
    known: Mutex<Option<(Revision, Vec<u8>)>>,
}

impl Keys {
    /// Of the election `name` under `prefix`.
    #[must_use]
    pub fn new(prefix: &str, name: &str) -> Self {
        Self {
            generation: format!("{prefix}/generations/{name}"),
            control: format!("{prefix}/control/{name}"),
            candidates: format!("{prefix}/elections/{name}/"),
            history: format!("{prefix}/history/{name}/"),
            known: Mutex::default(),
        }
    }

    /// Reads the generation key's value, and remembers it for [`unchanged`](Self::unchanged).
    pub(super) fn generation_cell(&self, kvs: &[KeyValue]) -> Cell<GenerationRecord> {
        if let Some(kv) = kvs.first() {
            let (modified, mut known) = (Revision(kv.mod_revision()), lock(&self.known));
            // A watch may tell later what a look has overtaken.
            if known.as_ref().is_none_or(|(at, _)| *at <= modified) {
                *known = Some((modified, kv.value().to_vec()));
            }
        }
        codec::generation_cell(kvs.first().map(codec::Stored::from))
    }

    /// The value that was read at this revision, if that is the newest.
    pub(super) fn value_at(&self, modified: Revision) -> Option<Vec<u8>> {
        lock(&self.known).as_ref().filter(|(at, _)| *at == modified).map(|(_, value)| value.clone())
    }

    /// Remembers what we wrote ourselves.
    pub(super) fn wrote_generation(&self, record: &GenerationRecord, modified: Revision) {
        *lock(&self.known) = Some((modified, codec::encode_generation(record)));
    }

    /// Forgets what belongs to a history that is no more.
    pub(super) fn forget(&self) {
        *lock(&self.known) = None;
    }

    /// The compares that hold while the generation key is the one of `modified`.
    ///
    /// The revision alone is not enough: after a restore the same revision may come again, with another value, and a request of
    /// the lost history that was delayed until then would commit. Values never come again: each carries its own time.
    pub(super) fn unchanged(&self, modified: Revision) -> Vec<Compare> {
        let mut compares = vec![Compare::mod_revision(self.generation.clone(), CompareOp::Equal, modified.0)];
        if let Some((_, value)) = lock(&self.known).as_ref().filter(|(at, _)| *at == modified) {
            compares.push(Compare::value(self.generation.clone(), CompareOp::Equal, value.clone()));
        }
        compares
    }

    /// The key of the candidate with this lease.
    pub(super) fn own(&self, lease: LeaseId) -> Vec<u8> {
        format!("{}{lease}", self.candidates).into_bytes()
    }

    /// The key with this suffix.
    #[must_use]
    pub fn candidate(&self, suffix: &str) -> Vec<u8> {
        let mut key = self.candidates.clone().into_bytes();
        match suffix.strip_prefix(ESCAPE) {
            Some(hex) => key.extend(unhex(hex)),
            None => key.extend_from_slice(suffix.as_bytes()),
        }
        key
    }

    /// The suffix of a candidate's key, such that [`candidate`](Self::candidate) gives the very key back.
    #[must_use]
    pub fn suffix(&self, key: &[u8]) -> Option<String> {
        let rest = key.strip_prefix(self.candidates.as_bytes())?;
        Some(match std::str::from_utf8(rest) {
            Ok(text) if !text.starts_with(ESCAPE) => text.to_owned(),
            _ => rest.iter().fold(ESCAPE.to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
        })
    }

    /// The history key of a generation.
    #[must_use]
    pub fn record(&self, generation: Generation) -> Vec<u8> {
        format!("{}{:0DIGITS$}", self.history, generation.0).into_bytes()
    }

    /// The range that holds every history key of ours below `before`, as first key and exclusive end. What somebody wrote above
    /// the largest generation is none of ours, and would be the newest for ever.
    pub(super) fn records(&self, before: Option<u64>) -> (Vec<u8>, Vec<u8>) {
        let end = Generation::MAX.next();
        let end = before.map_or(end, |before| Generation(before).min(end));
        (self.record(Generation(0)), self.record(end))
    }

    /// Whether this is a history key of ours.
    #[must_use]
    pub fn is_record(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.history.as_bytes())
            .is_some_and(|rest| rest.len() == DIGITS && rest.iter().all(u8::is_ascii_digit))
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_key_survives_the_way_through_its_suffix() {
        let keys = Keys::new("/tenure", "orders");
        for rest in [&b"694d81ce7a0a8b0e"[..], b"", b"a/b", b"\xff\xfe", b"\0x61", "é".as_bytes()] {
            let key = [b"/tenure/elections/orders/", rest].concat();
            let suffix = keys.suffix(&key).expect("in the range");
            assert_eq!(keys.candidate(&suffix), key, "{suffix:?}");
        }
        assert_eq!(keys.suffix(b"/tenure/elections/other/1"), None);
    }

    #[test]
    fn history_keys_sort_like_their_generations() {
        let keys = Keys::new("/tenure", "orders");
        let records = [0, 9, 10, 99, 1_000_000, Generation::MAX.0].map(|g| keys.record(Generation(g)));
        assert!(records.is_sorted());
        let (first, end) = keys.records(None);
        assert!(records.iter().all(|key| *key >= first && *key < end && keys.is_record(key)));
        assert!(keys.record(Generation::MAX.next()) >= end, "nobody's, and not the newest for ever");
        assert_eq!(keys.records(Some(u64::MAX)).1, end);
        assert!(keys.records(Some(10)).1 > keys.record(Generation(9)));
        assert!(keys.records(Some(10)).1 <= keys.record(Generation(10)));
    }
}
