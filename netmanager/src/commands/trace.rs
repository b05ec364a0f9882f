//! `netmanager trace`: what becomes of packets, live, as the data plane tells it.

mod feed;

use std::borrow::Cow;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

pub(crate) use self::feed::Feed;
use super::exit::{Exit, NotFound};
use super::source::{Source, asking};
use crate::api::client::{self, Lines, Watched};
use crate::app::Paths;
use crate::cli::Format;
use crate::names::Names;
use crate::state::Store;

/// Which packets are shown.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Name or address of the sender; nothing is anybody.
    pub from: Option<String>,
    /// Name or address of the receiver: a service or an instance.
    pub to: Option<String>,
    pub drops_only: bool,
}

/// What there is to show next.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Told {
    /// So many more were wanted, and are not shown.
    Untold {
        untold: u64,
    },
    Packet(Box<Line>),
}

/// One packet, as `-o json` prints it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Milliseconds since 1970.
    time_ms: u64,
    program: Cow<'static, str>,
    interface: Option<String>,
    verdict: Cow<'static, str>,
    reason: Option<Cow<'static, str>>,
    protocol: String,
    /// Of the inner IP packet.
    length: u32,
    /// As the packet came.
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
    source_name: Option<String>,
    destination_name: Option<String>,
    /// As it goes on, if it does.
    onward_source: Option<SocketAddr>,
    onward_destination: Option<SocketAddr>,
    /// The other node.
    node: Option<IpAddr>,
}

/// Where the lines come from.
enum Stream {
    /// The programs in the kernel.
    Here(Feed),
    /// A daemon that forwards packets itself.
    Daemon(Lines),
}

impl Stream {
    async fn find(paths: &Paths, wanted: &Wanted) -> Result<Self> {
        match Source::find(paths).await? {
            Source::Kernel(tables) => {
                let names = Names::read(&Store::at(&paths.state_dir))?;
                let feed = Feed::of_programs(&paths.bpffs, &tables, names, wanted)?;
                Ok(Self::Here(feed))
            }
            Source::Daemon(socket) => {
                let watched = client::watch(&socket, wanted).await;
                match watched.map_err(|error| anyhow!(error)).with_context(asking(paths))? {
                    Watched::Lines(lines) => Ok(Self::Daemon(lines)),
                    Watched::NotFound(what) => Err(NotFound(what).into()),
                    Watched::Nobody => bail!("the daemon at {} has stopped meanwhile", socket.display()),
                }
            }
        }
    }

    /// Cancel safe.
    async fn next(&mut self) -> Result<Told> {
        match self {
            Self::Here(feed) => feed.next().await,
            Self::Daemon(lines) => {
                let line = lines.next().await.map_err(|error| anyhow!(error)).context("hear the daemon")?;
                let line = line.context("the daemon has stopped")?;
                serde_json::from_slice(&line).context("understand what the daemon tells")
            }
        }
    }
}

/// Shows `count` packets, or without it goes on until Ctrl-C.
///
/// # Errors
/// When an end is not known, there is no data plane, or somebody else traces.
pub async fn run(
    paths: &Paths,
    wanted: &Wanted,
    count: Option<u64>,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit> {
    let mut stream = Stream::find(paths, wanted).await?;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        let told = tokio::select! {
            stopped = tokio::signal::ctrl_c() => {
                stopped.context("listen for Ctrl-C")?;
                return Ok(Exit::Stopped);
            }
            told = stream.next() => told?,
        };
        match (told, format) {
            (Told::Untold { untold }, _) => {
                writeln!(
                    std::io::stderr(),
                    "{untold} more packets are not shown: there are too many; name an end by --from or --to"
                )?;
                continue;
            }
            (Told::Packet(line), Format::Json) => {
                serde_json::to_writer(&mut *out, &line)?;
                writeln!(out)?;
            }
            (Told::Packet(line), Format::Table) => writeln!(out, "{}", text(&line))?,
        }
        out.flush()?;
        shown += 1;
    }
    Ok(Exit::Done)
}

fn text(line: &Line) -> String {
    let end = |end: Option<SocketAddr>, name: &Option<String>| match (end, name) {
        (Some(end), Some(name)) => format!("{name} {}", ported(end)),
        (Some(end), None) => ported(end),
        (None, _) => "-".to_owned(),
    };
    let mut text = format!(
        "{}  {:<14}  {:<10}  {:<5}  {:>5} B  {} > {}",
        super::time_of_day(line.time_ms.into()),
        line.program,
        line.verdict,
        line.protocol,
        line.length,
        end(line.source, &line.source_name),
        end(line.destination, &line.destination_name)
    );
    let is_translated = (line.onward_source, line.onward_destination) != (line.source, line.destination);
    if let (Some(source), Some(destination), true) =
        (line.onward_source, line.onward_destination, is_translated)
    {
        text += &format!("  as {} > {}", ported(source), ported(destination));
    }
    if let Some(node) = line.node {
        text += &format!("  {} node {node}", if line.verdict == "sent" { "to" } else { "from" });
    }
    if let Some(reason) = &line.reason {
        text += &format!("  because {reason}");
    }
    text
}

/// Without a port where there is none.
fn ported(end: SocketAddr) -> String {
    if end.port() == 0 { end.ip().to_string() } else { end.to_string() }
}

#[cfg(test)]
mod tests {
    use netmanager_common::event::DropReason;
    use netmanager_common::trace::Verdict;

    use super::feed::line;
    use super::text;
    use crate::datapath::{Ends, FROM_CONTAINER, Traced};
    use crate::names::Names;

    fn ends(source: &str, destination: &str) -> Option<Ends> {
        Some(Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    #[test]
    fn a_line_tells_what_the_packet_was_and_what_became_of_it() {
        let sent = Traced {
            program: FROM_CONTAINER,
            ifindex: u32::MAX,
            verdict: Verdict::Sent,
            reason: None,
            came: ends("10.18.0.2:40000", "10.30.0.4:80"),
            goes: ends("10.30.0.7:40000", "10.18.0.66:80"),
            node: Some([192, 0, 2, 2].into()),
            protocol: 6,
            length: 60,
        };
        let dropped = Traced {
            verdict: Verdict::Dropped,
            reason: Some(DropReason::NoEndpoint),
            goes: None,
            node: None,
            protocol: 1,
            came: ends("10.18.0.2:0", "10.18.9.9:0"),
            ..sent
        };
        let shown = |traced| {
            let mut line = line(&traced, &Names::default());
            line.time_ms = 0;
            text(&line)
        };
        assert_eq!(
            shown(sent),
            "00:00:00Z  from_container  sent        tcp       60 B  10.18.0.2:40000 > 10.30.0.4:80  \
             as 10.30.0.7:40000 > 10.18.0.66:80  to node 192.0.2.2"
        );
        assert_eq!(
            shown(dropped),
            "00:00:00Z  from_container  dropped     icmp      60 B  10.18.0.2 > 10.18.9.9  because no-endpoint"
        );
    }
}
