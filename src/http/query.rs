//! Query strings.

use std::time::Duration;

/// The part of a request's target after `?`. Names that nobody asks for are ignored: proxies pass on what clients sent.
#[derive(Clone, Debug, Default)]
pub struct Query(String);

impl Query {
    /// From the raw text, without its `?`.
    pub const fn new(raw: String) -> Self {
        Self(raw)
    }

    /// The raw text.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// The first value of that name, decoded; empty for a bare name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }

    /// A switch: absent is off, a bare name is on.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn switch(&self, name: &str) -> Result<bool, String> {
        match self.get(name).as_deref() {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(format!("`{name}` is `true` or `false`")),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let digits = |v: &str| v.bytes().all(|b| b.is_ascii_digit()).then(|| v.parse().ok()).flatten();
        self.get(name).map(|v| digits(&v).ok_or_else(|| format!("`{name}` is a whole number"))).transpose()
    }

    /// A duration with its unit.
    ///
    /// # Errors
    /// Says what would be accepted.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, String> {
        let parse = |v: &str| humantime::parse_duration(v).ok();
        self.get(name).map(|v| parse(&v).ok_or_else(|| format!("`{name}` is a duration with a unit: 30s"))).transpose()
    }
}

/// Undoes percent-encoding. What is no encoding stays as it is, and what is no UTF-8 is replaced: neither matches anything.
pub fn decode(text: &str) -> String {
    let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_typed() {
        let q = Query::new("election=a%2Db+c&verbose&limit=7&wait=1m&bad=%zz%f&n=18446744073709551616".to_owned());
        assert_eq!(q.get("election").as_deref(), Some("a-b c"));
        assert_eq!((q.switch("verbose"), q.switch("none")), (Ok(true), Ok(false)));
        assert_eq!((q.number("limit"), q.number("none")), (Ok(Some(7)), Ok(None)));
        assert_eq!(q.duration("wait"), Ok(Some(Duration::from_mins(1))));
        assert_eq!(q.get("bad").as_deref(), Some("%zz%f"));
        assert!(q.number("n").is_err() && q.number("bad").is_err() && q.duration("limit").is_err());
        assert!(q.switch("limit").is_err() && Query::new("n=+7".to_owned()).number("n").is_err());
    }
}
