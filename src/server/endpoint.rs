//! Where connections come in: TCP, TLS over TCP, Unix domain sockets.
//!
//! A Unix domain socket is made where nobody else can reach it, given its mode, and only then put in its place: nobody can
//! connect before the mode holds, and whoever looks finds the old one or the new one. One that was left behind is replaced;
//! one that somebody listens on is not.
//!
//! Invariants: a connection's bytes are the same whatever it came over; a socket of ours is removed when we stop listening,
//! and nobody else's is. Not here: how many connections (`server::crowd`), the certificate (`server::tls`).

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::listen::{ListenAddress, UnixMode};
use crate::peer::Peer;
use crate::server::tls::Certificates;

/// A place that is listened on.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    certificates: Option<Arc<Certificates>>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// What just came in.
#[derive(Debug)]
pub struct Arrival {
    /// The connection, before TLS.
    pub socket: Socket,
    /// Who is connected.
    pub peer: Peer,
    /// What TLS is spoken with, if it is.
    pub tls: Option<Arc<ServerConfig>>,
}

impl Endpoint {
    /// Listens on an address. `certificates` are for those that speak TLS.
    ///
    /// # Errors
    /// When the system does not let us.
    pub async fn bind(
        address: &ListenAddress,
        mode: UnixMode,
        certificates: Option<&Arc<Certificates>>,
    ) -> io::Result<Self> {
        match address {
            ListenAddress::Plain(address) => Ok(TcpListener::bind(address).await?.into()),
            ListenAddress::Tls(address) => {
                // Never in clear text by mistake.
                let certificates = Some(Arc::clone(certificates.ok_or(io::ErrorKind::InvalidInput)?));
                Ok(Self { listener: Listener::Tcp(TcpListener::bind(address).await?), certificates })
            }
            ListenAddress::Unix(path) => {
                let (listener, file) = listen_on(path, mode)?;
                Ok(Self { listener: Listener::Unix(listener, file), certificates: None })
            }
        }
    }

    /// Returns the address in the notation of the configuration, with the real port.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match (&self.listener, &self.certificates) {
            (Listener::Tcp(listener), None) => ListenAddress::Plain(listener.local_addr()?),
            (Listener::Tcp(listener), Some(_)) => ListenAddress::Tls(listener.local_addr()?),
            (Listener::Unix(_, file), _) => ListenAddress::Unix(file.path.clone()),
        })
    }

    /// Waits for the next connection. Cancel-safe.
    ///
    /// # Errors
    /// When the system could not give us one.
    pub async fn accept(&self) -> io::Result<Arrival> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(self.arrival(stream, address))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok(Arrival { socket: Socket::Unix(stream), peer: Peer::local(), tls: None })
            }
        }
    }

    /// Stops listening, and returns a way to take what waits in the kernel's queue, one by one.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn into_queue(self) -> io::Result<Queue> {
        let Self { listener, certificates } = self;
        Ok(match listener {
            Listener::Tcp(listener) => Queue { listener: QueueOf::Tcp(listener.into_std()?), certificates },
            Listener::Unix(listener, file) => {
                drop(file);
                Queue { listener: QueueOf::Unix(listener.into_std()?), certificates }
            }
        })
    }

    fn arrival(&self, stream: TcpStream, address: SocketAddr) -> Arrival {
        arrival(stream, address, self.certificates.as_deref())
    }
}

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Self { listener: Listener::Tcp(listener), certificates: None }
    }
}

fn arrival(stream: TcpStream, address: SocketAddr, certificates: Option<&Certificates>) -> Arrival {
    // Answers leave when they are written. Failing to say so costs latency, not the connection.
    let _ = stream.set_nodelay(true);
    let tls = certificates.map(Certificates::current);
    let peer = Peer::new(address);
    let peer = if tls.is_some() { peer.over_tls() } else { peer };
    Arrival { socket: Socket::Tcp(stream), peer, tls }
}

/// What waits in the kernel's queue of a place that is no longer listened on.
#[derive(Debug)]
pub struct Queue {
    listener: QueueOf,
    certificates: Option<Arc<Certificates>>,
}

#[derive(Debug)]
enum QueueOf {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Queue {
    /// Takes the next one, without waiting.
    ///
    /// # Errors
    /// When there is none, or the system could not give it to us.
    pub fn take(&self) -> io::Result<Arrival> {
        match &self.listener {
            QueueOf::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(arrival(TcpStream::from_std(stream)?, address, self.certificates.as_deref()))
            }
            QueueOf::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(Arrival {
                    socket: Socket::Unix(UnixStream::from_std(stream)?),
                    peer: Peer::local(),
                    tls: None,
                })
            }
        }
    }
}

/// A socket in the file system that is ours; removed when this is dropped.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and number of the file, by which we know it as ours.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|identity| identity == self.identity) {
            // It is only litter, and the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a Unix domain socket at `path`.
fn listen_on(path: &Path, mode: UnixMode) -> io::Result<(UnixListener, SocketFile)> {
    check_vacant(path)?;
    let workshop = workshop_beside(path);
    fs::DirBuilder::new().mode(0o700).create(&workshop)?;
    let bound = make_socket(&workshop.join("s"), mode).and_then(|listener| {
        fs::rename(workshop.join("s"), path)?;
        Ok((listener, SocketFile { path: path.to_owned(), identity: identity_of(path)? }))
    });
    clear(&workshop);
    bound
}

/// Removes the folder in which a socket is made.
fn clear(workshop: &Path) {
    // Mostly there is nothing to remove.
    let _ = fs::remove_file(workshop.join("s"));
    let _ = fs::remove_dir(workshop);
}

fn make_socket(path: &Path, mode: UnixMode) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode.bits()))?;
    Ok(listener)
}

/// Returns the path of a folder that nobody else uses, beside `path`.
fn workshop_beside(path: &Path) -> PathBuf {
    // Each hash state differs from the last one, and from that of any other process.
    path.with_file_name(format!(".sb{:08x}", RandomState::new().hash_one(()) >> 32))
}

/// Fails unless there is nothing at `path`, or a socket that nobody listens on any more.
fn check_vacant(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there"));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

/// A connection's bytes, whatever it came over.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Begins TLS on it.
    ///
    /// # Errors
    /// When the peer and we do not come to terms.
    pub async fn secured(self, tls: Arc<ServerConfig>) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => Ok(Self::Tls(Box::new(TlsAcceptor::from(tls).accept(stream).await?))),
            already @ (Self::Unix(_) | Self::Tls(_)) => Ok(already),
        }
    }

    /// Writes as much of `bytes` as can leave at once.
    pub fn write_now(&self, bytes: &[u8]) {
        // Whoever does not get it sees a closed connection.
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(_) => Ok(0),
        };
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn unix(path: &Path) -> ListenAddress {
        ListenAddress::Unix(path.to_owned())
    }

    async fn bind(path: &Path, mode: &str) -> io::Result<Endpoint> {
        Endpoint::bind(&unix(path), mode.parse().unwrap(), None).await
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_serves_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let endpoint = bind(&path, "0620").await.unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left there");
        let mut near = UnixStream::connect(&path).await.unwrap();
        let mut arrival = endpoint.accept().await.unwrap();
        assert_eq!(arrival.peer.address, None);
        near.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        arrival.socket.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        drop(endpoint);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_was_left_behind_is_replaced_and_what_is_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let endpoint = bind(&path, "0600").await.unwrap();
        assert_eq!(bind(&path, "0600").await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(endpoint);
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path, "0600").await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn somebody_elses_socket_in_our_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let endpoint = bind(&path, "0600").await.unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(endpoint);
        assert!(path.exists());
    }
}
