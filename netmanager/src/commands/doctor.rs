//! `netmanager doctor`: whether this machine has what is needed.

use std::io::{self, Write};

use anyhow::Result;

use super::exit::Exit;
use super::write_json;
use crate::app::Paths;
use crate::cli::{Configuration, Format};
use crate::config::{Config, ConfigError};
use crate::doctor::{self, Check, Verdict};
use crate::error::chain;

/// Ends with [`Exit::Broken`] if something does not work; what is only degraded is no failure.
///
/// # Errors
/// When the answer cannot be written.
pub async fn run(paths: &Paths, asked: &Configuration, format: Format, out: &mut impl Write) -> Result<Exit> {
    let (config, wrong) = match Config::read(&asked.file) {
        Ok(config) => (Some(config), None),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => (None, None),
        Err(error) => (None, Some(error)),
    };
    let configured = config.as_ref().map(|config| config.datapath);
    let choice = asked.datapath.or(configured).unwrap_or_default();
    let mut checks = doctor::examine(paths, config.as_ref(), choice).await;
    if let Some(error) = wrong {
        checks.retain(|check| check.id != doctor::CONFIGURATION);
        checks.push(doctor::wrong_configuration(chain(&error)));
    }
    match format {
        Format::Json => write_json(out, &checks)?,
        Format::Table => write(out, &checks)?,
    }
    let broken = checks.iter().any(|check| check.verdict == Verdict::Broken);
    Ok(if broken { Exit::Broken } else { Exit::Done })
}

fn write(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    for check in checks {
        let mark = match check.verdict {
            Verdict::Fine => "ok",
            Verdict::Degraded => "warn",
            Verdict::Broken => "FAIL",
        };
        writeln!(out, "{mark:<4}  {:<21}  {}", check.id, check.evidence)?;
        if let Some(effect) = &check.effect {
            writeln!(out, "{:<29}{effect}", "")?;
        }
        if let Some(remedy) = &check.remedy {
            writeln!(out, "{:<29}-> {remedy}", "")?;
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (fine, degraded, broken) = (count(Verdict::Fine), count(Verdict::Degraded), count(Verdict::Broken));
    writeln!(out, "{} checks: {fine} ok, {degraded} degraded, {broken} broken", checks.len())
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::doctor::{Check, Verdict};

    #[test]
    fn each_gap_is_shown_with_its_effect_and_remedy() {
        let fine = Check {
            id: "kernel.hook",
            verdict: Verdict::Fine,
            evidence: "tcx".into(),
            effect: None,
            remedy: None,
        };
        let gap = Check {
            id: "kernel.tun",
            verdict: Verdict::Degraded,
            evidence: "/dev/net/tun: No such file".into(),
            effect: Some("packets are not held".into()),
            remedy: Some("modprobe tun".into()),
        };
        let mut out = Vec::new();
        write(&mut out, &[fine, gap]).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\
ok    kernel.hook            tcx
warn  kernel.tun             /dev/net/tun: No such file
                             packets are not held
                             -> modprobe tun
2 checks: 1 ok, 1 degraded, 0 broken
"
        );
    }
}
