//! One network namespace for each member and each daemon, with a router between them that can drop, refuse or divert.
//!
//! No packet filter and no queueing discipline is asked of the kernel, only policy routing: a cut is an `ip rule` of the
//! router for packets from one address to another. So it works in one direction at a time, silently as in a real
//! network, and on connections that exist as well as on new ones. Two namespaces are there for diverted packets:
//! `rst` takes every address for its own and has no listener, so it answers with a TCP reset in the other's name;
//! `slow` does the same and has a listener (`link.rs`), which reads from its own socket where the client wanted to go.

use std::fs;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::place::PREFIX;
use super::sys::{Context, Done, tool};

/// A namespace with its address.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    number: u8,
}

/// What becomes of the packets of a cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// Nothing, and nobody hears of it.
    BlackHole,
    /// The router says that there is no way (ICMP).
    Unreachable,
    /// A TCP reset: refused if new, broken off if not.
    Reset,
    /// They go by way of the slow and lossy proxy.
    Slow,
}

/// The rules of the router that make up a fault.
#[derive(Debug, Default)]
pub struct Cuts(Vec<u32>);

/// All namespaces. They go with [`super::place::Place`].
pub struct Net {
    pub members: Vec<Node>,
    pub daemons: Vec<Node>,
    pub register: Node,
    pub slow: Node,
    next_rule: u32,
}

const RST_TABLE: &str = "141";
const SLOW_TABLE: &str = "142";

impl Node {
    fn new(name: &str, number: u8) -> Self {
        Self { name: name.to_owned(), number }
    }

    pub fn address(&self) -> String {
        format!("10.99.{}.2", self.number)
    }

    /// Where the slow proxy reaches it: its own namespace takes [`Node::address`] for itself.
    pub fn back_door(address: &str) -> String {
        format!("{}.3", address.rsplit_once('.').map_or(address, |(net, _)| net))
    }

    /// Runs in this namespace, and dies with us even if we are killed. The process id is the program's: all of these
    /// replace themselves.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter", &format!("--net=/run/netns/{PREFIX}{}", self.name)]);
        command.arg(program);
        command
    }

    fn namespace(&self) -> String {
        format!("{PREFIX}{}", self.name)
    }

    /// `ip -n` for this namespace.
    fn ip(&self, line: &str) -> Done<String> {
        ip(&format!("-n {} {line}", self.namespace()))
    }
}

impl Net {
    /// Makes all namespaces and moves this thread, and with it all that it will start, into the router's.
    pub fn build(members: usize, daemons: usize) -> Done<Self> {
        let router = Node::new("router", 0);
        ip(&format!("netns add {}", router.namespace()))?;
        enter(&router)?;
        write("/proc/sys/net/ipv4/ip_forward", "1")?;
        // Strict return paths would drop what a diverting namespace answers in another's name.
        for group in ["all", "default"] {
            write(&format!("/proc/sys/net/ipv4/conf/{group}/rp_filter"), "0")?;
            write(&format!("/proc/sys/net/ipv4/conf/{group}/send_redirects"), "0")?;
        }
        let numbered = |kind: &str, first: u8, count: usize| -> Vec<Node> {
            (first..).take(count).enumerate().map(|(n, number)| Node::new(&format!("{kind}{n}"), number)).collect()
        };
        let net = Self {
            members: numbered("m", 11, members),
            daemons: numbered("d", 21, daemons),
            register: Node::new("register", 31),
            slow: Node::new("slow", 42),
            next_rule: 1_000,
        };
        let rst = Node::new("rst", 41);
        let ends: Vec<_> = net.members.iter().chain(&net.daemons).chain([&net.register]).cloned().collect();
        for node in ends.iter().chain([&net.slow, &rst]) {
            join(node)?;
        }
        for (node, table) in [(&rst, RST_TABLE), (&net.slow, SLOW_TABLE)] {
            ip(&format!("route add default via {} table {table}", node.address()))?;
            for end in &ends {
                node.ip(&format!("route add local {}/32 dev lo", end.address()))?;
            }
        }
        Ok(net)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: &Node, to: &Node, cut: Cut, cuts: &mut Cuts) -> Done {
        let action = match cut {
            Cut::BlackHole => "blackhole".to_owned(),
            Cut::Unreachable => "unreachable".to_owned(),
            Cut::Reset => format!("lookup {RST_TABLE}"),
            Cut::Slow => format!("lookup {SLOW_TABLE}"),
        };
        // A number of its own for each rule, so that two faults may cut the same way and each takes back its own.
        self.next_rule += 1;
        // By the cable it comes in on: what a diverting namespace answers in another's name is not meant.
        let (rule, cable, from, to) = (self.next_rule, &from.name, from.address(), to.address());
        ip(&format!("rule add pref {rule} iif {cable} from {from} to {to} {action}"))?;
        cuts.0.push(self.next_rule);
        Ok(())
    }

    /// Cuts both directions.
    pub fn sever(&mut self, a: &Node, b: &Node, cut: Cut, cuts: &mut Cuts) -> Done {
        self.cut(a, b, cut, cuts)?;
        self.cut(b, a, cut, cuts)
    }
}

impl Cuts {
    pub fn heal(self) -> Done {
        for rule in self.0 {
            ip(&format!("rule del pref {rule}"))?;
        }
        Ok(())
    }
}

/// A namespace and its cable to the router.
fn join(node: &Node) -> Done {
    let (space, name, number) = (node.namespace(), &node.name, node.number);
    ip(&format!("netns add {space}"))?;
    ip(&format!("link add {name} type veth peer name eth0 netns {space}"))?;
    ip(&format!("addr add 10.99.{number}.1/24 dev {name}"))?;
    ip(&format!("link set {name} up"))?;
    node.ip("link set lo up")?;
    for address in [node.address(), Node::back_door(&node.address())] {
        node.ip(&format!("addr add {address}/24 dev eth0"))?;
    }
    node.ip("link set eth0 up")?;
    node.ip(&format!("route add default via 10.99.{number}.1"))?;
    Ok(())
}

/// Only this thread moves; it is the one that starts all others, which follow.
fn enter(node: &Node) -> Done {
    let path = format!("/run/netns/{}", node.namespace());
    let file = fs::File::open(&path).context(|| path.clone())?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).context(|| path.clone())
}

fn write(path: &str, text: &str) -> Done {
    fs::write(path, text).context(|| path.to_owned())
}

fn ip(line: &str) -> Done<String> {
    tool("ip", &line.split(' ').collect::<Vec<_>>())
}
