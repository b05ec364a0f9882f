//! The root's HTTP API, as far as the command line uses it: calls in, documents out.

mod document;
mod listening;
mod refusal;

use std::cell::RefCell;
use std::time::Duration;

use protocol::id::Id;
use protocol::overview::Overview;
use protocol::validation::Validation;
use reqwest::{ClientBuilder, Method, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use self::document::{App, Fetched, Told};
pub(crate) use self::listening::{Change, Listening, Topic};
pub(crate) use self::refusal::{ApiError, Unreachable};
use crate::address::Address;
use crate::session::Session;
use protocol::cluster::Cluster;
use protocol::decision::Why;
use protocol::service::Service;

/// A host that does not answer the handshake within this time is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A root that is listened to gives a sign of life every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// A connection to one root, logged in or not.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    root: Address,
    session: RefCell<Option<Session>>,
    /// Held while the token is renewed: the right to renew it is good once, also for requests that run side by side.
    renewing: tokio::sync::Mutex<()>,
    /// Told of each renewed token.
    renewed: fn(&Session),
}

/// The two tokens of a login.
#[derive(Debug, serde::Deserialize)]
struct Tokens {
    token: String,
    #[serde(default)]
    refresh_token: Option<String>,
}

/// What an operator wants of a worker: that it gets nothing new, that it also becomes empty, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Cordon,
    Drain,
    Uncordon,
}

impl Client {
    /// `renewed` is called with each session that got a new token, so that it can be stored.
    pub(crate) fn new(
        root: Address,
        session: Option<Session>,
        timeout: Duration,
        renewed: fn(&Session),
    ) -> Result<Self, ApiError> {
        let http = http(&root).timeout(timeout).build().map_err(ApiError::Setup)?;
        Ok(Self {
            http,
            root,
            session: RefCell::new(session),
            renewing: tokio::sync::Mutex::default(),
            renewed,
        })
    }

    pub(crate) const fn root(&self) -> &Address {
        &self.root
    }

    pub(crate) fn session(&self) -> Option<Session> {
        self.session.borrow().clone()
    }

    /// Logs in; the session that comes of it is used from here on.
    pub(crate) async fn log_in(&self, user: &str, password: &str) -> Result<Session, ApiError> {
        let body = json!({ "username": user, "password": password });
        let answer = self.send(Method::POST, "/api/auth/login", Some(&body), None).await?;
        let Tokens { token, refresh_token } = self.read("/api/auth/login", answer)?;
        let session = Session { url: self.root.to_string(), user: user.to_owned(), token, refresh_token };
        *self.session.borrow_mut() = Some(session.clone());
        Ok(session)
    }

    pub(crate) async fn apps(&self) -> Result<Vec<Fetched<App>>, ApiError> {
        self.get("/api/applications/").await
    }

    pub(crate) async fn services(&self) -> Result<Vec<Fetched<Service>>, ApiError> {
        self.get("/api/services/").await
    }

    pub(crate) async fn service(&self, id: Id) -> Result<Fetched<Service>, ApiError> {
        self.get(&format!("/api/service/{id}")).await
    }

    pub(crate) async fn clusters(&self) -> Result<Vec<Fetched<Cluster>>, ApiError> {
        self.get("/api/clusters/").await
    }

    pub(crate) async fn workers(&self) -> Result<Told, ApiError> {
        self.get("/v1/workers").await
    }

    pub(crate) async fn overview(&self) -> Result<Overview, ApiError> {
        self.get("/v1/status").await
    }

    /// Why the instances of a service are where they are.
    pub(crate) async fn why(&self, service: Id) -> Result<Why, ApiError> {
        self.get(&format!("/v1/why/{service}")).await
    }

    /// Gives a cluster nothing new, or lets it have instances again.
    pub(crate) async fn hold_cluster(&self, cluster: Id, cordoned: bool) -> Result<(), ApiError> {
        let verb = if cordoned { "cordon" } else { "uncordon" };
        self.call(Method::POST, &format!("/v1/clusters/{cluster}/{verb}"), None).await.map(drop)
    }

    /// Says what is wanted of a worker.
    pub(crate) async fn say(&self, worker: Id, word: Word) -> Result<(), ApiError> {
        let verb = match word {
            Word::Cordon => "cordon",
            Word::Drain => "drain",
            Word::Uncordon => "uncordon",
        };
        self.call(Method::POST, &format!("/v1/workers/{worker}/{verb}"), None).await.map(drop)
    }

    /// Takes a worker that is gone for good out of its cluster.
    pub(crate) async fn delete_worker(&self, id: Id) -> Result<(), ApiError> {
        self.call(Method::DELETE, &format!("/v1/workers/{id}"), None).await.map(drop)
    }

    /// Registers the applications of an SLA document. Starts no instance.
    pub(crate) async fn create_apps(&self, document: &Value) -> Result<(), ApiError> {
        self.call(Method::POST, "/api/application/", Some(document)).await.map(drop)
    }

    /// Registers the services of an SLA document whose one application has its `applicationID` set.
    pub(crate) async fn create_services(&self, document: &Value) -> Result<(), ApiError> {
        self.call(Method::POST, "/api/service/", Some(document)).await.map(drop)
    }

    pub(crate) async fn delete_app(&self, id: Id) -> Result<(), ApiError> {
        self.call(Method::DELETE, &format!("/api/application/{id}"), None).await.map(drop)
    }

    pub(crate) async fn delete_service(&self, id: Id) -> Result<(), ApiError> {
        self.call(Method::DELETE, &format!("/api/service/{id}"), None).await.map(drop)
    }

    /// Asks for one more instance.
    pub(crate) async fn start_instance(&self, service: Id) -> Result<(), ApiError> {
        self.call(Method::POST, &format!("/api/service/{service}/instance"), Some(&json!({}))).await.map(drop)
    }

    pub(crate) async fn stop_instance(&self, service: Id, number: u32) -> Result<(), ApiError> {
        let path = format!("/api/service/{service}/instance/{number}");
        self.call(Method::DELETE, &path, None).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let answer = self.call(Method::GET, path, None).await?;
        self.read(path, answer)
    }

    /// What would become of an SLA document. Nothing is made of it.
    pub(crate) async fn validate(&self, document: &Value) -> Result<Validation, ApiError> {
        const PATH: &str = "/v1/validate";
        let answer = self.call(Method::POST, PATH, Some(document)).await?;
        self.read(PATH, answer)
    }

    /// Listens to what changes since `moment`, or to everything from its beginning.
    pub(crate) async fn listen(&self, topics: &[Topic], moment: Option<&str>) -> Result<Listening, ApiError> {
        let names: Vec<_> = topics.iter().map(|topic| topic.name()).collect();
        let path = format!("/v1/stream?topics={}", names.join(","));
        let http = http(&self.root).read_timeout(SILENCE_MAX).build().map_err(ApiError::Setup)?;
        let open = async |token: String| {
            let mut request = http.get(format!("{}{path}", self.root)).bearer_auth(token);
            if let Some(moment) = moment {
                request = request.header("Last-Event-ID", moment);
            }
            let answer = request.send().await.map_err(|source| self.unreachable(source))?;
            if answer.status().is_success() {
                Ok(answer)
            } else {
                Err(self.refusal(&Method::GET, &path, answer).await?)
            }
        };
        let response = self.logged_in(open).await?;
        Ok(Listening::new(self.root.clone(), path, response))
    }

    /// One request, logged in.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        self.logged_in(async |token: String| self.send(method.clone(), path, body, Some(&token)).await).await
    }

    /// A request with the token. One that has run out is renewed once: it lives for ten minutes, the right to renew
    /// it for days.
    async fn logged_in<T>(
        &self,
        request: impl AsyncFn(String) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let Some(session) = self.session() else {
            return Err(ApiError::NotLoggedIn { root: self.root.clone() });
        };
        let answer = request(session.token.clone()).await;
        match (answer, &session.refresh_token) {
            (Err(ApiError::Expired { .. }), Some(_)) => request(self.renew(&session).await?).await,
            (answer, _) => answer,
        }
    }

    /// Another token in place of that of this session, which has run out.
    async fn renew(&self, expired: &Session) -> Result<String, ApiError> {
        let _turn = self.renewing.lock().await;
        if let Some(session) = self.session().filter(|session| session.token != expired.token) {
            return Ok(session.token);
        }
        let path = "/api/auth/refresh";
        let refresh_token = expired.refresh_token.as_deref();
        let answer = self.send(Method::POST, path, Some(&json!({})), refresh_token).await;
        let answer = answer.map_err(|error| match error {
            // Whatever the root has against the old login, the cure is a new one.
            ApiError::NotFound { .. } | ApiError::Forbidden { .. } => {
                ApiError::Expired { root: self.root.clone() }
            }
            other => other,
        })?;
        let Tokens { token, refresh_token } = self.read(path, answer)?;
        if let Some(session) = self.session.borrow_mut().as_mut() {
            session.token.clone_from(&token);
            session.refresh_token = refresh_token.or_else(|| session.refresh_token.take());
            (self.renewed)(session);
        }
        Ok(token)
    }

    /// One request as it is; an answer that is no success becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<Value, ApiError> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.root));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|source| self.unreachable(source))?;
        if !answer.status().is_success() {
            return Err(self.refusal(&method, path, answer).await?);
        }
        let bytes = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        document::value(&bytes).ok_or_else(|| ApiError::foreign(&self.root, path, "no JSON"))
    }

    /// What an answer that is no success says.
    async fn refusal(&self, method: &Method, path: &str, answer: Response) -> Result<ApiError, Unreachable> {
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|source| self.unreachable(source))?;
        Ok(refusal::read(&self.root, method, path, status, document::value(&bytes).as_ref(), &bytes))
    }

    fn unreachable(&self, source: reqwest::Error) -> Unreachable {
        Unreachable { root: self.root.clone(), source }
    }

    fn read<T: DeserializeOwned>(&self, path: &str, answer: Value) -> Result<T, ApiError> {
        serde_json::from_value(answer)
            .map_err(|error| ApiError::foreign(&self.root, path, &error.to_string()))
    }
}

fn http(root: &Address) -> ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("hypha/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    if root.is_loopback() { builder.no_proxy() } else { builder }
}
