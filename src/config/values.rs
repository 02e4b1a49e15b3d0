//! Single values: text → typed, and what to say when that fails.

use std::path::PathBuf;
use std::time::Duration;

use super::node::{Scalar, Shape, printable};
use crate::election::ids::{ID_LENGTH, id_flaw};

/// The value, or what is wrong with it and what would be accepted.
pub(super) type Parsed<T> = Result<T, String>;

/// A quotation of the value for a message.
pub(super) fn quoted(scalar: &Scalar) -> String {
    format!("`{}`", printable(&scalar.shown))
}

/// A text that is not empty and holds no control characters.
pub(super) fn text(scalar: &Scalar) -> Parsed<String> {
    let text = scalar.text.as_str();
    match scalar.shape() {
        Shape::Number => {
            return Err(format!("a number where a text belongs; accepted: quotes around it: \"{}\"", printable(text)));
        }
        Shape::Bool => return Err(format!("a boolean where a text belongs; accepted: quotes around it: \"{text}\"")),
        Shape::Text => {}
    }
    if text.trim().is_empty() {
        return Err("an empty text; accepted: something, or leave the key out".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("control characters (line breaks too) have no place here".to_owned());
    }
    Ok(text.to_owned())
}

/// A candidate's id.
pub(super) fn identity(scalar: &Scalar) -> Parsed<String> {
    // Numbers and booleans need quotes of YAML's own, as everywhere; all else is one rule.
    let id = text(scalar)?;
    match id_flaw(&id) {
        None => Ok(id),
        Some(flaw) => Err(format!(
            "{} is no id: {flaw}; accepted: up to {ID_LENGTH} visible characters, without white space and quotation marks",
            quoted(scalar)
        )),
    }
}

/// The user name of etcd: printable, without white space, at most 253 bytes.
pub(super) fn username(scalar: &Scalar) -> Parsed<String> {
    let name = text(scalar)?;
    if name.len() > 253 || name.chars().any(char::is_whitespace) {
        return Err(format!(
            "{} is no user name; accepted: up to 253 printable characters without white space",
            quoted(scalar)
        ));
    }
    Ok(name)
}

/// A path.
pub(super) fn path(scalar: &Scalar) -> Parsed<PathBuf> {
    text(scalar).map(PathBuf::from)
}

/// `true` or `false`.
pub(super) fn boolean(scalar: &Scalar) -> Parsed<bool> {
    match scalar.text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{} is no boolean; accepted: true, false", quoted(scalar))),
    }
}

/// A whole number within bounds.
pub(super) fn integer(scalar: &Scalar, least: i64, most: i64) -> Parsed<i64> {
    let number = scalar.text.parse::<i64>().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| format!("{} is out of range or no whole number; accepted: {least} to {most}", quoted(scalar)))
}

/// One of a few words.
pub(super) fn word<T: Copy>(scalar: &Scalar, words: &[(&str, T)]) -> Parsed<T> {
    let found = words.iter().find(|(word, _)| *word == scalar.text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let near = super::keys::nearest(&scalar.text.to_lowercase(), all.iter().copied());
        let hint = near.map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
        format!("{} is unknown here; {hint}accepted: {}", quoted(scalar), all.join(", "))
    })
}

/// A duration within bounds, such as `10s`.
pub(super) fn duration(scalar: &Scalar, least: Duration, most: Duration) -> Parsed<Duration> {
    let accepted = "accepted: a whole number and a unit, such as 10s or 250ms";
    let duration = parse_duration(&scalar.text).map_err(|what| {
        // What is wrong may quote a part of the text.
        if scalar.is_as_written() {
            format!("{}: {what}", quoted(scalar))
        } else {
            format!("{} is no duration; {accepted}", quoted(scalar))
        }
    })?;
    if duration < least || duration > most {
        let (least, most) = (duration_text(least), duration_text(most));
        return Err(format!("{} is out of range; accepted: {least} to {most}", quoted(scalar)));
    }
    Ok(duration)
}

/// Units of durations, in nanoseconds.
const UNITS: [(&str, u64); 4] =
    [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// Reads a duration as the configuration writes it: `250ms`, `10s`, `5m`, `1h`.
///
/// # Errors
/// What is wrong, and what would be accepted.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    if number.is_empty() {
        return Err("no duration; accepted: a whole number and a unit, such as 10s or 250ms".to_owned());
    }
    if unit.is_empty() {
        return Err(format!("a duration needs a unit: {number}s"));
    }
    if unit.starts_with('.') {
        return Err("a duration is a whole number and a unit; accepted: 1500ms for one and a half seconds".to_owned());
    }
    let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{}` is no unit of time; accepted: ms, s, m, h", printable(unit)));
    };
    let nanos = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*nanos));
    nanos.map(Duration::from_nanos).ok_or_else(|| "too long a duration".to_owned())
}

/// Writes a duration as [`parse_duration`] reads it, in the largest unit that loses nothing down to a millisecond.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// A share such as `1%` or `0.5%`, in parts per million.
pub(super) fn share(scalar: &Scalar) -> Parsed<u32> {
    let accepted = "accepted: a percentage from 0% to 20%, such as 1% or 0.5%";
    let Some(number) = scalar.text.strip_suffix('%') else {
        return Err(format!("{} has no percent sign; {accepted}", quoted(scalar)));
    };
    // In text rather than floating point: 0.07 % is 700 ppm and not 699.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |t: &str| !t.is_empty() && t.len() <= 4 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!("{} is no percentage; {accepted}", quoted(scalar)));
    }
    format!("{whole}{fraction:0<4}").parse().map_err(|_| format!("{} is no percentage; {accepted}", quoted(scalar)))
}

/// Units of sizes.
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A size such as `64MiB`, within bounds.
pub(super) fn size(scalar: &Scalar, least: u64, most: u64) -> Parsed<u64> {
    let (number, unit) = split_unit(&scalar.text);
    let accepted = "accepted: a whole number and one of B, KiB, MiB, GiB";
    if number.is_empty() || (!scalar.is_as_written() && !SIZES.iter().any(|(name, _)| *name == unit)) {
        return Err(format!("{} is no size; {accepted}", quoted(scalar)));
    }
    if unit.is_empty() {
        return Err(format!("{}: a size needs a unit: 64MiB", quoted(scalar)));
    }
    let Some((_, factor)) = SIZES.iter().find(|(name, _)| *name == unit) else {
        let first = unit.chars().next().map(|c| c.to_ascii_uppercase());
        let near = SIZES.iter().skip(1).find(|(name, _)| name.chars().next() == first);
        let hint = near.map(|(name, _)| format!("did you mean `{number}{name}`? ")).unwrap_or_default();
        return Err(format!("`{}` is no unit of size; {hint}{accepted}", printable(unit)));
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
    bytes.filter(|b| (least..=most).contains(b)).ok_or_else(|| {
        format!("{} is out of range; accepted: {} to {}", quoted(scalar), size_text(least), size_text(most))
    })
}

/// Writes a size as [`size`] reads it.
pub(super) fn size_text(bytes: u64) -> String {
    let fits = SIZES.iter().rev().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    fits.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::super::node::Kind;
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.to_owned(), shown: text.to_owned(), kind: Kind::Plain }
    }

    #[test]
    fn durations_round_trip_and_refuse_what_has_no_unit() {
        for text in ["0s", "250ms", "10s", "5m", "1h", "90s", "1500ms"] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), Ok(text));
        }
        assert_eq!(parse_duration("10"), Err("a duration needs a unit: 10s".to_owned()));
        for bad in ["", "s", "-1s", "1.5s", "10 s", "10sec", "99999999999999999h", "1m30s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_exact_in_parts_per_million() {
        for (text, ppm) in [("1%", 10_000), ("0.07%", 700), ("0.0001%", 1), ("20%", 200_000), ("0%", 0)] {
            assert_eq!(share(&plain(text)), Ok(ppm), "{text}");
        }
        for bad in ["1", "%", "1,5%", "-1%", ".5%", "1.%", "0.00001%", "1 %"] {
            assert!(share(&plain(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size(&plain("64MiB"), 1, u64::MAX), Ok(64 << 20));
        assert_eq!(size_text(64 << 20), "64MiB");
        assert_eq!(size_text(1_000), "1000B");
        for bad in ["64", "64M", "64mb", "MiB", "1TiB", "99999999999GiB"] {
            assert!(size(&plain(bad), 1, 1 << 40).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_no_texts_unless_quoted() {
        for bad in ["5", "-1.5", "0x1f", "true", ".5", "1e3", " "] {
            assert!(text(&plain(bad)).is_err(), "{bad}");
            assert!(bad == " " || text(&Scalar { kind: Kind::Quoted, ..plain(bad) }).is_ok(), "{bad}");
        }
        for good in ["orders", "5s", "pod-0", "-", "nan", "inf", "v1.2.3"] {
            assert!(text(&plain(good)).is_ok(), "{good}");
        }
    }
}
