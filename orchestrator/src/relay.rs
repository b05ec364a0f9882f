//! Several daemons over one store, of which one leads: what comes to the ports of the others is passed on to that one, so that each
//! of them may be asked. Who asks while nobody leads is kept waiting for a moment instead of being refused.
//!
//! The one that leads learns whose a connection is from its first bytes ([`preamble`]), which only one who reads the store can write.

mod door;
mod preamble;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) use self::door::{Door, Greeting};
pub(crate) use self::preamble::accept;
use crate::store::etcd::{Leader, Secret};

/// How long a connection waits for somebody who leads: longer than it takes until another one does.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between two tries to connect.
const AGAIN: Duration = Duration::from_millis(200);
/// Seconds of silence after which the other end is asked whether it is there.
const KEEPALIVE: u32 = 20;
/// Connections that are passed on at one time, for each port. More wait to be accepted.
const CONNECTIONS: usize = 4096;
/// The pause after the system refused a connection, as it does when file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Passes on what comes to these doors to whoever leads, as long as this is polled. Connections that are passed on then go on
/// by themselves.
pub(crate) async fn pass_on(doors: &[&Door], leader: &watch::Receiver<Option<Leader>>) -> Infallible {
    let ports = doors.iter().enumerate().filter_map(|(port, door)| {
        let listener = door.listener()?;
        Some(pass_on_port(listener, port, door.greeting(), leader.clone()))
    });
    futures::future::join_all(ports).await;
    std::future::pending().await
}

async fn pass_on_port(
    listener: &TcpListener,
    port: usize,
    greeting: Greeting,
    leader: watch::Receiver<Option<Leader>>,
) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        match listener.accept().await {
            Ok((client, peer)) => {
                let leader = leader.clone();
                tokio::spawn(async move {
                    if let Err(error) = pass_on_connection(client, peer, port, greeting, leader).await {
                        tracing::debug!(%peer, %error, "a connection was not passed on to the one that leads");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn pass_on_connection(
    mut client: TcpStream,
    peer: SocketAddr,
    port: usize,
    greeting: Greeting,
    leader: watch::Receiver<Option<Leader>>,
) -> io::Result<()> {
    let (mut server, secret) = timeout(PATIENCE, reach(port, leader.clone())).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        // Whoever is gone without a word is noticed, also by those who have nothing to say.
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE)?;
        setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE)?;
    }
    if greeting == Greeting::Announced {
        server.write_all(&preamble::of(peer, server.peer_addr()?, &secret)?).await?;
    }
    tokio::select! {
        done = join(&mut client, &mut server) => done,
        () = replaced(leader, &secret) => Ok(()),
    }
}

/// Copies both ways until the one that leads has no more to say: it knows when a connection has been idle for too long.
async fn join(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await?;
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        failed = asking => failed,
        answered = copy(&mut from_server, &mut to_client) => answered.map(drop),
    }
}

/// Waits until another one leads than the one that has this secret, which may be there no more and yet hold its connections.
async fn replaced(mut leader: watch::Receiver<Option<Leader>>, secret: &Secret) {
    let is_another = |leads: &Option<Leader>| leads.as_ref().is_some_and(|leads| leads.secret != *secret);
    if leader.wait_for(is_another).await.is_err() {
        // It is this one that leads, and nobody else will be told of.
        std::future::pending().await
    }
}

/// Tries on until somebody leads who takes the connection.
async fn reach(port: usize, mut leader: watch::Receiver<Option<Leader>>) -> (TcpStream, Secret) {
    loop {
        let found =
            leader.borrow_and_update().as_ref().and_then(|it| Some((*it.at.get(port)?, it.secret.clone())));
        let until = Instant::now() + AGAIN;
        if let Some((at, secret)) = found
            && let Ok(Ok(stream)) = timeout(CONNECT_WITHIN, TcpStream::connect(at)).await
        {
            return (stream, secret);
        }
        // An error: it is this one that leads, and nobody else will be told of.
        if !matches!(timeout_at(until, leader.changed()).await, Ok(Ok(()))) {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::{Door, Greeting, accept, pass_on};
    use crate::store::etcd::{Leader, Secret};

    async fn door() -> Door {
        let address = ([127, 0, 0, 1], 0).into();
        Door::try_open(address, "a test", "none", Greeting::Announced).await.unwrap()
    }

    #[tokio::test]
    async fn who_asks_before_somebody_leads_is_passed_on_as_soon_as_somebody_does() {
        let doors = [door().await, door().await];
        let (tell, told) = watch::channel(None);
        let second = doors[1].address().unwrap();
        let passing = tokio::spawn(async move { pass_on(&doors.each_ref(), &told).await });
        let mut client = TcpStream::connect(second).await.unwrap();
        client.write_all(b"hello").await.unwrap();

        let leads = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let secret = Secret::random();
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let at = vec![nobody, leads.local_addr().unwrap()];
        tell.send(Some(Leader { name: "it".to_owned(), at, secret: secret.clone() })).unwrap();
        let (mut stream, from) = leads.accept().await.unwrap();
        let peer = accept(&mut stream, from, Some(&secret)).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        stream.write_all(b"answer").await.unwrap();
        drop(stream);
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer, b"answer");
        passing.abort();
    }

    /// A door, a client at it, and the end of its connection at the one that leads.
    async fn passed_on(told: watch::Receiver<Option<Leader>>, leads: &TcpListener) -> (TcpStream, TcpStream) {
        let doors = [door().await];
        let at = doors[0].address().unwrap();
        tokio::spawn(async move { pass_on(&doors.each_ref(), &told).await });
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let (stream, _) = leads.accept().await.unwrap();
        (client, stream)
    }

    async fn ends(client: &mut TcpStream) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
        // A reset ends it, too.
        read.expect("an end").unwrap_or_default();
    }

    #[tokio::test]
    async fn a_connection_ends_when_the_one_that_leads_ends_it_though_its_client_does_not() {
        let leads = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, told) = watch::channel(Some(leader_at(&leads)));
        let (mut client, stream) = passed_on(told, &leads).await;
        drop(stream);
        ends(&mut client).await;
        drop(tell);
    }

    #[tokio::test]
    async fn a_connection_ends_when_another_one_leads_though_the_old_one_still_holds_it() {
        let leads = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, told) = watch::channel(Some(leader_at(&leads)));
        let (mut client, stream) = passed_on(told, &leads).await;
        tell.send(None).unwrap();
        tell.send(Some(leader_at(&leads))).unwrap();
        ends(&mut client).await;
        drop(stream);
    }

    fn leader_at(listener: &TcpListener) -> Leader {
        let at = vec![listener.local_addr().unwrap()];
        Leader { name: "it".to_owned(), at, secret: Secret::random() }
    }
}
