//! What is written in etcd, as JSON, and how it is read back. Anyone with access to etcd may have written a value, so reading
//! never fails: what we do not understand is [`Cell::Corrupt`], or a candidate that is not one of ours.

use std::time::UNIX_EPOCH;

use etcd_client::KeyValue;
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use crate::clock::{Hlc, Wall};
use crate::election::ids::{CandidateKey, Generation, IdFlaw, Revision, id_flaw};
use crate::election::record::{CandidateInfo, Cause, Cell, ControlRecord, GenerationRecord, Holder, QueueEntry};

/// Longer values are refused unread: ours take some hundred bytes, and a parser should not be fed whatever fits into etcd.
pub(super) const VALUE_LIMIT: usize = 64 * 1024;

/// The value of a generation key and of a history key.
#[derive(Serialize, Deserialize)]
struct GenerationDto {
    generation: u64,
    term: u64,
    // Required although it may be null: a record without it was not written by us.
    #[serde(deserialize_with = "Option::deserialize")]
    holder: Option<String>,
    url: String,
    key: String,
    created: i64,
    cause: String,
    elected_at: String,
    hlc: String,
    #[serde(default)]
    leaderless_ms: u64,
}

/// The value of a candidate's key.
#[derive(Serialize, Deserialize)]
struct CandidateDto {
    id: String,
    url: String,
    term: u64,
    priority: i32,
    version: String,
    // Present in the leader's: so `etcdctl elect --listen` shows the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

#[derive(Deserialize)]
struct ControlDto {
    paused: bool,
}

/// A key with its value, as etcd holds it. The client library's own type cannot be made by others, the fuzzers among them.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// The whole key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The lease it hangs on, or 0.
    pub lease: i64,
    /// `create_revision`.
    pub created: Revision,
    /// `mod_revision`.
    pub modified: Revision,
}

impl<'a> From<&'a KeyValue> for Stored<'a> {
    fn from(kv: &'a KeyValue) -> Self {
        Self {
            key: kv.key(),
            value: kv.value(),
            lease: kv.lease(),
            created: Revision(kv.create_revision()),
            modified: Revision(kv.mod_revision()),
        }
    }
}

/// The JSON of a generation record.
#[must_use]
pub fn encode_generation(record: &GenerationRecord) -> Vec<u8> {
    let holder = record.holder.as_ref();
    json(&GenerationDto {
        generation: record.generation.0,
        term: record.term,
        holder: holder.map(|h| h.id.clone()),
        url: holder.map(|h| h.url.clone()).unwrap_or_default(),
        key: holder.map(|h| h.key.suffix.clone()).unwrap_or_default(),
        created: holder.map_or(0, |h| h.key.created.0),
        cause: record.cause.as_str().to_owned(),
        elected_at: record.elected_at.rfc3339(),
        hlc: record.hlc.to_string(),
        leaderless_ms: record.leaderless_ms,
    })
}

/// A generation record, unless it is corrupt. History keys hold the same.
#[must_use]
pub fn decode_generation(value: &[u8]) -> Option<GenerationRecord> {
    let dto: GenerationDto = parse(value)?;
    let generation = Generation(dto.generation);
    // Without room above them they would end the election for good: nobody could be elected above the one, or not below the other.
    if generation > Generation::MAX || dto.term > Generation::MAX.0 {
        return None;
    }
    if dto.holder.as_deref().is_some_and(|id| id_flaw(id).is_some()) {
        return None;
    }
    let key = CandidateKey { suffix: dto.key, created: Revision(dto.created) };
    Some(GenerationRecord {
        generation,
        term: dto.term,
        holder: dto.holder.map(|id| Holder { id, url: dto.url, key }),
        cause: [Cause::Elected, Cause::HandedOver, Cause::Raised].into_iter().find(|c| c.as_str() == dto.cause)?,
        elected_at: parse_wall(&dto.elected_at)?,
        hlc: Hlc::parse(&dto.hlc)?,
        leaderless_ms: dto.leaderless_ms,
    })
}

/// Why a value is no generation record, in words for the log.
#[must_use]
pub fn why_no_generation(value: &[u8]) -> String {
    match parse::<GenerationDto>(value) {
        Some(GenerationDto { generation, .. }) if generation > Generation::MAX.0 => {
            format!("it claims generation {generation}, and only those below 2^62 count: above it there is no room")
        }
        Some(GenerationDto { term, .. }) if term > Generation::MAX.0 => {
            format!("it claims term {term}, and only those below 2^62 count")
        }
        Some(_) | None => "it is not written as Tenure writes one".to_owned(),
    }
}

/// The JSON of a candidate; with a generation where it leads.
#[must_use]
pub fn encode_candidate(info: &CandidateInfo, generation: Option<Generation>) -> Vec<u8> {
    json(&CandidateDto {
        id: info.id.clone(),
        url: info.url.clone(),
        term: info.term,
        priority: info.priority,
        version: info.version.clone(),
        generation: generation.map(|g| g.0),
    })
}

fn decode_candidate(value: &[u8]) -> Option<CandidateInfo> {
    let CandidateDto { id, url, term, priority, version, .. } = parse(value)?;
    id_flaw(&id).is_none().then_some(CandidateInfo { id, url, term, priority, version })
}

/// Why a value that looks like one of ours is none: its id is not one.
pub(super) fn odd_id(value: &[u8]) -> Option<(String, IdFlaw)> {
    let CandidateDto { id, .. } = parse(value)?;
    id_flaw(&id).map(|flaw| (id, flaw))
}

/// The generation cell of a read: at most one key.
#[must_use]
pub fn generation_cell(stored: Option<Stored<'_>>) -> Cell<GenerationRecord> {
    cell(stored, decode_generation)
}

/// The control cell of a read: at most one key.
#[must_use]
pub fn control_cell(stored: Option<Stored<'_>>) -> Cell<ControlRecord> {
    cell(stored, |value| parse::<ControlDto>(value).map(|dto| ControlRecord { paused: dto.paused }))
}

fn cell<T>(stored: Option<Stored<'_>>, decode: impl FnOnce(&[u8]) -> Option<T>) -> Cell<T> {
    let Some(Stored { value, modified, .. }) = stored else { return Cell::Absent };
    decode(value).map_or(Cell::Corrupt { modified }, |value| Cell::Valid { value, modified })
}

/// One key of the queue. A candidate is ours only if its value says so *and* its key is named after its lease, so that nobody
/// is named successor whose key would outlive him.
#[must_use]
pub fn queue_entry(keys: &Keys, stored: Stored<'_>) -> Option<QueueEntry> {
    let Stored { key, value, lease, created, .. } = stored;
    let suffix = keys.suffix(key)?;
    let candidate = (lease > 0 && suffix == format!("{lease:x}")).then(|| decode_candidate(value));
    Some(QueueEntry { key: CandidateKey { suffix, created }, lease, candidate: candidate.flatten() })
}

/// Writing these types cannot fail: they hold no maps with odd keys and no floats.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Option<T> {
    // serde would also take a list of the members' values for the object.
    let ours = value.len() <= VALUE_LIMIT && value.trim_ascii_start().starts_with(b"{");
    // And from bytes it would pass over what is no text in members that we do not know.
    let text = std::str::from_utf8(value).ok().filter(|_| ours)?;
    serde_json::from_str(text).ok()
}

fn parse_wall(text: &str) -> Option<Wall> {
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok().map(Wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::HlcClock;

    fn record() -> GenerationRecord {
        GenerationRecord {
            generation: Generation(42),
            term: 7,
            holder: Some(Holder {
                id: "pod-0".into(),
                url: "http://10.0.0.5:4790".into(),
                key: CandidateKey { suffix: "694d81ce".into(), created: Revision(17) },
            }),
            cause: Cause::HandedOver,
            elected_at: Wall(1_760_000_000_123),
            hlc: HlcClock::default().tick(Wall(1_760_000_000_123)),
            leaderless_ms: 12,
        }
    }

    #[test]
    fn a_generation_record_survives_the_way_through_etcd() {
        for record in [record(), GenerationRecord { holder: None, cause: Cause::Raised, ..record() }] {
            assert_eq!(decode_generation(&encode_generation(&record)), Some(record));
        }
    }

    #[test]
    fn what_is_not_exactly_a_record_is_corrupt() {
        let good: serde_json::Value = serde_json::from_slice(&encode_generation(&record())).expect("own JSON");
        let with = |key: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            changed[key] = value;
            serde_json::to_vec(&changed).expect("JSON")
        };
        assert!(decode_generation(&with("unknown", "field".into())).is_some(), "later versions may add fields");
        let largest = with("generation", serde_json::json!((1_u64 << 62) - 1));
        assert!(decode_generation(&largest).is_some_and(|r| r.generation == Generation::MAX));
        assert!(why_no_generation(&with("generation", serde_json::json!(1_u64 << 62))).contains("4611686018427387904"));
        assert!(why_no_generation(b"[1]").contains("not written as Tenure"));
        for (key, value) in [
            ("generation", serde_json::json!(u64::MAX)),
            ("generation", serde_json::json!(i64::MAX)),
            ("generation", serde_json::json!(1_u64 << 62)),
            ("term", serde_json::json!(u64::MAX)),
            ("term", serde_json::json!(1_u64 << 62)),
            ("generation", serde_json::json!(-1)),
            ("generation", serde_json::json!(1.5)),
            ("generation", serde_json::json!("42")),
            ("term", serde_json::json!(null)),
            ("cause", serde_json::json!("coup")),
            ("elected_at", serde_json::json!("yesterday")),
            ("hlc", serde_json::json!("")),
            ("url", serde_json::json!("x".repeat(VALUE_LIMIT))),
            ("holder", serde_json::json!("pod\u{200b}0")),
            ("holder", serde_json::json!("")),
        ] {
            assert_eq!(decode_generation(&with(key, value.clone())), None, "{key}: {value}");
        }
        let required = ["generation", "term", "holder", "url", "key", "created", "cause", "elected_at", "hlc"];
        for key in required {
            let mut changed = good.clone();
            changed.as_object_mut().expect("object").remove(key);
            assert_eq!(decode_generation(&serde_json::to_vec(&changed).expect("JSON")), None, "without {key}");
        }
        let list: Vec<_> = good.as_object().expect("object").values().collect();
        assert_eq!(decode_generation(&serde_json::to_vec(&list).expect("JSON")), None, "a list of the values");
        for garbage in [&b""[..], b"null", b"42", b"\xff\xfe", b"[[[[[[", br#"{"generation":1,"generation":2}"#] {
            assert_eq!(decode_generation(garbage), None);
        }
    }
}
