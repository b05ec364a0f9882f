//! A plain HTTP client inside a namespace, to see what a daemon answers to the letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::interrupt;
use crate::netns::Netns;

/// An API at a base address, with or without a token.
#[derive(Debug, Clone)]
pub struct Api {
    netns: Arc<Netns>,
    base: String,
    token: Option<String>,
}

/// What a daemon answered. A body that is not JSON is a text value.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// The body, if the answer was 200.
    pub fn ok(self) -> Result<Value> {
        ensure!(self.status == StatusCode::OK, "the answer was {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Api {
    #[must_use]
    pub fn new(netns: Arc<Netns>, base: String) -> Self {
        Self { netns, base, token: None }
    }

    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Logs in as `user`: the same API with a token.
    pub fn login(&self, user: &str, password: &str) -> Result<Self> {
        let answer =
            self.post("/api/auth/login", &json!({ "username": user, "password": password }))?.ok()?;
        Ok(self.with_token(answer["token"].as_str().context("a token in the answer to a login")?))
    }

    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(body.to_string()))
    }

    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, None)
    }

    /// Posts an empty object to each of these paths, `at_once` of them at the same time over as many connections. Gives the
    /// first that was not answered with 200.
    pub fn post_all(&self, paths: &[String], at_once: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        let one_after_another = || async {
            let client = self.client()?;
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                interrupt::check()?;
                let url = format!("{}{path}", self.base);
                let answer = self.exchange(&client, Method::POST, &url, Some("{}".to_owned())).await;
                answer.and_then(Answer::ok).with_context(|| format!("POST {url}"))?;
            }
            Ok(())
        };
        self.block_on(|| futures::future::try_join_all((0..at_once).map(|_| one_after_another())))?.map(drop)
    }

    /// Sends `body` as it is, whatever it is, and calls it JSON.
    pub fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let doing = format!("{method} {url}");
        let exchange = || async { self.exchange(&self.client()?, method, &url, body).await };
        self.block_on(exchange)?.with_context(|| doing)
    }

    fn block_on<T: Send, F: Future<Output = T>>(&self, make: impl FnOnce() -> F + Send) -> Result<T> {
        self.netns.run(|| {
            // The runtime is made on the namespace's thread, so that its sockets are in the namespace.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("make a runtime")?;
            Ok(runtime.block_on(make()))
        })?
    }

    fn client(&self) -> Result<Client> {
        Client::builder().no_proxy().timeout(Duration::from_secs(15)).build().context("make an HTTP client")
    }

    async fn exchange(
        &self,
        client: &Client,
        method: Method,
        url: &str,
        body: Option<String>,
    ) -> Result<Answer> {
        let mut request = client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        Ok(Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }
}
