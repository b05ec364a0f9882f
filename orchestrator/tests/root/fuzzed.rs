//! Thousands of requests that a program makes up from the API's own description.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::described::{Furnished, furnish};
use crate::resets::bed_with_mail;

const VERSION: &str = "4.32.5";
/// For each operation and each way to make requests up.
const EXAMPLES: &str = "8";

/// Installs Schemathesis in a Python environment of its own beside the build, once.
async fn schemathesis() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let program = environment.join("bin/schemathesis");
    if !program.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment)).await;
        let package = format!("schemathesis=={VERSION}");
        run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", &package])).await;
    }
    program
}

/// It must end well.
async fn run(command: &mut Command) {
    let shown = format!("{:?}", command.as_std());
    let output = command.output().await.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{shown}\n{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_the_description_allows_or_forbids_makes_the_root_fail_or_answer_otherwise() {
    let program = schemathesis().await;
    let (bed, _mails) = bed_with_mail().await;
    let Furnished { shown, clusters: _clusters } = furnish(&bed).await;
    let service = shown["microserviceID"].as_str().unwrap();

    let folder = tempfile::tempdir().unwrap();
    // What it makes up is hardly ever the id of something.
    let reads = ["/api/service/{id}", "/v1/why/{id}"].map(|path| {
        format!(
            "[[operations]]\ninclude-path = \"{path}\"\ninclude-method = \"GET\"\n\
             parameters = {{ id = \"{service}\" }}\n"
        )
    });
    std::fs::write(folder.path().join("schemathesis.toml"), reads.concat()).unwrap();
    let mut fuzzer = Command::new(program);
    fuzzer
        .current_dir(&folder)
        .args(["run", &format!("http://{}/docs/openapi.json", bed.at.api)])
        .args(["-H", &format!("Authorization: Bearer {}", bed.token)])
        // It has no end.
        .args(["--exclude-path", "/v1/stream"])
        .args(["--phases", "examples,coverage,fuzzing", "-n", EXAMPLES, "--generation-deterministic"])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args(["--checks", "content_type_conformance,response_schema_conformance"])
        .arg("--no-color");
    run(&mut fuzzer).await;
    bed.get("/api/clusters").await.ok();
}
