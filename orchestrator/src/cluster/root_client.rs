//! What the cluster asks of its root over HTTP and gRPC. One attempt each; who calls decides whether to try again.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use protocol::cluster::{Report, TAKEN_HEADER};
use protocol::id::Id;
use protocol::name::ServiceName;
use protocol::net::{NetDeployStatus, NetService, NodeItself, Subnet};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::sync::watch;
use tonic::transport::Endpoint;

use super::config::Config;
use super::directory::Subject;
use super::uplink::Link;
use crate::registration::register_cluster_client::RegisterClusterClient;
use crate::registration::{CLUSTER_HEADER, Cs1Message, Cs2Message, KeyValue};

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(20);
/// A worker waits for the answer to a table query, but not longer than 5 s.
const TABLE_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(super) struct RootClient {
    http: Client,
    /// Which cluster this is; Oakestra's root tells by the address, which several clusters may share.
    link: watch::Receiver<Link>,
    api: String,
    net: String,
    grpc: String,
}

/// How the cluster is reached, and what it is called.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    pub(super) name: String,
    pub(super) location: String,
    pub(super) api_port: u16,
    pub(super) net_port: u16,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RootError {
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

impl RootClient {
    pub(super) fn new(config: &Config, link: watch::Receiver<Link>) -> Result<Self, reqwest::Error> {
        let host = if config.root.contains(':') { format!("[{}]", config.root) } else { config.root.clone() };
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
            api: format!("http://{host}:{}", config.root_port),
            net: format!("http://{host}:{}", config.root_net_port),
            grpc: format!("http://{host}:{}", config.root_grpc_port),
        })
    }

    /// Makes the cluster known; the root takes its address from this connection.
    pub(super) async fn register(&self, introduction: &Introduction) -> Result<Id, RootError> {
        let url = || self.grpc.clone();
        let endpoint = Endpoint::from_shared(self.grpc.clone())
            .map_err(|source| RootError::Connect { url: url(), source })?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        let channel = endpoint.connect().await.map_err(|source| RootError::Connect { url: url(), source })?;
        let mut client = RegisterClusterClient::new(channel);
        let failed = |status| RootError::Register { url: url(), source: Box::new(status) };
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
        id.parse().map_err(|_no_id| RootError::InvalidId { url: url(), id })
    }

    /// Gives the number under which the root has kept it, if it is one of ours.
    pub(super) async fn report(&self, cluster: Id, report: &Report) -> Result<Option<u32>, RootError> {
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

    /// `None`: the root knows no such service.
    pub(super) async fn table(&self, subject: &Subject) -> Result<Option<NetService>, RootError> {
        let path = match subject {
            Subject::Name(name) => format!("service/{}", undotted(name)),
            Subject::Address(address) => format!("service/ip/{}", undotted(address)),
        };
        let url = format!("{}/api/net/{path}/instances", self.net);
        let doing = "ask for a table";
        let sent = self.named(self.http.get(&url)).timeout(TABLE_WITHIN).send().await;
        match accepted(doing, url.clone(), sent).await {
            Ok(response) => {
                response.json().await.map(Some).map_err(|source| RootError::Http { doing, url, source })
            }
            Err(RootError::Unknown { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the processes of a node of another cluster are reached. `None`: the root knows no such node, or is
    /// Oakestra's, which never does.
    pub(super) async fn node(&self, address: IpAddr) -> Result<Option<NodeItself>, RootError> {
        let url = format!("{}/api/net/node/{}", self.net, undotted(&address));
        let doing = "ask for a node";
        let sent = self.named(self.http.get(&url)).timeout(TABLE_WITHIN).send().await;
        match accepted(doing, url.clone(), sent).await {
            Ok(response) => {
                response.json().await.map(Some).map_err(|source| RootError::Http { doing, url, source })
            }
            Err(RootError::Unknown { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Each call gives another block.
    pub(super) async fn subnet(&self) -> Result<Subnet, RootError> {
        let url = format!("{}/api/net/subnet", self.net);
        let doing = "ask for a subnet";
        let sent = self.named(self.http.get(&url)).send().await;
        let response = accepted(doing, url.clone(), sent).await?;
        response.json().await.map_err(|source| RootError::Http { doing, url, source })
    }

    /// Nobody has this block any more. A root that never knew of it, or is Oakestra's, which takes nothing back, is content.
    pub(super) async fn return_subnet(&self, subnet: &Subnet) -> Result<(), RootError> {
        let url = format!("{}/api/net/subnet/{}", self.net, undotted(&subnet.subnet_addr));
        let sent = self.named(self.http.delete(&url)).send().await;
        match accepted("give a subnet back", url, sent).await {
            Ok(_) | Err(RootError::Unknown { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where instances are.
    pub(super) async fn deploy_status(&self, status: &NetDeployStatus) -> Result<(), RootError> {
        let url = format!("{}/api/net/service/net_deploy_status", self.net);
        let sent = self.named(self.http.post(&url)).json(status).send().await;
        accepted("say where instances are", url, sent).await.map(|_body| ())
    }

    /// Nobody here wants to know of this service any more.
    pub(super) async fn drop_interest(&self, name: &ServiceName) -> Result<(), RootError> {
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
) -> Result<Response, RootError> {
    let response = sent.map_err(|source| RootError::Http { doing, url: url.clone(), source })?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status @ (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) => {
            Err(RootError::Unknown { doing, url, status })
        }
        status => {
            let body = response.text().await.unwrap_or_default().chars().take(200).collect();
            Err(RootError::Refused { doing, url, status, body })
        }
    }
}
