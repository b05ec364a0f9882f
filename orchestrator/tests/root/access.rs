//! Every route asked by everybody: who is let in. The table stands here a second time, so that it is not changed
//! unawares.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::bed::Bed;
use crate::people::Person;

/// Who is let in: anonymous, and those with the one role that the letter stands for.
#[derive(Clone, Copy)]
enum For {
    Everybody,
    RefreshTokens,
    /// Of a path that names a user: that one.
    TheUser,
    /// That one, Admin, Organization_Admin.
    TheUserAndAdministrators,
    Administrators,
    Admins,
    /// Whoever is logged in.
    Users,
    /// Admin, Infrastructure_Provider.
    Operators,
    /// All but Infrastructure_Provider.
    ApplicationPeople,
}

const TABLE: [(&str, &str, For); 44] = [
    ("POST", "/api/auth/login", For::Everybody),
    ("POST", "/api/auth/refresh", For::RefreshTokens),
    ("POST", "/api/auth/register", For::Administrators),
    ("GET", "/api/permission/{username}", For::TheUserAndAdministrators),
    ("GET", "/api/user/{username}", For::TheUserAndAdministrators),
    ("PUT", "/api/user/{username}", For::Administrators),
    ("DELETE", "/api/user/{username}", For::Administrators),
    ("POST", "/api/user/{username}", For::TheUser),
    ("POST", "/api/user", For::Everybody),
    ("PUT", "/api/user", For::Everybody),
    ("GET", "/api/users", For::Administrators),
    ("GET", "/api/users/{organization}", For::Administrators),
    ("GET", "/api/organization", For::Administrators),
    ("POST", "/api/organization", For::Admins),
    ("PUT", "/api/organization/{organization}", For::Admins),
    ("DELETE", "/api/organization/{organization}", For::Admins),
    ("POST", "/api/application", For::ApplicationPeople),
    ("GET", "/api/application/{id}", For::ApplicationPeople),
    ("PUT", "/api/application/{id}", For::ApplicationPeople),
    ("DELETE", "/api/application/{id}", For::ApplicationPeople),
    ("GET", "/api/applications", For::ApplicationPeople),
    ("GET", "/api/applications/{user}", For::ApplicationPeople),
    ("POST", "/api/service", For::ApplicationPeople),
    ("GET", "/api/service/{id}", For::ApplicationPeople),
    ("PUT", "/api/service/{id}", For::ApplicationPeople),
    ("DELETE", "/api/service/{id}", For::ApplicationPeople),
    ("GET", "/api/services", For::ApplicationPeople),
    ("GET", "/api/services/{id}", For::ApplicationPeople),
    ("POST", "/api/service/{id}/instance", For::ApplicationPeople),
    ("DELETE", "/api/service/{id}/instance/{number}", For::ApplicationPeople),
    ("GET", "/api/clusters", For::Everybody),
    ("GET", "/api/clusters/active", For::Everybody),
    ("POST", "/api/information/{id}", For::Everybody),
    ("GET", "/v1/stream", For::Users),
    ("GET", "/v1/status", For::Users),
    ("POST", "/v1/validate", For::ApplicationPeople),
    ("GET", "/v1/why/{id}", For::ApplicationPeople),
    ("POST", "/v1/clusters/{id}/cordon", For::Operators),
    ("POST", "/v1/clusters/{id}/uncordon", For::Operators),
    ("GET", "/v1/workers", For::Users),
    ("DELETE", "/v1/workers/{id}", For::Operators),
    ("POST", "/v1/workers/{id}/cordon", For::Operators),
    ("POST", "/v1/workers/{id}/drain", For::Operators),
    ("POST", "/v1/workers/{id}/uncordon", For::Operators),
];

const ROLES: [&str; 4] = ["Admin", "Organization_Admin", "Application_Provider", "Infrastructure_Provider"];

impl For {
    /// Whether somebody with this role is let in, where the path names them or somebody else.
    fn lets_in(self, role: &str, is_named: bool) -> bool {
        let administers = ["Admin", "Organization_Admin"].contains(&role);
        match self {
            Self::Everybody => true,
            Self::RefreshTokens => false,
            Self::TheUser => is_named,
            Self::TheUserAndAdministrators => is_named || administers,
            Self::Administrators => administers,
            Self::Admins => role == "Admin",
            Self::Users => true,
            Self::Operators => ["Admin", "Infrastructure_Provider"].contains(&role),
            Self::ApplicationPeople => role != "Infrastructure_Provider",
        }
    }
}

fn path(pattern: &str, username: &str) -> String {
    let id = "6b033dd4d683569b0801fa18";
    pattern
        .replace("{username}", username)
        .replace("{user}", username)
        .replace("{id}", id)
        .replace("{organization}", id)
        .replace("{number}", "0")
        // What has no end is asked for so that it ends at once.
        .replace("/v1/stream", "/v1/stream?topics=none")
}

#[tokio::test]
async fn the_table_names_every_route_that_is_served() {
    let bed = Bed::start().await;
    let document = bed.get("/docs/openapi.json").await.ok();
    let served: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let listed: BTreeSet<String> = TABLE.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(served, listed);
}

#[tokio::test]
async fn who_has_no_token_is_let_in_where_everybody_is() {
    let bed = Bed::start().await;
    for (method, pattern, who) in TABLE {
        let request = bed.request(Method::from_bytes(method.as_bytes()).unwrap(), &path(pattern, "Admin"));
        let status = request.send().await.unwrap().status();
        assert_eq!(status == 401, !matches!(who, For::Everybody), "{method} {pattern}: {status}");
    }
}

/// Bodies are left out, so that what is let in goes on to fail by its body or by what its path names: neither is 401 or
/// 403. What would delete somebody names nobody.
#[tokio::test]
async fn each_role_is_let_in_where_the_table_says_and_nowhere_else() {
    let bed = Bed::start().await;
    bed.register("victim", &[]).await;
    for role in ROLES {
        let name = role.replace('_', "");
        let person = bed.person(&format!("the{name}"), &[role]).await;
        for (method, pattern, who) in TABLE {
            // These end the login that is looked at.
            let ends_it = who.lets_in(role, true) && method == "DELETE" && pattern.contains("{username}");
            let own = if ends_it { "nobody" } else { &person.name };
            for (username, is_named) in [(own, !ends_it), ("nobody", false)] {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let status =
                    bed.send_as(&person.token, method.clone(), &path(pattern, username), None).await.status;
                let expected = who.lets_in(role, is_named && pattern.contains("{username}"));
                if matches!(who, For::RefreshTokens) || pattern == "/api/auth/login" {
                    continue;
                }
                assert_eq!(
                    status != 401 && status != 403,
                    expected,
                    "{role}: {method} {pattern} of {username}: {status}"
                );
            }
        }
        refreshes(&bed, &person).await;
    }
}

async fn refreshes(bed: &Bed, person: &Person) {
    bed.send_as(&person.token, Method::POST, "/api/auth/refresh", Some(json!({}))).await.is(401);
    bed.refresh(&person.refresh_token).await.ok();
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_not_there() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let john = bed.person("john", &["Application_Provider"]).await;
    let made = jane.post(&bed, "/api/application", crate::bed::sla("shop", crate::bed::web())).await.ok();
    let application = made[0]["applicationID"].as_str().unwrap();
    let service = made[0]["microservices"][0].as_str().unwrap();
    for path in [
        format!("/api/application/{application}"),
        format!("/api/services/{application}"),
        format!("/api/service/{service}"),
        "/api/applications/jane".to_owned(),
        format!("/api/applications/{}", jane.id),
    ] {
        john.get(&bed, &path).await.is(404);
        jane.get(&bed, &path).await.ok();
        bed.get(&path).await.ok();
    }
    for path in ["/api/applications", "/api/services"] {
        assert_eq!(john.get(&bed, path).await.ok(), json!([]));
        assert_eq!(jane.get(&bed, path).await.ok().as_array().unwrap().len(), 1);
        assert_eq!(bed.get(path).await.ok().as_array().unwrap().len(), 1);
    }
    john.post(&bed, &format!("/api/service/{service}/instance"), json!({})).await.is(404);
    john.delete(&bed, &format!("/api/service/{service}/instance/-1")).await.is(404);
    john.delete(&bed, &format!("/api/service/{service}")).await.is(404);
    john.delete(&bed, &format!("/api/application/{application}")).await.is(404);
    let mut more = crate::bed::sla("shop", crate::bed::web());
    more["applications"][0]["applicationID"] = json!(application);
    john.post(&bed, "/api/service", more).await.is(404);
}
