//! A plain HTTP client inside a namespace, to see what a daemon answers to the letter.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

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

    /// Sends `body` as it is, whatever it is, and calls it JSON.
    pub fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer> {
        let url = format!("{}{path}", self.base);
        let doing = format!("{method} {url}");
        self.netns
            .run(|| {
                // The runtime is made on the namespace's thread, so that its sockets are in the namespace.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .context("make a runtime")?;
                runtime.block_on(self.exchange(method, &url, body))
            })?
            .with_context(|| doing)
    }

    async fn exchange(&self, method: Method, url: &str, body: Option<String>) -> Result<Answer> {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(15)).build()?;
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
