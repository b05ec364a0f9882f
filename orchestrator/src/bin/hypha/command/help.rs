//! `help`: the help of a command, or a topic that belongs to none.

use crate::args::grammar;
use crate::exit::{EXIT_CODES, Exit};
use crate::failure::Failure;
use crate::terminal::Terminal;

const TOPICS: [(&str, &str); 4] =
    [("exit-codes", EXIT_CODES), ("environment", ENVIRONMENT), ("names", NAMES), ("sla", SLA)];

const ENVIRONMENT: &str = "\
Environment:
  HYPHA_URL        address of the root, as --url
  HYPHA_TOKEN      access token to use instead of the stored login; it is not renewed
  XDG_CONFIG_HOME  the login is kept in $XDG_CONFIG_HOME/hypha/login.json (default ~/.config)
  NO_COLOR         no colours; CLICOLOR_FORCE=1: colours in pipes too; --color beats both
  HTTP_PROXY, NO_PROXY   honoured, except for roots on this machine";

const NAMES: &str = "\
Names:
  shop            an application
  shop/web        a service of it
  shop/web/2      instance 2 of that; numbers are never used twice
  web, web/2      short forms, where only one thing fits; otherwise the choices are listed
  shop.prod/web   with the namespace, where names alone are ambiguous
  shop.prod.web.prod              Oakestra's name of a service
  shop.prod.web.prod.instance.2   a container's id
Names in an SLA are 1 to 30 letters and digits.";

const SLA: &str = r#"The SLA file (v2, JSON), with the least that it needs:
  {
    "sla_version": "v2.0",
    "customerID": "Admin",
    "applications": [{
      "application_name": "hello",
      "application_namespace": "demo",
      "microservices": [{
        "microservice_name": "web",
        "microservice_namespace": "demo",
        "virtualization": "container",
        "code": "docker.io/library/nginx:latest",
        "memory": 64,
        "vcpus": 1,
        "instances": 3
      }]
    }]
  }
memory is in MB. Further keys of a service:
  cmd          ["httpd", "-f"]: replaces the image's arguments
  environment  ["KEY=VALUE"]
  port         "8080:80/tcp;5353/udp": host port, container port, protocol
  addresses    {"rr_ip": "10.30.30.30"}: a ServiceIP of your choice within 10.30.0.0/16, or the root's
               --service-range; and with {"closest_ip": "10.30.30.31"} one that leads to the closest instance
  balancing    "least_connections": new connections go where the fewest are open from the client's
               node, instead of to each instance in turn
  constraints  [{"type": "direct", "cluster": "home", "node": "nuc-1"}]: where it may run
  on_disconnect  "keep", or "replace_after 2m": what is to become of instances whose worker or
               cluster is not heard of any more; without it they are replaced after a while
  reconcile    "original": one that was replaced and comes back takes over again
  one_shot     true: done when it ends with exit code 0
  instances    how many run (read by hypha apply). Without it: one, or as many as there are"#;

pub(crate) fn help(words: &[String]) -> Result<(), Failure> {
    let [word] = words else {
        return match words {
            [] => print(&mut grammar()),
            _ => Err(unknown(&words.join(" "))),
        };
    };
    if let Some((_, text)) = TOPICS.iter().find(|(topic, _)| topic == word) {
        return Terminal::answer(text);
    }
    let mut grammar = grammar();
    grammar.build();
    let command = grammar.find_subcommand_mut(word).ok_or_else(|| unknown(word))?;
    print(command)
}

fn print(command: &mut clap::Command) -> Result<(), Failure> {
    Terminal::answer(&command.render_long_help().to_string())
}

fn unknown(word: &str) -> Failure {
    let topics = TOPICS.map(|(topic, _)| topic).join(", ");
    Failure::new(Exit::Usage, format!("no help on '{word}'"))
        .detail(format!("topics: {topics}"))
        .hint("hypha help")
}

#[cfg(test)]
mod tests {
    use super::SLA;

    #[test]
    fn the_example_in_the_help_is_a_valid_sla() {
        let example = &SLA[SLA.find('{').unwrap()..=SLA.find("\n  }\n").unwrap() + 3];
        crate::manifest::parse("help".into(), example.as_bytes()).unwrap();
    }
}
