//! The files of TLS, judged before anything is contacted: what is of no use is an error of the configuration at its place.

use std::path::Path;
use std::time::Duration;

use super::report::{Place, Problem};
use super::walk::{Section, Walk};
use super::{Config, files};
use crate::tls::{Files, Part, Side};

/// Reads the files as the daemon will. `keys` names those of the trusted, of the certificate and of its key.
pub(super) fn judge(walk: &mut Walk, section: &Section, files: &Files, keys: [&str; 3]) {
    let Err(problems) = files.read().material() else { return };
    for problem in problems.0 {
        let key = keys[problem.part as usize];
        // One that cannot be read has been complained of.
        if files::read(&problem.path).is_ok_and(|bytes| !bytes.is_empty()) {
            walk.complain(section.place(key), section.key(key), problem.to_string());
        }
    }
}

/// What is wrong with the configured certificates at `now`, counted from 1970, or will be within `soon`: first what stands
/// against running with them. Time passes between a check and a start, so this is no error of the configuration itself.
#[must_use]
pub fn certificates(config: &Config, file: Option<&Path>, now: Duration, soon: Duration) -> [Vec<Problem>; 2] {
    let place = file.map_or(Place::NoFile, |file| Place::File(file.display().to_string().into()));
    let etcd = config.etcd.tls.as_ref().map(|tls| (tls.files(), Side::Client, "etcd.tls", "ca_file"));
    let http = config.http.tls.as_ref().map(|tls| (tls.files(), Side::Server, "http.tls", "client_ca_file"));
    let mut sorted = [Vec::new(), Vec::new()];
    for (files, side, section, trusted) in etcd.into_iter().chain(http) {
        let Ok(material) = files.read().material() else { continue };
        for complaint in material.complaints(side, now, soon) {
            let name = match complaint.problem.part {
                Part::Trusted => trusted,
                Part::Cert => "cert_file",
                Part::Key => "key_file",
            };
            let (key, what) = (format!("{section}.{name}"), complaint.problem.to_string());
            sorted[usize::from(!complaint.serious)].push(Problem { place: place.clone(), key, what });
        }
    }
    sorted
}
