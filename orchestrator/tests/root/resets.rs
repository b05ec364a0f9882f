//! A forgotten password: the mail that a server of SMTP gets, and the link in it.

use orchestrator::root::MailConfig;
use reqwest::{Method, header};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::bed::{Answer, Bed};
use crate::people::GOOD_PASSWORD;

/// Takes mail, as much of SMTP as that needs, and passes it on.
async fn mail_server() -> (u16, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (inbox, mails) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(session(stream, inbox.clone()));
        }
    });
    (port, mails)
}

async fn session(stream: TcpStream, inbox: mpsc::UnboundedSender<String>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 test\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let answer: &[u8] = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => b"250 test\r\n",
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    mail.push_str(&line);
                    mail.push('\n');
                }
                let _nobody_waits = inbox.send(mail);
                b"250 taken\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 ok\r\n",
        };
        write.write_all(answer).await?;
    }
    Ok(())
}

pub(crate) async fn bed_with_mail() -> (Bed, mpsc::UnboundedReceiver<String>) {
    let (port, mails) = mail_server().await;
    let bed = Bed::with(|config| {
        config.mail = Some(MailConfig {
            server: format!("smtp://127.0.0.1:{port}"),
            from: "Hypha <hypha@example.org>".parse().unwrap(),
            dashboard: "https://dashboard.example.org/".to_owned(),
        });
    })
    .await;
    (bed, mails)
}

/// The token of the link in a mail.
fn token(mail: &str) -> String {
    // Long lines are wrapped.
    let text = mail.replace("=\n", "").replace("=3D", "=");
    let link = text.split_whitespace().find(|word| word.contains("/resetPassword/")).expect(&text);
    link.strip_prefix("https://dashboard.example.org/resetPassword/").expect(link).to_owned()
}

#[tokio::test]
async fn a_link_sets_a_new_password_once_and_leads_to_our_dashboard_only() {
    let (bed, mut mails) = bed_with_mail().await;
    let jane = bed.person("jane", &[]).await;
    let ask = || bed.post("/api/user/", json!({ "username": "jane", "domain": "evil.example" }));
    assert_eq!(ask().await.ok(), json!({}));
    let mail = mails.recv().await.unwrap();
    assert!(mail.contains("jane@example.org") && !mail.contains("evil.example"), "{mail}");
    let token = token(&mail);
    let set =
        |token: &str, password: &str| bed.put("/api/user/", json!({ "token": token, "password": password }));

    set("guess", "another horse").await.is(400);
    set(&token, "short").await.is(400);
    assert_eq!(set(&token, "another horse").await.ok(), json!({}));
    set(&token, "a third horse").await.is(400);
    jane.get(&bed, "/api/user/jane").await.is(401);
    let credentials = |password: &str| json!({ "username": "jane", "password": password });
    bed.post("/api/auth/login", credentials(GOOD_PASSWORD)).await.is(401);
    bed.post("/api/auth/login", credentials("another horse")).await.ok();
}

#[tokio::test]
async fn a_link_is_worthless_when_the_password_was_changed_meanwhile() {
    let (bed, mut mails) = bed_with_mail().await;
    let jane = bed.person("jane", &[]).await;
    bed.post("/api/user", json!({ "username": "jane", "domain": "" })).await.ok();
    let token = token(&mails.recv().await.unwrap());
    let change = json!({ "oldPassword": GOOD_PASSWORD, "newPassword": "another horse" });
    jane.post(&bed, "/api/user/jane", change).await.ok();
    bed.put("/api/user", json!({ "token": token, "password": "a third horse" })).await.is(400);
}

#[tokio::test]
async fn the_answer_does_not_say_who_is_a_user_and_mails_are_limited() {
    let (bed, _mails) = bed_with_mail().await;
    let ask = |name: &str| {
        bed.request(Method::POST, "/api/user/").json(&json!({ "username": name, "domain": "x" }))
    };
    for name in ["nobody", "a/b", "Admin"] {
        assert_eq!(Answer::of(ask(name)).await.ok(), json!({}));
    }
    for _ in 0..2 {
        Answer::of(ask("nobody")).await.ok();
    }
    let refused = ask("nobody").send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn without_a_mail_server_it_is_said() {
    let bed = Bed::start().await;
    let said = bed.post("/api/user/", json!({ "username": "Admin", "domain": "x" })).await.is(503);
    assert!(said["message"].as_str().unwrap().contains("--smtp-url"), "{said}");
}
