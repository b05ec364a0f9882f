//! Where the commands read: in the tables that are pinned in the kernel, or, where a daemon forwards packets itself, in
//! that daemon, which alone has them.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::exit::NotFound;
use super::{flows, services, why};
use crate::api::client::{self, Asked};
use crate::app::Paths;
use crate::datapath::{DatapathError, Tables};
use crate::names::Names;
use crate::plane::Seen;
use crate::state::Store;

/// A question that is answered from the tables. Its answer is what `-o json` prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Question {
    Services(services::Wanted),
    Flows(flows::Wanted),
    Why(why::Asked),
}

/// Answers a question of a command.
pub(crate) fn answer(seen: &impl Seen, store: &Store, question: &Question) -> Result<serde_json::Value> {
    let names = Names::read(store)?;
    let answer = match question {
        Question::Services(wanted) => serde_json::to_value(services::rows(seen, &names, wanted)?),
        Question::Flows(wanted) => serde_json::to_value(flows::rows(seen, &names, wanted)?),
        Question::Why(asked) => serde_json::to_value(why::answer(seen, &names, asked)?),
    };
    answer.context("write the answer as JSON")
}

/// Where the tables are.
#[derive(Debug)]
pub(super) enum Source {
    /// In the kernel. A daemon is not needed.
    Kernel(Box<Tables>),
    /// In the daemon that serves this socket.
    Daemon(PathBuf),
}

impl Source {
    /// # Errors
    /// When there is no data plane.
    pub(super) async fn find(paths: &Paths) -> Result<Self> {
        let error = match Tables::open(&paths.bpffs) {
            Ok(tables) => return Ok(Self::Kernel(Box::new(tables))),
            Err(error @ DatapathError::NotPinned { .. }) => error,
            Err(error) => return Err(error).with_context(|| opening(paths)),
        };
        let report = client::report(&paths.socket)
            .await
            .map_err(|error| anyhow!(error))
            .with_context(asking(paths))?;
        match report {
            Some(report) if report.mode == "userspace" => Ok(Self::Daemon(paths.socket.clone())),
            _ => Err(error).with_context(|| {
                format!(
                    "{}; nor does a daemon that forwards packets itself serve {}",
                    opening(paths),
                    paths.socket.display()
                )
            }),
        }
    }

    /// # Errors
    /// As [`answer`], and when the daemon does not answer.
    pub(super) async fn ask<T: DeserializeOwned>(&self, paths: &Paths, question: &Question) -> Result<T> {
        let answer = match self {
            Self::Kernel(tables) => answer(&**tables, &Store::at(&paths.state_dir), question)?,
            Self::Daemon(socket) => {
                let asked = client::ask(socket, question).await;
                match asked.map_err(|error| anyhow!(error)).with_context(asking(paths))? {
                    Asked::Answer(answer) => answer,
                    Asked::NotFound(what) => return Err(NotFound(what).into()),
                    Asked::Nobody => bail!("the daemon at {} has stopped meanwhile", socket.display()),
                }
            }
        };
        serde_json::from_value(answer).context("understand the answer")
    }
}

fn opening(paths: &Paths) -> String {
    format!("open the data plane pinned under {}", paths.bpffs.display())
}

pub(super) fn asking(paths: &Paths) -> impl FnOnce() -> String {
    let socket = paths.socket.display().to_string();
    move || format!("ask the daemon at {socket}")
}
