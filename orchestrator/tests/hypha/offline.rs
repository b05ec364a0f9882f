//! What needs no root.

use crate::program::Person;

#[test]
fn without_a_login_the_next_command_is_named() {
    let run = Person::new().hypha(&["get", "services"]).exits(4);
    assert_eq!(run.talk, "error: not logged in\n  next: hypha login URL\n");
    assert_eq!(run.answer, "");
}

#[test]
fn a_root_that_does_not_answer_is_out_of_reach() {
    let person = Person::new();
    // A port that nothing listens on: this one is never given out.
    let mut command = person.command(&["--url", "127.0.0.1:1", "get", "apps", "-o", "json"]);
    let run: crate::program::Run = command.env("HYPHA_TOKEN", "x").output().unwrap().into();
    let error = run.exits(7).error();
    assert_eq!(error["code"], "E-OUT-OF-REACH");
    assert!(error["title"].as_str().unwrap().contains("http://127.0.0.1:1"), "{error}");
    assert!(error["detail"].as_str().unwrap().contains("check: nothing listens there"), "{error}");
}

#[test]
fn wrong_words_and_files_are_usage_errors() {
    let person = Person::new();
    let file = person.write("shop.json", "{\n  \"sla_version\": \"v2.0\"\n  \"customerID\": \"Admin\"\n}");
    for arguments in [
        &["gte"] as &[&str],
        &["get"],
        &["get", "pods"],
        &["scale", "web"],
        &["login", "https://root.lan", "--password-stdin"],
        &["apply", "-f", "/nonexistent/shop.json"],
        &["apply", "-f", &file],
    ] {
        person.hypha(arguments).exits(2);
    }
    person.hypha(&["apply", "-f", &file]).says("shop.json:3:3  expected `,` or `}`");
    person.hypha_with(&["apply", "-f", "-"], "[]").exits(2).says("stdin");
}

#[test]
fn help_and_version_are_answers() {
    let person = Person::new();
    for arguments in [&["--help"] as &[&str], &["help"], &["help", "scale"], &["help", "exit-codes"], &[]] {
        let run = person.hypha(arguments).exits(0);
        assert!(run.answer.contains("Exit codes:"), "{run:#?}");
    }
    assert!(person.hypha(&["version"]).exits(0).answer.starts_with("hypha "));
    person.hypha(&["help", "nothing"]).exits(2).says("topics: exit-codes, environment, names, sla");
}

#[test]
fn each_shell_gets_a_completion_script() {
    for (shell, sign) in
        [("bash", "complete -F _hypha"), ("zsh", "#compdef hypha"), ("fish", "complete -c hypha")]
    {
        let run = Person::new().hypha(&["completion", shell]).exits(0);
        assert!(run.answer.contains(sign), "{shell}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let person = Person::new();
    let mut child =
        person.command(&["completion", "bash"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn logging_out_twice_is_once() {
    Person::new().hypha(&["logout"]).exits(0).says("was not logged in");
}
