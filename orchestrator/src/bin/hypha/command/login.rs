//! `login`, `logout`, `whoami`.

use std::io::BufRead;

use serde_json::json;

use crate::api::ApiError;
use crate::args::Login;
use crate::context::{Context, address};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Column, Listing, Row};
use crate::session::{Store, claims};
use crate::terminal::Terminal;

/// Logs in and stores what the root gave.
pub(crate) async fn login(context: &Context, arguments: &Login) -> Result<(), Failure> {
    let root = address(&arguments.url)?;
    let store = Store::from_environment()?;
    let client = crate::api::Client::new(root.clone(), None, context.global.request_timeout, |_session| ())?;
    if !root.is_loopback() {
        context.terminal.warn(&format!("the password travels to {root} unencrypted"));
    }
    let password = password(arguments).await?;
    let session = client.log_in(&arguments.user, &password).await?;
    store.save(&session)?;
    context.terminal.say(&format!(
        "logged in at {root} as {}, kept in {}",
        session.user,
        store.path().display()
    ));
    context.terminal.say("next: hypha get clusters    hypha apply -f FILE");
    Ok(())
}

async fn password(arguments: &Login) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(Exit::Usage, format!("read the password: {error}"));
    if arguments.password_stdin {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
        let password = line.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Failure::new(Exit::Usage, "no password on stdin"));
        }
        return Ok(password.to_owned());
    }
    if !Terminal::can_ask() {
        let failure = Failure::new(Exit::Usage, "there is no terminal to ask for the password at");
        return Err(failure.hint("hypha login URL --password-stdin < FILE"));
    }
    Terminal::ask_password(&format!("Password of {}: ", arguments.user)).await.map_err(unreadable)
}

/// Twice is once.
pub(crate) fn logout(context: &Context) -> Result<(), Failure> {
    let store = Store::from_environment()?;
    let said = if store.forget()? { "logged out" } else { "was not logged in" };
    context.terminal.say(said);
    Ok(())
}

const WHO: &[Column] = &[Column::text("USER"), Column::text("ROOT"), Column::text("ROLES")];

/// Asks the root whether the login still holds, and shows it.
pub(crate) async fn whoami(context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    match client.apps().await {
        // Not allowed to list everything is known to the root all the same.
        Ok(_) | Err(ApiError::Forbidden { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let session = client.session().ok_or_else(|| Failure::new(Exit::LogIn, "not logged in"))?;
    let roles = claims(&session.token).roles;
    let row = Row {
        fields: vec![session.user.as_str().into(), session.url.as_str().into(), roles.join(" ").into()],
        name: format!("user/{}", session.user),
        document: json!({ "user": session.user, "url": session.url, "roles": roles }),
    };
    context.list(&Listing { columns: WHO, rows: vec![row] }, "")
}
