//! The connection to containerd: one channel over its UNIX socket, every call in our namespace and with a deadline.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::codegen::http::Uri;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, transport};

use super::error::RuntimeError;

/// The containerd namespace of all our containers and images, the same as Oakestra's.
pub const NAMESPACE: &str = "oakestra";

/// No single call takes longer on a healthy machine, however slow its disk; starting a container on a loaded
/// Raspberry Pi may well take ten seconds.
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts a call into our namespace, and under a lease if there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    lease: Option<String>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        if let Some(lease) = &self.lease {
            let lease = lease.parse().map_err(|_not_ascii| Status::invalid_argument("lease id"))?;
            metadata.insert("containerd-lease", lease);
        }
        Ok(request)
    }
}

pub(super) type Scoped = InterceptedService<Channel, Scope>;

/// A handle on containerd. Connects when it is first used, and again by itself after containerd was restarted.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    socket: PathBuf,
    scope: Scope,
}

impl Client {
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_path_buf();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The address is not used: the connector knows the socket.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector_lazy(connector);
        Self { channel, socket: socket.to_path_buf(), scope: Scope::default() }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same connection, with everything that is made through it kept from garbage collection by `lease`.
    #[must_use]
    pub(super) fn under_lease(&self, lease: String) -> Self {
        Self { scope: Scope { lease: Some(lease) }, ..self.clone() }
    }

    pub(super) fn containers(&self) -> ContainersClient<Scoped> {
        ContainersClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn content(&self) -> ContentClient<Scoped> {
        ContentClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn diff(&self) -> DiffClient<Scoped> {
        DiffClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn events(&self) -> EventsClient<Scoped> {
        EventsClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn images(&self) -> ImagesClient<Scoped> {
        ImagesClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn introspection(&self) -> IntrospectionClient<Scoped> {
        IntrospectionClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn leases(&self) -> LeasesClient<Scoped> {
        LeasesClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn snapshots(&self) -> SnapshotsClient<Scoped> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    pub(super) fn tasks(&self) -> TasksClient<Scoped> {
        TasksClient::with_interceptor(self.channel.clone(), self.scope.clone())
    }

    /// Waits for `call`, which is to `doing` (an infinitive with its object: "create container x").
    pub(super) async fn call<T>(
        &self,
        doing: impl Into<String>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        self.call_within(DEADLINE, doing, call).await
    }

    pub(super) async fn call_within<T>(
        &self,
        deadline: Duration,
        doing: impl Into<String>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let doing = doing.into();
        let began = std::time::Instant::now();
        let ended = tokio::time::timeout(deadline, call).await;
        tracing::trace!(doing, took_us = began.elapsed().as_micros(), "containerd");
        match ended {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(doing, status)),
            Err(_elapsed) => Err(RuntimeError::Timeout { doing, after: deadline }),
        }
    }

    /// Tells containerd's own refusals from a containerd that is not there.
    pub(super) fn error(&self, doing: impl Into<String>, status: Status) -> RuntimeError {
        match lost_connection(&status) {
            Some(reason) => RuntimeError::Unreachable { socket: self.socket.clone(), reason },
            None => RuntimeError::Call { doing: doing.into(), status: Box::new(status) },
        }
    }
}

/// What the system said, when a call failed for want of a connection.
fn lost_connection(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    cause.downcast_ref::<transport::Error>()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}
