//! Binding the listeners.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream};

use super::auth::AdminToken;
use super::tls::{Tls, TlsError};
use crate::config::{HttpConfig, Listen};

/// Owner and group: whoever may open the socket may use the verbs.
const SOCKET_MODE: u32 = 0o660;
/// Of a directory that we make for it: the same people reach it, and nobody else.
const DIRECTORY_MODE: u32 = 0o750;
/// Connections that the kernel keeps for us while we are busy. Where they find no room the client's kernel tries again after a
/// second, and a probe has failed by then: the usual 128 are what a flood sends while we wait for a processor.
const BACKLOG: u32 = 1024;
/// How long whoever holds a socket file has to take a connection before we believe that somebody does.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Why the listeners cannot be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be bound.
    #[error("cannot listen on {address} ({key}): {source}{}", remedy(source.kind()))]
    Listen {
        /// The configuration's key.
        key: &'static str,
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Anyone on the network could change leadership.
    #[error("a control listener on {0}, which is not loopback, needs http.admin_token_file")]
    Unguarded(SocketAddr),
    /// The admin token cannot be had.
    #[error("http.admin_token_file: {0}")]
    Token(String),
    /// TLS cannot be had.
    #[error("http.tls: {0}")]
    Tls(#[from] TlsError),
}

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Read-only.
    Public,
    /// Everything.
    Control,
}

/// A bound address with what holds for it.
#[derive(Debug)]
pub(super) struct Door {
    pub face: Face,
    pub socket: Socket,
    pub tls: Option<Arc<Tls>>,
    /// What verbs must carry here.
    pub token: Option<AdminToken>,
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    /// The file goes after the listener: whoever finds none there may bind.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A socket file of ours; removed when dropped, unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the control socket stays behind");
        }
    }
}

/// The real addresses, with the ports that the kernel chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the public listener, in the order of the configuration.
    pub public: Vec<Listen>,
    /// Of the control listener, likewise.
    pub control: Vec<Listen>,
}

/// All listeners, bound, and not yet serving.
#[derive(Debug)]
pub struct Bound {
    pub(super) doors: Vec<Door>,
    pub(super) request_timeout: Duration,
    pub(super) max_connections: usize,
    addresses: Addresses,
}

impl Bound {
    /// Where the listeners are.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

/// Binds every configured address, or none.
///
/// # Errors
/// As [`BindError`] says.
pub async fn bind(config: &HttpConfig) -> Result<Bound, BindError> {
    let token = config.admin_token_file.as_deref().map(AdminToken::at).transpose().map_err(BindError::Token)?;
    let tls = config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
    let mut doors = Vec::new();
    let mut addresses = Addresses::default();
    for (face, listen) in
        config.public.iter().map(|l| (Face::Public, l)).chain(config.control.iter().map(|l| (Face::Control, l)))
    {
        let door = match listen {
            Listen::Tcp(address) => {
                if face == Face::Control && token.is_none() && !is_loopback(*address) {
                    return Err(BindError::Unguarded(*address));
                }
                let socket = bind_tcp(*address).map_err(at(face, address))?;
                let real = socket.local_addr().map_err(at(face, address))?;
                (Door { face, socket: Socket::Tcp(socket), tls: tls.clone(), token: token.clone() }, Listen::Tcp(real))
            }
            Listen::Unix(path) => {
                let named = format!("unix:{}", path.display());
                let (listener, file) = bind_unix(path).await.map_err(at(face, &named))?;
                let socket = Socket::Unix { listener, _file: file };
                (Door { face, socket, tls: None, token: None }, listen.clone())
            }
        };
        let (door, real) = door;
        doors.push(door);
        match face {
            Face::Public => addresses.public.push(real),
            Face::Control => addresses.control.push(real),
        }
    }
    let HttpConfig { request_timeout, max_connections, .. } = *config;
    Ok(Bound { doors, request_timeout, max_connections, addresses })
}

fn at(face: Face, address: &impl ToString) -> impl Fn(io::Error) -> BindError {
    let address = address.to_string();
    let key = match face {
        Face::Public => "http.public",
        Face::Control => "http.control",
    };
    move |source| BindError::Listen { key, address: address.clone(), source }
}

/// What mends it.
const fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "; is another daemon running here? Take another address",
        io::ErrorKind::PermissionDenied => "; take an address that this user may use, such as unix:/tmp/tenure.sock",
        _ => "",
    }
}

/// `::ffff:127.0.0.1` is loopback too, though the standard library does not say so.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for what is left of the connections before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let made = make_directory(path)?;
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream()?;
    // Linux makes the file with the socket's own mode (less the umask), so that there is no moment at which others may open
    // it. The second call gives back what the umask took.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(SOCKET_MODE))?;
    socket.bind(path)?;
    let meta = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: (meta.dev(), meta.ino()) };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    if let Some(dir) = made {
        // Of the socket's group, where that of new directories is another, as below one with the setgid bit.
        std::os::unix::fs::chown(dir, None, Some(meta.gid()))?;
    }
    Ok((socket.listen(BACKLOG)?, file))
}

/// Makes the directory of a socket, one level of it: `/run/tenure` is gone after every boot. The one that was made, if any.
fn make_directory(path: &Path) -> io::Result<Option<&Path>> {
    let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty() && !dir.exists()) else { return Ok(None) };
    // It is never open to more people than at last; the second call gives back what the umask took.
    fs::DirBuilder::new()
        .mode(DIRECTORY_MODE)
        .create(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(|e| io::Error::new(e.kind(), format!("cannot make its directory {}: {e}", dir.display())))?;
    Ok(Some(dir))
}

/// Removes a socket file that nobody answers on: a crash leaves one.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PROBE_LIMIT, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Connected, or its queue is full: somebody is there.
        Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on it")),
    }
}
