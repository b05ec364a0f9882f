//! The other daemon of this worker: it connects a container's network namespace to the overlay.

use std::sync::Mutex;
use std::time::Duration;

use hyper::StatusCode;
use protocol::name::InstanceName;
use protocol::net::{Attach, Attached, Detach, Register};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::assignment::Assignment;
use crate::backoff::Backoff;
use crate::http::{Endpoint, HttpError, post};
use crate::verdict::chain;

/// Oakestra's own limit for these requests.
const DEADLINE: Duration = Duration::from_secs(10);
/// Registering lasts until the cluster has given the worker its subnet.
const REGISTER_DEADLINE: Duration = Duration::from_secs(20);

/// Why an instance has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetmanagerError {
    #[error("netmanager cannot be reached (is it running, and is {0} where it listens?)")]
    Unreachable(Endpoint, #[source] HttpError),
    #[error("netmanager could not {doing}")]
    Failed {
        doing: String,
        #[source]
        source: HttpError,
    },
    #[error("netmanager's answer cannot be read")]
    Answer(#[source] serde_json::Error),
}

/// A client of netmanager, or the decision to do without.
#[derive(Debug)]
pub struct Netmanager {
    endpoint: Option<Endpoint>,
    /// Whom this worker is to its cluster, once that is known.
    identity: Mutex<Option<Register>>,
}

impl Netmanager {
    /// Without an endpoint, containers get a namespace with nothing but loopback.
    #[must_use]
    pub fn new(endpoint: Option<Endpoint>) -> Self {
        Self { endpoint, identity: Mutex::new(None) }
    }

    /// Tells netmanager which worker this is, now and whenever `identity` changes, until it has understood.
    pub async fn keep_registered(
        &self,
        mut identity: watch::Receiver<Option<Register>>,
        shutdown: CancellationToken,
    ) {
        let keep = async {
            loop {
                let current = identity.borrow_and_update().clone();
                if let Some(register) = current {
                    self.set_identity(register.clone());
                    tokio::select! {
                        () = self.register_until_done(&register) => {}
                        // A newer identity makes the tries with the old one pointless.
                        changed = identity.changed() => match changed {
                            Ok(()) => continue,
                            Err(_session_ended) => return,
                        },
                    }
                }
                if identity.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = keep => {}
        }
    }

    async fn register_until_done(&self, register: &Register) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        while let Err(error) = self.register(register).await {
            if !backoff.is_failing() {
                tracing::warn!(error = chain(&error), "not registered at netmanager; trying on");
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        tracing::info!(node = register.client_id, "registered at netmanager");
    }

    async fn register(&self, register: &Register) -> Result<(), NetmanagerError> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let sent = post(endpoint, "/register", register, REGISTER_DEADLINE).await;
        sent.map(|_| ()).map_err(|error| explain(endpoint, error, || "register this worker".to_owned()))
    }

    /// Connects the network namespace of process `pid` to the overlay. Returns the address it got; none without an
    /// overlay.
    ///
    /// # Errors
    /// When netmanager does not answer, or says no.
    pub async fn attach(
        &self,
        assignment: &Assignment,
        pid: i32,
    ) -> Result<Option<Attached>, NetmanagerError> {
        let Some(endpoint) = &self.endpoint else { return Ok(None) };
        let request = Attach {
            pid,
            service_name: assignment.name.service.clone(),
            instance_number: assignment.name.number,
            port_mappings: assignment.ports.clone(),
        };
        let mut answer = post(endpoint, "/container/deploy", &request, DEADLINE).await;
        if is_unregistered(&answer)
            && let Some(identity) = self.identity()
        {
            // It was started again without what it knew: tell it who we are, then ask once more.
            self.register(&identity).await?;
            answer = post(endpoint, "/container/deploy", &request, DEADLINE).await;
        }
        let doing = || format!("connect {} to the overlay", assignment.name);
        let answer = answer.map_err(|error| explain(endpoint, error, doing))?;
        serde_json::from_slice(&answer).map(Some).map_err(NetmanagerError::Answer)
    }

    /// Takes an instance off the overlay. Idempotent.
    ///
    /// # Errors
    /// When netmanager does not answer.
    pub async fn detach(&self, name: &InstanceName) -> Result<(), NetmanagerError> {
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let request = Detach { service_name: name.service.clone(), instance_number: name.number };
        let answer = post(endpoint, "/container/undeploy", &request, DEADLINE).await;
        if is_unregistered(&answer) {
            // It knows of no instance at all, so not of this one either.
            return Ok(());
        }
        answer
            .map(|_| ())
            .map_err(|error| explain(endpoint, error, || format!("take {name} off the overlay")))
    }

    fn identity(&self) -> Option<Register> {
        self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn set_identity(&self, identity: Register) {
        *self.identity.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(identity);
    }
}

fn is_unregistered<T>(answer: &Result<T, HttpError>) -> bool {
    matches!(answer, Err(HttpError::Refused { status, .. }) if *status == StatusCode::BAD_REQUEST)
}

fn explain(endpoint: &Endpoint, error: HttpError, doing: impl FnOnce() -> String) -> NetmanagerError {
    match error {
        HttpError::Connect { .. } => NetmanagerError::Unreachable(endpoint.clone(), error),
        source => NetmanagerError::Failed { doing: doing(), source },
    }
}
