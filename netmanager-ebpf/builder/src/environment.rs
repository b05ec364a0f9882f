//! What a cargo inside of cargo must not inherit.

use std::process::Command;

/// The user's own settings among cargo's variables: where its caches are, and how it reaches registries.
const KEPT: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_TERM_"];

/// Compilers, wrappers and flags chosen for the host.
const SCRUBBED: [&str; 8] =
    ["CARGO", "CLIPPY_", "MAKEFLAGS", "MFLAGS", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];

/// What cargo sets for a build script, and only there: build scripts of dependencies that watch one of them would
/// run again whenever the object is built from elsewhere.
const PARAMETERS: [&str; 7] = ["DEBUG", "HOST", "NUM_JOBS", "OPT_LEVEL", "OUT_DIR", "PROFILE", "TARGET"];

/// Removes from `command` what the outer cargo, rustup or clippy put into the environment.
pub(crate) fn scrub(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_the_outer_build) {
            command.env_remove(name);
        }
    }
}

fn is_of_the_outer_build(name: &str) -> bool {
    let begins_with_one_of = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    PARAMETERS.contains(&name) || (begins_with_one_of(&SCRUBBED) && !begins_with_one_of(&KEPT))
}

#[cfg(test)]
mod tests {
    use super::is_of_the_outer_build;

    #[test]
    fn compiler_choice_of_the_outer_build_is_dropped() {
        for name in [
            "CARGO",
            "CARGO_BUILD_RUSTC",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "CLIPPY_ARGS",
            "HOST",
            "MAKEFLAGS",
            "OUT_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_of_the_outer_build(name), "{name}");
        }
    }

    #[test]
    fn settings_of_the_user_are_kept() {
        for name in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR", "PATH", "RUSTUP_HOME", "SSL_CERT_FILE"]
        {
            assert!(!is_of_the_outer_build(name), "{name}");
        }
    }
}
