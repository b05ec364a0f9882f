//! Tokens: what they say, how long they are good, and what ends them.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::bed::{Answer, Bed};
use crate::people::GOOD_PASSWORD;

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_what_the_dashboard_reads() {
    let bed = Bed::start().await;
    assert_eq!(bed.token.split('.').count(), 3);
    assert_eq!(part(&bed.token, 0)["alg"], "RS256");
    let claims = part(&bed.token, 1);
    assert_eq!(
        (&claims["sub"], &claims["user"], &claims["type"]),
        (&json!("Admin"), &json!("Admin"), &json!("access"))
    );
    assert_eq!(
        claims["roles"],
        json!(["Admin", "Organization_Admin", "Application_Provider", "Infrastructure_Provider"])
    );
    let organization = bed.get("/api/organization/").await.ok()[0].clone();
    assert_eq!(
        (&organization["name"], &organization["_id"]["$oid"]),
        (&json!("root"), &claims["organization"])
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
}

#[tokio::test]
async fn a_refresh_token_gives_new_tokens_once() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let next = bed.refresh(&jane.refresh_token).await.ok();
    let claims = part(next["refresh_token"].as_str().unwrap(), 1);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 7 * 24 * 60 * 60);
    let token = next["token"].as_str().unwrap();
    bed.send_as(token, Method::GET, "/api/services", None).await.ok();
    // A refresh token is good for nothing else, and an access token not for this.
    bed.send_as(&jane.refresh_token, Method::GET, "/api/services", None).await.is(401);
    bed.refresh(&jane.token).await.is(401);
    let third = bed.refresh(next["refresh_token"].as_str().unwrap()).await.ok();

    // Whoever uses one that was used before ends all that came of the login, and nothing else.
    let other = bed.log_in("jane", &jane.id, json!({})).await;
    let said = bed.refresh(&jane.refresh_token).await.is(401);
    assert!(said["message"].as_str().unwrap().contains("used before"), "{said}");
    bed.refresh(third["refresh_token"].as_str().unwrap()).await.is(401);
    for token in [&jane.token, third["token"].as_str().unwrap()] {
        bed.send_as(token, Method::GET, "/api/services", None).await.is(401);
    }
    other.get(&bed, "/api/services").await.ok();
    bed.refresh(&other.refresh_token).await.ok();
}

#[tokio::test]
async fn of_two_at_once_with_one_refresh_token_at_most_one_gets_tokens() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &[]).await;
    let both = futures::future::join_all((0..8).map(|_| bed.refresh(&jane.refresh_token))).await;
    assert_eq!(both.iter().filter(|answer| answer.status == 200).count(), 1);
}

#[tokio::test]
async fn for_clients_that_keep_the_first_refresh_token_it_can_be_let_stay_good() {
    let bed = Bed::with(|config| config.reusable_refresh_tokens = true).await;
    let jane = bed.person("jane", &[]).await;
    for _ in 0..3 {
        bed.refresh(&jane.refresh_token).await.ok();
    }
}

#[tokio::test]
async fn tokens_outlive_a_restart_of_the_root() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let bed = bed.restart().await;
    jane.get(&bed, "/api/applications").await.ok();
    bed.refresh(&jane.refresh_token).await.ok();
}

#[tokio::test]
async fn a_new_password_and_the_end_of_a_user_end_their_tokens() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let change = json!({ "oldPassword": GOOD_PASSWORD, "newPassword": "another horse" });
    jane.post(&bed, "/api/user/jane", change).await.ok();
    jane.get(&bed, "/api/user/jane").await.is(401);
    bed.refresh(&jane.refresh_token).await.is(401);
    let credentials = |password: &str| json!({ "username": "jane", "password": password });
    bed.post("/api/auth/login", credentials(GOOD_PASSWORD)).await.is(401);
    bed.post("/api/auth/login", credentials("another horse")).await.ok();

    let john = bed.person("john", &["Application_Provider"]).await;
    bed.delete("/api/user/john").await.ok();
    john.get(&bed, "/api/applications").await.is(401);
    // Somebody else of the same name is somebody else.
    bed.person("john", &["Application_Provider"]).await.get(&bed, "/api/applications").await.ok();
    john.get(&bed, "/api/applications").await.is(401);
    bed.refresh(&john.refresh_token).await.is(401);
}

#[tokio::test]
async fn what_a_token_may_do_follows_the_roles_of_now() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    jane.get(&bed, "/api/users").await.is(403);
    bed.put("/api/user/jane", json!({ "roles": ["Admin"] })).await.ok();
    jane.get(&bed, "/api/users").await.ok();
    bed.put("/api/user/jane", json!({ "roles": [] })).await.ok();
    jane.get(&bed, "/api/applications").await.is(403);
}

#[tokio::test]
async fn who_fails_to_log_in_too_often_has_to_wait() {
    let bed = Bed::start().await;
    bed.register("jane", &[]).await;
    bed.register("john", &[]).await;
    let log_in = |name: &str, password: &str| {
        bed.request(Method::POST, "/api/auth/login").json(&json!({ "username": name, "password": password }))
    };
    // Who succeeds may do so as often as they like.
    for _ in 0..15 {
        Answer::of(log_in("jane", GOOD_PASSWORD)).await.ok();
    }
    let is_refused = async |request: reqwest::RequestBuilder| {
        let status = request.send().await.unwrap().status();
        assert!(status == 401 || status == 429, "{status}");
        status == 429
    };
    // Time lets a few more through than the ten, if tries are slow.
    let mut let_in = 0;
    while !is_refused(log_in("jane", "wrong horse")).await {
        let_in += 1;
        assert!(let_in < 100);
    }
    assert!(let_in >= 10, "{let_in}");
    let refused = log_in("jane", GOOD_PASSWORD).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    Answer::of(log_in("john", GOOD_PASSWORD)).await.ok();
    // Names do not help whoever tries from one address.
    for number in 0.. {
        if is_refused(log_in(&format!("nobody{number}"), "x")).await {
            assert!(number >= 10, "{number}");
            break;
        }
        assert!(number < 300);
    }
}
