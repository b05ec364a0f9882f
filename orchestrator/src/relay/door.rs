//! A port of a daemon, taken before it is known who leads.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpListener;

use crate::http::{self, BindError};

/// What the one who leads is told of a connection that is passed on to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Whose it is.
    Announced,
    /// Nothing: who serves there does not understand it, and does not ask whose a connection is.
    Silent,
}

/// A port that this daemon has, or will have as soon as it leads.
#[derive(Debug)]
pub(crate) struct Door {
    address: SocketAddr,
    purpose: &'static str,
    option: &'static str,
    greeting: Greeting,
    listener: Option<TcpListener>,
}

impl Door {
    /// Takes the port. If another process has it, that may be the one that leads, from which an address moves to here with the
    /// lead: then it is tried again by [`Self::open`].
    ///
    /// # Errors
    /// When the system refuses for another reason.
    pub(crate) async fn try_open(
        address: SocketAddr,
        purpose: &'static str,
        option: &'static str,
        greeting: Greeting,
    ) -> Result<Self, BindError> {
        let listener = match http::bind(address, purpose, option).await {
            Ok(listener) => Some(listener),
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                tracing::info!(%address, purpose, option, "another process has this port; it is tried again when this one leads");
                None
            }
            Err(error) => return Err(error),
        };
        Ok(Self { address, purpose, option, greeting, listener })
    }

    pub(super) fn listener(&self) -> Option<&TcpListener> {
        self.listener.as_ref()
    }

    pub(super) fn greeting(&self) -> Greeting {
        self.greeting
    }

    /// Where it is; not where it was told to be, when that was port 0.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().map_or(Ok(self.address), TcpListener::local_addr)
    }

    /// Where others reach it, on a machine with this address: where it listens, if that is one address.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn reached_at(&self, machine: Option<IpAddr>) -> io::Result<SocketAddr> {
        let own = self.address()?;
        let machine = machine.filter(|_| own.ip().is_unspecified()).unwrap_or(own.ip());
        Ok(SocketAddr::new(machine, own.port()))
    }

    /// The port, to be served.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(crate) async fn open(self) -> Result<TcpListener, BindError> {
        match self.listener {
            Some(listener) => Ok(listener),
            None => http::bind(self.address, self.purpose, self.option).await,
        }
    }
}
