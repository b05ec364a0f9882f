//! A root in this process on ports of its own, and a client that is logged in.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator::root::{Addresses, Bound, Config, RootError};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const PASSWORD: &str = "Admin";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    pub(crate) data: TempDir,
    pub(crate) at: Addresses,
    pub(crate) token: String,
    client: Client,
    /// Stops the root when the bed is left.
    shutdown: DropGuard,
    running: JoinHandle<Result<(), RootError>>,
}

/// What the root answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

pub(crate) fn config(data_dir: &Path, addresses: Option<Addresses>) -> Config {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let Addresses { api, net, grpc } = addresses.unwrap_or(Addresses { api: free, net: free, grpc: free });
    Config {
        data_dir: data_dir.to_owned(),
        store: None,
        api,
        net,
        grpc,
        insecure_admin_password: Some(PASSWORD.to_owned()),
        cluster_timeout: Duration::from_secs(300),
        plan: protocol::plan::Plan::default(),
        mail: None,
        reusable_refresh_tokens: false,
    }
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap(), None).await
    }

    /// A root with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path(), None);
        change(&mut config);
        Self::of(data, config).await
    }

    pub(crate) async fn on(data: TempDir, addresses: Option<Addresses>) -> Self {
        let config = config(data.path(), addresses);
        Self::of(data, config).await
    }

    async fn of(data: TempDir, config: Config) -> Self {
        let bound = Bound::open(config).await.unwrap();
        let at = bound.addresses().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.serve(shutdown.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        let shutdown = shutdown.drop_guard();
        let mut bed = Self { data, at, token: String::new(), client, shutdown, running };
        let credentials = json!({ "username": "Admin", "password": PASSWORD });
        let answer = bed.send(Method::POST, "/api/auth/login", Some(credentials)).await;
        bed.token = answer.ok()["token"].as_str().unwrap().to_owned();
        bed
    }

    /// Stops the root, and starts another on what it left, at the same addresses.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.disarm().cancel();
        self.running.await.unwrap().unwrap();
        Self::on(self.data, Some(self.at)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send_as(&self.token, method, path, body).await
    }

    /// A request of the API by whoever has this token.
    pub(crate) async fn send_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    /// A request of the API without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.at.api))
    }

    /// A request of the port for service addresses.
    pub(crate) async fn net(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.net_request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::of(request).await
    }

    pub(crate) fn net_request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.at.net))
    }

    /// Makes an application with one service; returns the service's id.
    pub(crate) async fn service(&self, application: &str, service: Value) -> String {
        self.post("/api/application/", sla(application, service)).await.ok();
        let services = self.get("/api/services/").await.ok();
        let own = services.as_array().unwrap().iter().find(|one| one["app_name"] == application).unwrap();
        own["microserviceID"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn deploy(&self, service: &str) {
        self.post(&format!("/api/service/{service}/instance"), json!({})).await.ok();
    }

    /// The service, once `wanted` holds of it.
    pub(crate) async fn service_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/api/service/{id}");
        let holds = |answer: &Answer| wanted(&answer.body).then(|| answer.body.clone());
        eventually("the service", || self.get(&path), holds).await
    }
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        Self { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        self.is(200)
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }
}

/// Asks again until the answer holds, and says the last one when it never does.
pub(crate) async fn eventually<T: std::fmt::Debug, R, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    holds: impl Fn(&T) -> Option<R>,
) -> R {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if let Some(result) = holds(&answer) {
            return result;
        }
        assert!(Instant::now() < deadline, "{what} never came to be as expected, last: {answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn web() -> Value {
    json!({
        "microservice_name": "web",
        "microservice_namespace": "test",
        "virtualization": "container",
        "code": "docker.io/library/nginx:latest",
        "memory": 100,
        "vcpus": 1,
        "cmd": ["sh", "-c", "true"],
    })
}

pub(crate) fn web_at(address: &str) -> Value {
    let mut service = web();
    service["addresses"] = json!({ "rr_ip": address });
    service
}

pub(crate) fn sla(application: &str, service: Value) -> Value {
    json!({
        "sla_version": "v2.0",
        "customerID": "Admin",
        "applications": [{
            "application_name": application,
            "application_namespace": "test",
            "application_desc": "of a test",
            "microservices": [service],
        }],
    })
}
