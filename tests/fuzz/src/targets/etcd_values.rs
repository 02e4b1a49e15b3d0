//! Values in etcd, where others may write too: the generation and history records, the control record, candidates, and the
//! names of their keys.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tenure::election::ids::{Generation, Revision};
use tenure::election::record::{Cell, GenerationRecord};
use tenure::etcd::codec::{self, Stored};
use tenure::etcd::keys::Keys;

const MODIFIED: Revision = Revision(7);

/// The same bytes as the value of each kind of key, and as a key. What is an object is read again with one field spoilt.
pub fn run(data: &[u8]) {
    read(data);
    name(data);
    if let Ok(Value::Object(fields)) = serde_json::from_slice(data) {
        spoil(&fields, data);
    }
}

fn stored<'a>(key: &'a [u8], value: &'a [u8], lease: i64) -> Stored<'a> {
    Stored { key, value, lease, created: Revision(5), modified: MODIFIED }
}

fn read(value: &[u8]) {
    let object = look(value);
    let generation = codec::generation_cell(Some(stored(b"", value, 0)));
    judge("generation", &generation, is(&object, is_generation));
    if let Cell::Valid { value: record, .. } = &generation {
        survives(record);
    }
    assert_eq!(codec::decode_generation(value).as_ref(), generation.value(), "a history record is read alike");
    let control = codec::control_cell(Some(stored(b"", value, 0)));
    judge("control", &control, is(&object, |fields| fields.get("paused").is_some_and(Value::is_boolean)));
    candidate(value, &object);
}

/// What an independent look at a value makes of it.
enum Look {
    Object(Map<String, Value>),
    /// JSON, but with a member too deep or a number too large for this look: they may be in members that nobody reads.
    Unclear,
    Other,
}

fn look(value: &[u8]) -> Look {
    let Ok(text) = std::str::from_utf8(value) else { return Look::Other };
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Look::Object(fields),
        Err(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Look::Unclear,
        Ok(_) | Err(_) => Look::Other,
    }
}

fn is(object: &Look, fits: impl Fn(&Map<String, Value>) -> bool) -> bool {
    match object {
        Look::Object(fields) => fits(fields),
        Look::Unclear => true,
        Look::Other => false,
    }
}

/// Valid only where an independent look at the JSON agrees; it knows nothing of times, so the other way round it may be wrong.
fn judge<T: std::fmt::Debug>(kind: &str, cell: &Cell<T>, plausible: bool) {
    assert_eq!(cell.modified(), MODIFIED);
    match cell {
        Cell::Absent => panic!("{kind}: there is a value"),
        Cell::Valid { value, .. } => assert!(plausible, "{kind}: accepted as {value:?}"),
        Cell::Corrupt { .. } => {}
    }
}

fn is_generation(fields: &Map<String, Value>) -> bool {
    let text = |name: &str| fields.get(name).is_some_and(Value::is_string);
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    number("generation").is_some_and(|generation| generation <= Generation::MAX.0)
        && number("term").is_some_and(|term| term <= Generation::MAX.0)
        && fields.get("holder").is_some_and(|holder| holder.is_string() || holder.is_null())
        && fields.get("created").is_some_and(Value::is_i64)
        && ["url", "key", "cause", "elected_at", "hlc"].into_iter().all(text)
}

fn survives(record: &GenerationRecord) {
    let written = codec::encode_generation(record);
    assert_eq!(codec::decode_generation(&written).as_ref(), Some(record), "{}", String::from_utf8_lossy(&written));
}

fn candidate(value: &[u8], object: &Look) {
    let keys = Keys::new("/tenure", "orders");
    let entry = |name: &str, lease: i64| {
        let key = format!("/tenure/elections/orders/{name}");
        codec::queue_entry(&keys, stored(key.as_bytes(), value, lease)).expect("a key of the queue")
    };
    for (name, lease) in [("2a", 43), ("2a", 0), ("02a", 42), ("ffffffffffffffff", -1), ("", 42)] {
        assert_eq!(entry(name, lease).candidate, None, "{name} hangs on {lease:x}");
    }
    let Some(info) = entry("2a", 42).candidate else { return };
    let says = |fields: &Map<String, Value>| fields.get("id").and_then(Value::as_str) == Some(&info.id);
    assert!(is(object, says), "a candidate is an object that says who it is: {info:?}");
    for generation in [None, Some(Generation::MAX)] {
        let written = codec::encode_candidate(&info, generation);
        let key = b"/tenure/elections/orders/2a";
        let read = codec::queue_entry(&keys, stored(key, &written, 42)).and_then(|entry| entry.candidate);
        assert_eq!(read.as_ref(), Some(&info));
    }
}

/// Any bytes may be a key of the queue, and are named such that the very key is found again.
fn name(bytes: &[u8]) {
    let keys = Keys::new("/tenure", "orders");
    let key = [&b"/tenure/elections/orders/"[..], bytes].concat();
    let suffix = keys.suffix(&key).expect("a key of the queue");
    assert_eq!(keys.candidate(&suffix), key, "{suffix:?}");
    let record = [&b"/tenure/history/orders/"[..], bytes].concat();
    if keys.is_record(&record) {
        // Twenty digits may be more than any generation.
        let number = std::str::from_utf8(bytes).expect("digits").parse();
        assert!(number.is_err() || number.is_ok_and(|number| keys.record(Generation(number)) == record));
    }
}

/// Takes one field out, or gives it another value. Which one follows from the bytes, so that an input always means the same.
fn spoil(fields: &Map<String, Value>, data: &[u8]) {
    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
    names.extend(["generation", "holder", "created", "paused", "priority"]);
    let sum = data.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let name = names[sum % names.len()];
    let values = [
        Value::Null,
        json!(u64::MAX),
        json!(Generation::MAX.0),
        json!(Generation::MAX.0 + 1),
        json!(i64::MIN),
        json!(-1),
        json!(1.5),
        json!(true),
        json!("1"),
        json!("9999-12-31T23:59:60.999999999Z+ffffffff"),
        json!([]),
        json!({}),
    ];
    for value in values {
        let mut changed = fields.clone();
        changed.insert(name.to_owned(), value);
        read(&serde_json::to_vec(&changed).expect("JSON"));
    }
    let mut changed = fields.clone();
    changed.remove(name);
    read(&serde_json::to_vec(&changed).expect("JSON"));
    let members: Vec<_> = fields.values().cloned().collect();
    read(&serde_json::to_vec(&members).expect("JSON"));
}
