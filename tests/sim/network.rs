//! What becomes of a message: a function of the seed and of the message's name, and of nothing else.

use super::plan::{MS, Net, Plan};
use crate::election::event::Output;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// On the way to etcd, and back.
    pub(super) out: u64,
    pub(super) back: u64,
    pub(super) lost: bool,
    pub(super) answer_lost: bool,
    /// A copy arrives so much later.
    pub(super) copy: Option<u64>,
}

/// What becomes of a watch event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) after: u64,
    pub(super) broken: bool,
    pub(super) silent: bool,
}

/// How many kinds of requests there are.
pub(super) const REQUESTS: usize = 9;

/// The kind of a request, as a number.
pub(super) fn kind(output: &Output) -> usize {
    match output {
        Output::Grant { .. } => 0,
        Output::KeepAlive { .. } => 1,
        Output::Confirm { .. } => 2,
        Output::Revoke { .. } => 3,
        Output::Look { .. } => 4,
        Output::Feel { .. } => 5,
        Output::Queue { .. } => 6,
        Output::Elect { .. } => 7,
        _ => 8,
    }
}

/// Numbers that look random, the same for the same name. `salt` keeps the uses apart.
pub(super) const fn mix(seed: u64, salt: u64, a: u64, b: u64) -> u64 {
    let mut z = seed ^ salt.rotate_left(56) ^ a.rotate_left(40) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next byte of such a number, against a share of 256.
const fn falls(bits: &mut u64, share: u8) -> bool {
    let byte = *bits & 0xff;
    *bits >>= 8;
    byte < share as u64
}

impl Plan {
    /// Of the `count`th request of this kind of daemon `n`. In a calm nothing is slow, lost or doubled.
    pub(super) fn fate(&self, n: usize, kind: usize, count: u32, calm: bool) -> Fate {
        let mut bits = mix(self.seed, 1, (n * REQUESTS + kind) as u64, u64::from(count));
        let times = mix(self.seed, 2, (n * REQUESTS + kind) as u64, u64::from(count));
        let net = if calm { Net::default() } else { self.net };
        let (slow, slow_back) = (falls(&mut bits, net.slow), falls(&mut bits, net.slow));
        let (lost, answer_lost, late) =
            (falls(&mut bits, net.lost), falls(&mut bits, net.lost), falls(&mut bits, net.late));
        Fate {
            out: net.travel(slow, times),
            back: net.travel(slow_back, times >> 20),
            lost,
            answer_lost,
            copy: late.then(|| (times >> 40) % if times >> 62 == 0 { 8_000 } else { 1_500 } * MS),
        }
    }

    /// Of the event of this revision on its way to daemon `n`.
    pub(super) fn delivery(&self, n: usize, revision: i64, calm: bool) -> Delivery {
        let mut bits = mix(self.seed, 3, n as u64, revision.unsigned_abs());
        let net = if calm { Net::default() } else { self.net };
        let slow = falls(&mut bits, net.slow);
        let (broken, silent) = (falls(&mut bits, net.broken), falls(&mut bits, net.silent));
        Delivery { after: net.travel(slow, bits), broken, silent }
    }
}

impl Net {
    /// 0.1 to 4 ms, or up to `slow_ms`.
    const fn travel(&self, slow: bool, bits: u64) -> u64 {
        if slow { (1 + bits % (self.slow_ms as u64 + 1)) * MS } else { (1 + bits % 40) * MS / 10 }
    }
}
