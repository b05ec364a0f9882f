//! Host ports of a service: `hostPort[:containerPort][/tcp|/udp]`, several separated by `;`.

use std::collections::HashSet;

use protocol::port::TUNNEL;

const ENTRIES_MAX: usize = 256;

/// Whether the text is a list of ports that one worker can map. Empty is none.
///
/// # Errors
/// What is wrong with the first entry that is.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let entries: Vec<&str> = text.split(';').collect();
    if entries.len() > ENTRIES_MAX {
        return Err(format!("expected at most {ENTRIES_MAX} entries, got {}", entries.len()));
    }
    let mut taken = HashSet::new();
    for entry in entries {
        let (host, protocol) = parse(entry)?;
        if host == TUNNEL {
            return Err(format!("port {TUNNEL} carries the overlay itself and cannot be mapped"));
        }
        if !taken.insert((host, protocol)) {
            return Err(format!("host port {host}/{protocol} is mapped twice"));
        }
    }
    Ok(())
}

fn parse(entry: &str) -> Result<(u16, &str), String> {
    let wrong = || {
        let entry: String = entry.chars().take(32).collect();
        format!("expected hostPort[:containerPort][/tcp|/udp], ports 1 to 65535, got {entry:?}")
    };
    let (ports, protocol) = entry.split_once('/').unwrap_or((entry, "tcp"));
    let (host, container) = ports.split_once(':').unwrap_or((ports, ports));
    if !matches!(protocol, "tcp" | "udp") {
        return Err(wrong());
    }
    number(container).ok_or_else(wrong)?;
    Ok((number(host).ok_or_else(wrong)?, protocol))
}

/// Digits only: the parser of numbers would take a sign.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check;

    #[test]
    fn every_form_of_the_grammar_is_taken() {
        for text in [
            "",
            "80",
            "8080:80",
            "8080:80/tcp",
            "53:53/udp",
            "80;443",
            "53/udp;53/tcp",
            "6080:80/tcp;6081:81",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "x",
            "80:",
            ":80",
            "80/sctp",
            "80/",
            "65536",
            "0",
            "-1",
            "+80",
            " 80",
            "80;",
            "80;80",
            "80:81/tcp/udp",
            "50103",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_answered(text in "[0-9:;/tcpud+ ]{0,24}") {
            let _any_verdict = check(&text);
        }

        #[test]
        fn any_pair_of_ports_is_taken(host in 1..50_000_u16, container in 1..=u16::MAX) {
            prop_assert_eq!(check(&format!("{host}:{container}/udp")), Ok(()));
        }
    }
}
