//! What everything here stands on: errors as text, processes, tools, patience that ends with SIGINT, one small HTTP client.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What went wrong, in words: nothing here can do more about it than say so.
pub type Done<T = ()> = Result<T, String>;

/// Set by SIGINT and SIGTERM. Every wait asks, so that a run unwinds through its guards instead of ending where it is.
static STOP: AtomicBool = AtomicBool::new(false);

const SLICE: Duration = Duration::from_millis(20);

/// Puts what was being done before the error.
pub trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Done<T>;
}

impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Done<T> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}

/// From here on the two signals only set [`STOP`].
pub fn catch_signals() -> Done {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context(|| "runtime".to_owned())?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "SIGINT".to_owned())?;
    let mut terminate = signal(SignalKind::terminate()).context(|| "SIGTERM".to_owned())?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            STOP.store(true, Ordering::Relaxed);
            eprintln!("interrupted: cleaning up");
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

/// Sleeps, unless the run was interrupted.
pub fn pause(span: Duration) -> Done {
    let end = Instant::now() + span;
    loop {
        if STOP.load(Ordering::Relaxed) {
            return Err("interrupted".to_owned());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(SLICE));
    }
}

/// Looks again and again until there is something, for so long at most.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Done<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(format!("waited {limit:?} for: {what}"));
        }
        pause(SLICE)?;
    }
}

/// Tries again and again until it succeeds, for so long at most; the error is that of the last try.
pub fn succeeds<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Done<T>) -> Done<T> {
    let mut said = String::new();
    until(what, limit, || attempt().map_err(|error| said = error).ok()).map_err(|error| format!("{error}: {said}"))
}

/// Runs a tool to its end, 15 s at most, and returns what it printed.
pub fn tool(program: &str, args: &[&str]) -> Done<String> {
    finish(&format!("{program} {}", args.join(" ")), bounded(program, "15").args(args), b"")
}

/// A command under timeout(1), which every Debian has: its own limit is then the only one to wait for.
pub fn bounded(program: impl AsRef<std::ffi::OsStr>, seconds: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", seconds]).arg(program);
    command
}

/// Runs to its end with this on its standard input; the error is the last line that it wrote.
pub fn finish(what: &str, command: &mut Command, input: &[u8]) -> Done<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(|| what.to_owned())?;
    let mut pipe = child.stdin.take().expect("it was asked for");
    // It may end without having read: its status says more than the broken pipe.
    let _ = pipe.write_all(input);
    drop(pipe);
    let output = child.wait_with_output().context(|| what.to_owned())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stdout) + &text(&output.stderr);
    Err(format!("{what}: {}: {}", output.status, said.lines().last().unwrap_or_default()))
}

/// One long-lived process; it is killed when the handle is dropped.
pub struct Proc {
    pub name: String,
    child: Child,
}

impl Proc {
    /// Starts it in a process group of its own, so that Ctrl-C in a terminal is ours alone; it writes to `log`.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Done<Self> {
        let file = File::options().create(true).append(true).open(log).context(|| log.display().to_string())?;
        let second = file.try_clone().context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(file).stderr(second).process_group(0);
        let child = command.spawn().context(|| format!("{command:?}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&mut self, signal: Signal) -> Done {
        if let Some(status) = self.ended() {
            return Err(format!("{} has ended by itself with {status}", self.name));
        }
        // Not waited for, so the number still means our process.
        kill_process(Pid::from_child(&self.child), signal).context(|| format!("signal {}", self.name))
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self, limit: Duration) -> Done<ExitStatus> {
        let what = format!("{} ends", self.name);
        until(&what, limit, || self.ended())
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself; either way nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where HTTP is spoken.
#[derive(Clone, Debug)]
pub enum Peer {
    Tcp(String),
    Unix(PathBuf),
}

impl Peer {
    /// Status and body. HTTP/1.0, so that the end of the connection is the end of the body.
    pub fn ask(&self, method: &str, path: &str, body: &str, limit: Duration) -> Done<(u16, Value)> {
        let text = self.exchange(method, path, body, limit)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("{self:?}: no HTTP: {text:?}"))?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| format!("{self:?}: no status in {head:?}"))?;
        Ok((status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }

    pub fn get(&self, path: &str) -> Done<(u16, Value)> {
        self.ask("GET", path, "", Duration::from_millis(500))
    }

    fn exchange(&self, method: &str, path: &str, body: &str, limit: Duration) -> Done<String> {
        let length = body.len();
        let kind = "Content-Type: application/json";
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut answer = String::new();
        match self {
            Self::Tcp(address) => {
                let address = address.parse().context(|| address.clone())?;
                let mut stream = TcpStream::connect_timeout(&address, limit).context(|| format!("{self:?}"))?;
                stream.set_read_timeout(Some(limit)).context(|| format!("{self:?}"))?;
                stream.write_all(request.as_bytes()).context(|| format!("{self:?}"))?;
                stream.read_to_string(&mut answer).context(|| format!("{self:?}"))?;
            }
            Self::Unix(path) => {
                let mut stream = UnixStream::connect(path).context(|| format!("{self:?}"))?;
                stream.set_read_timeout(Some(limit)).context(|| format!("{self:?}"))?;
                stream.write_all(request.as_bytes()).context(|| format!("{self:?}"))?;
                stream.read_to_string(&mut answer).context(|| format!("{self:?}"))?;
            }
        }
        Ok(answer)
    }
}
