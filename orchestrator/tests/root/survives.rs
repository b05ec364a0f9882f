//! `kill -9` at any time: what was answered is there afterwards, and what is there is whole.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::bed::{PASSWORD, sla, web};

/// A root as a process of its own, which can be killed.
struct Process {
    child: Child,
    api: SocketAddr,
    client: Client,
    token: String,
}

impl Process {
    async fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(["root", "--bind", "127.0.0.1", "--port", "0", "--grpc-port", "0", "--net-port", "0"])
            .args(["--insecure-admin-password", PASSWORD, "--data-dir"])
            .arg(data)
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let api = log
            .find(|line| line.contains("root started"))
            .and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("api=")?.parse().ok()))
            .expect("it says where its API is");
        std::thread::spawn(move || log.for_each(drop));
        let mut process = Self { child, api, client: Client::new(), token: String::new() };
        let credentials = json!({ "username": "Admin", "password": PASSWORD });
        let tokens = process.ask(Method::POST, "/api/auth/login", &credentials).await.unwrap();
        process.token = tokens["token"].as_str().unwrap().to_owned();
        process
    }

    /// The answer, if there was one and it was a good one.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Option<Value> {
        let request = self.client.request(method, format!("http://{}{path}", self.api));
        let response = request.bearer_auth(&self.token).json(body).send().await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }

    async fn list(&self, path: &str) -> Vec<Value> {
        let answer = self.ask(Method::GET, path, &Value::Null).await.unwrap();
        answer.as_array().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn what_was_answered_before_a_kill_is_there_after_it_and_whole() {
    let data = tempfile::tempdir().unwrap();
    let mut answered = HashSet::new();
    for round in 0..4_u32 {
        let mut process = Process::start(data.path()).await;
        check(&process, &answered).await;
        let kill_after = tokio::time::sleep(Duration::from_millis(20 + u64::from(round) * 37));
        let work = async {
            for number in 0_u32.. {
                let name = format!("app{round}x{number}");
                let Some(made) = process.ask(Method::POST, "/api/application", &sla(&name, web())).await
                else {
                    break;
                };
                answered.insert(name.clone());
                let made = made
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|one| one["application_name"] == name)
                    .unwrap()
                    .clone();
                let path = format!("/api/service/{}/instance", made["microservices"][0].as_str().unwrap());
                if process.ask(Method::POST, &path, &Value::Null).await.is_none() {
                    break;
                }
            }
        };
        tokio::select! {
            () = kill_after => {}
            () = work => {}
        }
        process.child.kill().unwrap();
    }
    assert!(!answered.is_empty(), "nothing was made before the first kill");
    check(&Process::start(data.path()).await, &answered).await;
}

/// `orchestrator` with these words: its exit code, and what it said.
fn orchestrator(words: &[&str], data: &Path, file: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    let output = command.args(words).arg("--data-dir").arg(data).arg(file).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn a_backup_of_a_running_root_is_what_there_is_after_it_was_restored() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("root"), directory.path().join("backup.db"));
    let mut process = Process::start(&data).await;
    process.ask(Method::POST, "/api/application", &sla("kept", web())).await.unwrap();
    assert_eq!(orchestrator(&["backup"], &data, &file).0, Some(0));
    let (code, said) = orchestrator(&["backup"], &data, &file);
    assert!(code == Some(1) && said.contains("exists already"), "{said}");
    process.ask(Method::POST, "/api/application", &sla("later", web())).await.unwrap();
    let (code, said) = orchestrator(&["restore", "--replace"], &data, &file);
    assert!(code == Some(1) && said.contains("in use by another orchestrator"), "{said}");
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let (code, said) = orchestrator(&["restore"], &data, &file);
    assert!(code == Some(1) && said.contains("--replace"), "{said}");
    let (code, said) = orchestrator(&["restore", "--replace"], &data, &file);
    assert!(code == Some(0) && said.contains("what was there is state.db.replaced"), "{said}");
    check(&Process::start(&data).await, &HashSet::from(["kept".to_owned()])).await;

    // The whole of it, on another machine.
    let elsewhere = directory.path().join("elsewhere");
    assert_eq!(orchestrator(&["restore"], &elsewhere, &file).0, Some(0));
    let process = Process::start(&elsewhere).await;
    assert_eq!(process.list("/api/applications").await.len(), 1);
    let (code, said) = orchestrator(&["backup"], directory.path(), &directory.path().join("none.db"));
    assert!(code == Some(1) && said.contains("is of a standalone orchestrator"), "{said}");
}

async fn check(process: &Process, answered: &HashSet<String>) {
    let applications = process.list("/api/applications").await;
    let services = process.list("/api/services").await;
    let names: HashSet<_> =
        applications.iter().map(|one| one["application_name"].as_str().unwrap().to_owned()).collect();
    assert!(answered.is_subset(&names), "lost: {:?}", answered.difference(&names));
    assert_eq!(applications.len(), services.len(), "an application and its service come together");
    let owned: HashSet<_> = applications.iter().map(|one| one["microservices"][0].to_string()).collect();
    assert!(services.iter().all(|one| owned.contains(&one["microserviceID"].to_string())));
    let addresses: HashSet<_> = services.iter().map(|one| one["RR_ip"].to_string()).collect();
    assert_eq!(addresses.len(), services.len(), "two services have one address");
    for service in &services {
        let instances = service["instance_list"].as_array().unwrap().len();
        assert_eq!(json!(instances), service["next_instance_progressive_number"]);
    }
}
