//! Users that tests make, and what they do.

use reqwest::Method;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};

pub(crate) const GOOD_PASSWORD: &str = "correct horse";

/// Somebody who is logged in.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) refresh_token: String,
}

impl Bed {
    /// A user with these roles in `root`, logged in.
    pub(crate) async fn person(&self, name: &str, roles: &[&str]) -> Person {
        let user = self.register(name, roles).await;
        self.log_in(name, user["_id"]["$oid"].as_str().unwrap(), json!({})).await
    }

    pub(crate) async fn register(&self, name: &str, roles: &[&str]) -> Value {
        let newcomer = json!({
            "name": name, "password": GOOD_PASSWORD, "email": format!("{name}@example.org"),
            "created_at": "22/11/2026 19:09", "roles": roles,
        });
        self.post("/api/auth/register", newcomer).await.ok()
    }

    /// Logs a registered user in, with more in the request.
    pub(crate) async fn log_in(&self, name: &str, id: &str, more: Value) -> Person {
        let mut credentials = json!({ "username": name, "password": GOOD_PASSWORD });
        credentials.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let tokens = Answer::of(self.request(Method::POST, "/api/auth/login").json(&credentials)).await.ok();
        let text = |key: &str| tokens[key].as_str().unwrap().to_owned();
        Person {
            name: name.to_owned(),
            id: id.to_owned(),
            token: text("token"),
            refresh_token: text("refresh_token"),
        }
    }

    /// An organization with one member, who is logged in to it.
    pub(crate) async fn organization(&self, name: &str, member: &str, roles: &[&str]) -> (String, Person) {
        let user = self.register(member, &[]).await;
        let user_id = user["_id"]["$oid"].as_str().unwrap();
        let founding = json!({ "name": name, "member": [{ "user_id": user_id, "roles": roles }] });
        let id = self.post("/api/organization/", founding).await.ok();
        let person = self.log_in(member, user_id, json!({ "organization_name": name })).await;
        (id.as_str().unwrap().to_owned(), person)
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        self.send_as(refresh_token, Method::POST, "/api/auth/refresh", Some(json!({}))).await
    }
}

impl Person {
    pub(crate) async fn get(&self, bed: &Bed, path: &str) -> Answer {
        bed.send_as(&self.token, Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, bed: &Bed, path: &str, body: Value) -> Answer {
        bed.send_as(&self.token, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, bed: &Bed, path: &str, body: Value) -> Answer {
        bed.send_as(&self.token, Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, bed: &Bed, path: &str) -> Answer {
        bed.send_as(&self.token, Method::DELETE, path, None).await
    }
}
