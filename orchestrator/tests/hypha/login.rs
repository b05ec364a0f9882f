//! Logging in at a root, and staying so.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::program::Person;
use crate::root::Root;

#[test]
fn a_login_is_stored_for_its_owner_and_forgotten_by_logout() {
    let root = Root::start();
    let person = root.admin();
    let mode = person.login_file().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let who = person.hypha(&["whoami", "-o", "json"]).exits(0).json();
    assert_eq!(who[0]["user"], "Admin");
    assert_eq!(who[0]["url"], json!(root.url));
    person.hypha(&["logout"]).exits(0);
    person.hypha(&["whoami"]).exits(4);
}

#[test]
fn a_wrong_password_is_exit_4_and_stores_nothing() {
    let root = Root::start();
    let person = Person::new();
    let run = person.hypha_with(&["login", &root.url, "--password-stdin"], "wrong\n").exits(4);
    run.says("does not know this user and password");
    assert!(!person.login_file().exists());
    person.hypha(&["login", &root.url]).exits(2).says("--password-stdin");
}

#[test]
fn an_access_token_that_ran_out_is_renewed_by_itself() {
    let root = Root::start();
    let person = root.admin();
    let change = |key: &str, value: Value| {
        let mut login: Value = serde_json::from_slice(&std::fs::read(person.login_file()).unwrap()).unwrap();
        login[key] = value;
        std::fs::write(person.login_file(), login.to_string()).unwrap();
    };
    change("token", json!("expired"));
    person.hypha(&["get", "apps"]).exits(0);
    let stored: Value = serde_json::from_slice(&std::fs::read(person.login_file()).unwrap()).unwrap();
    assert_ne!(stored["token"], "expired", "the new token is kept");
    change("token", json!("expired"));
    change("refresh_token", json!("expired too"));
    person.hypha(&["get", "apps"]).exits(4).says(&format!("next: hypha login {}", root.url));
}

#[test]
fn a_token_is_only_shown_to_the_root_that_gave_it() {
    let (root, other) = (Root::start(), Root::start());
    let person = root.admin();
    person.hypha(&["--url", &other.url, "get", "apps"]).exits(4).says("not logged in at");
    person.hypha(&["--url", &root.url, "get", "apps"]).exits(0);
}

#[test]
fn a_token_of_the_environment_needs_no_login() {
    let root = Root::start();
    let login: Value = serde_json::from_slice(&std::fs::read(root.admin().login_file()).unwrap()).unwrap();
    let stranger = Person::new();
    let mut command = stranger.command(&["whoami", "-o", "json"]);
    command.env("HYPHA_URL", &root.url).env("HYPHA_TOKEN", login["token"].as_str().unwrap());
    let run: crate::program::Run = command.output().unwrap().into();
    assert_eq!(run.exits(0).json()[0]["user"], "Admin");
    assert!(!stranger.login_file().exists());
}
