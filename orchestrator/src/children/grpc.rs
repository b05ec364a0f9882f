//! Registration of clusters (gRPC, port 50052).

use std::sync::Arc;

use axum::Router;
use protocol::id::Id;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::cluster::Registration;
use crate::http::Peer;
use crate::registration::register_cluster_server::{RegisterCluster, RegisterClusterServer};
use crate::registration::{Cs1Message, Cs2Message, Sc1Message, Sc2Message};

/// Names and locations go into every answer about clusters.
const TEXT_MAX: usize = 256;

/// Who knows the clusters.
pub(crate) trait Registry: Send + Sync + 'static {
    /// Makes a cluster known, or known again, and gives its id. A failure is for the caller to read.
    fn register(&self, registration: Registration) -> impl Future<Output = Result<Id, &'static str>> + Send;
}

/// To be served over HTTP/2.
pub(crate) fn router<R: Registry>(registry: Arc<R>) -> Router {
    Routes::new(RegisterClusterServer::new(Registrar(registry))).into_axum_router()
}

struct Registrar<R>(Arc<R>);

#[tonic::async_trait]
impl<R: Registry> RegisterCluster for Registrar<R> {
    async fn handle_init_greeting(
        &self,
        _request: Request<Cs1Message>,
    ) -> Result<Response<Sc1Message>, Status> {
        Ok(Response::new(Sc1Message { hello_cluster_manager: "Hello from Hypha".to_owned() }))
    }

    async fn handle_init_final(&self, request: Request<Cs2Message>) -> Result<Response<Sc2Message>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let Peer(peer) = peer.ok_or_else(|| Status::internal("the caller has no address"))?;
        let message = request.into_inner();
        let registration = Registration {
            ip: peer.ip().to_canonical().to_string(),
            port: port("manager_port", message.manager_port)?,
            net_port: port("network_component_port", message.network_component_port)?,
            name: text("cluster_name", message.cluster_name)?,
            location: text("cluster_location", message.cluster_location)?,
        };
        let id = self.0.register(registration).await.map_err(Status::unavailable)?;
        Ok(Response::new(Sc2Message { id: id.to_string() }))
    }
}

fn port(field: &str, value: i32) -> Result<u16, Status> {
    u16::try_from(value).ok().filter(|port| *port != 0).ok_or_else(|| {
        Status::invalid_argument(format!("{field}: expected a port from 1 to 65535, got {value}"))
    })
}

fn text(field: &str, value: String) -> Result<String, Status> {
    if (1..=TEXT_MAX).contains(&value.len()) {
        Ok(value)
    } else {
        let length = value.len();
        Err(Status::invalid_argument(format!("{field}: expected 1 to {TEXT_MAX} bytes, got {length}")))
    }
}
