//! What is asked of the one above over HTTP and gRPC, be it a root or a branch. One attempt each; who calls decides whether to try again.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use protocol::cluster::{Report, TAKEN_HEADER};
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{NetDeployStatus, NodeItself, Subnet};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tonic::transport::Endpoint;

use super::args::ParentAddress;
use super::subject::Subject;
use super::uplink::Link;
use crate::registration::register_cluster_client::RegisterClusterClient;
use crate::registration::{CLUSTER_HEADER, Cs1Message, Cs2Message, KeyValue};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
/// A worker waits for the answer to a table query, but not longer than 5 s.
const TABLE_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(crate) struct ParentClient {
    http: Client,
    /// Which cluster this is; Oakestra's root tells by the address, which several clusters may share.
    link: watch::Receiver<Link>,
    api: String,
    net: String,
    grpc: String,
}

/// How the cluster is reached, and what it is called.
#[derive(Debug, Clone)]
pub(crate) struct Introduction {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) api_port: u16,
    pub(crate) net_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ParentError {
    #[error("{doing} at {url}")]
    Http { doing: &'static str, url: String, source: reqwest::Error },
    /// The root does not know what was spoken of, as when it has lost its disk.
    #[error("{doing} at {url}: the root does not know it (status {status})")]
    Unknown { doing: &'static str, url: String, status: StatusCode },
    #[error("{doing} at {url}: refused with status {status}: {body}")]
    Refused { doing: &'static str, url: String, status: StatusCode, body: String },
    #[error("register at {url}")]
    Connect { url: String, source: tonic::transport::Error },
    #[error("register at {url}")]
    Register { url: String, source: Box<tonic::Status> },
    #[error("register at {url}: the root gave {id:?} as the cluster's id")]
    InvalidId { url: String, id: String },
}

impl ParentClient {
    pub(crate) fn new(parent: &ParentAddress, link: watch::Receiver<Link>) -> Result<Self, reqwest::Error> {
        let ParentAddress { host, api, grpc, net } = parent;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Ok(Self {
            http: Client::builder()
                .tcp_nodelay(true)
                .connect_timeout(CONNECT_WITHIN)
                .timeout(ANSWER_WITHIN)
                // The root closes a connection that is idle for 30 s; a request must not meet that.
                .pool_idle_timeout(IDLE)
                .no_proxy()
                .build()?,
            link,
            api: format!("http://{host}:{api}"),
            net: format!("http://{host}:{net}"),
            grpc: format!("http://{host}:{grpc}"),
        })
    }

    /// Makes the cluster known; the root takes its address from this connection.
    pub(crate) async fn register(&self, introduction: &Introduction) -> Result<Id, ParentError> {
        let url = || self.grpc.clone();
        let endpoint = Endpoint::from_shared(self.grpc.clone())
            .map_err(|source| ParentError::Connect { url: url(), source })?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        let channel =
            endpoint.connect().await.map_err(|source| ParentError::Connect { url: url(), source })?;
        let mut client = RegisterClusterClient::new(channel);
        let failed = |status| ParentError::Register { url: url(), source: Box::new(status) };
        let Introduction { name, location, api_port, net_port } = introduction;
        let greeting = serde_json::json!({ "cluster_name": name, "location": location }).to_string();
        client.handle_init_greeting(Cs1Message { hello_service_manager: greeting }).await.map_err(failed)?;
        let answer = client
            .handle_init_final(Cs2Message {
                manager_port: i32::from(*api_port),
                network_component_port: i32::from(*net_port),
                cluster_name: name.clone(),
                cluster_info: vec![KeyValue::default()],
                cluster_location: location.clone(),
            })
            .await
            .map_err(failed)?;
        let id = answer.into_inner().id;
        id.parse().map_err(|_no_id| ParentError::InvalidId { url: url(), id })
    }

    /// Gives the number under which the root has kept it, if it is one of ours.
    pub(crate) async fn report(&self, cluster: Id, report: &Report) -> Result<Option<u32>, ParentError> {
        let url = format!("{}/api/information/{cluster}", self.api);
        let sent = self.http.post(&url).json(report).send().await;
        let response = accepted("report", url, sent).await?;
        let number = response.headers().get(TAKEN_HEADER);
        Ok(number.and_then(|number| number.to_str().ok()?.parse().ok()))
    }

    fn named(&self, request: RequestBuilder) -> RequestBuilder {
        match self.link.borrow().id {
            Some(id) => request.header(CLUSTER_HEADER, id.to_string()),
            None => request,
        }
    }

    /// `None`: the root knows no such service. A cluster reads a [`protocol::net::NetService`], a branch passes on all that there is.
    pub(crate) async fn table<T: DeserializeOwned>(
        &self,
        subject: &Subject,
    ) -> Result<Option<T>, ParentError> {
        let path = match subject {
            Subject::Name(name) => format!("service/{}", undotted(name)),
            Subject::Address(address) => format!("service/ip/{}", undotted(address)),
        };
        let url = format!("{}/api/net/{path}/instances", self.net);
        let doing = "ask for a table";
        let sent = self.named(self.http.get(&url)).timeout(TABLE_WITHIN).send().await;
        match accepted(doing, url.clone(), sent).await {
            Ok(response) => {
                response.json().await.map(Some).map_err(|source| ParentError::Http { doing, url, source })
            }
            Err(ParentError::Unknown { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the processes of a node of another cluster are reached. `None`: the root knows no such node, or is
    /// Oakestra's, which never does.
    pub(crate) async fn node(&self, address: IpAddr) -> Result<Option<NodeItself>, ParentError> {
        let url = format!("{}/api/net/node/{}", self.net, undotted(&address));
        let doing = "ask for a node";
        let sent = self.named(self.http.get(&url)).timeout(TABLE_WITHIN).send().await;
        match accepted(doing, url.clone(), sent).await {
            Ok(response) => {
                response.json().await.map(Some).map_err(|source| ParentError::Http { doing, url, source })
            }
            Err(ParentError::Unknown { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Each call gives another block.
    pub(crate) async fn subnet(&self) -> Result<Subnet, ParentError> {
        let url = format!("{}/api/net/subnet", self.net);
        let doing = "ask for a subnet";
        let sent = self.named(self.http.get(&url)).send().await;
        let response = accepted(doing, url.clone(), sent).await?;
        response.json().await.map_err(|source| ParentError::Http { doing, url, source })
    }

    /// Nobody has the block any more that begins here. A root that never knew of it, or is Oakestra's, which takes nothing back, is content.
    pub(crate) async fn return_subnet(&self, first: Ipv4Addr) -> Result<(), ParentError> {
        let url = format!("{}/api/net/subnet/{}", self.net, undotted(&first));
        let sent = self.named(self.http.delete(&url)).send().await;
        match accepted("give a subnet back", url, sent).await {
            Ok(_) | Err(ParentError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where instances are.
    pub(crate) async fn deploy_status(&self, status: &NetDeployStatus) -> Result<(), ParentError> {
        let url = format!("{}/api/net/service/net_deploy_status", self.net);
        let sent = self.named(self.http.post(&url)).json(status).send().await;
        accepted("say where instances are", url, sent).await.map(|_body| ())
    }

    /// Nobody here wants to know of this service any more.
    pub(crate) async fn drop_interest(&self, name: &ServiceName) -> Result<(), ParentError> {
        let url = format!("{}/api/net/interest/{name}", self.net);
        let sent = self.named(self.http.delete(&url)).send().await;
        accepted("drop an interest", url, sent).await.map(|_body| ())
    }
}

/// As paths of the root name it: with `_` for each dot.
fn undotted(name: &impl Display) -> String {
    name.to_string().replace('.', "_")
}

async fn accepted(
    doing: &'static str,
    url: String,
    sent: Result<Response, reqwest::Error>,
) -> Result<Response, ParentError> {
    let response = sent.map_err(|source| ParentError::Http { doing, url: url.clone(), source })?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status @ (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) => {
            Err(ParentError::Unknown { doing, url, status })
        }
        status => {
            let body = response.text().await.unwrap_or_default().chars().take(200).collect();
            Err(ParentError::Refused { doing, url, status, body })
        }
    }
}
