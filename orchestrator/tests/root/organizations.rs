//! Organizations, and how far their admins' arms reach.

use serde_json::json;

use crate::bed::{Bed, sla, web};
use crate::people::GOOD_PASSWORD;

const PROVIDER: &[&str] = &["Application_Provider"];
const UNKNOWN: &str = "6b033dd4d683569b0801fa18";

#[tokio::test]
async fn organizations_come_and_go_with_their_members() {
    let bed = Bed::start().await;
    let (acme, jane) = bed.organization("acme", "jane", PROVIDER).await;
    let listed = bed.get("/api/organization/").await.ok();
    let own = listed.as_array().unwrap().iter().find(|one| one["name"] == "acme").unwrap();
    let member = json!([{ "user_id": jane.id, "roles": PROVIDER }]);
    assert_eq!((&own["_id"]["$oid"], &own["member"]), (&json!(acme), &member));
    let users = bed.get(&format!("/api/users/{acme}")).await.ok();
    assert_eq!((&users[0]["name"], &users[0]["roles"]), (&json!("jane"), &json!(PROVIDER)));

    bed.post("/api/organization", json!({ "name": "acme" })).await.is(409);
    bed.post("/api/organization", json!({ "name": "a/b" })).await.is(400);
    let with_nobody = json!({ "name": "x", "member": [{ "user_id": UNKNOWN, "roles": [] }] });
    bed.post("/api/organization", with_nobody).await.is(404);
    bed.put(&format!("/api/organization/{acme}"), json!({ "name": "root" })).await.is(409);
    bed.put(&format!("/api/organization/{UNKNOWN}"), json!({})).await.is(404);

    let renamed =
        json!({ "name": "acme two", "member": [{ "user_id": jane.id, "roles": ["Organization_Admin"] }] });
    bed.put(&format!("/api/organization/{acme}"), renamed).await.ok();
    bed.log_in("jane", &jane.id, json!({ "organization_name": "acme two" })).await;
    bed.post("/api/organization", json!({ "name": "acme" })).await.ok();

    jane.post(&bed, "/api/application", sla("shop", web())).await.ok();
    bed.delete(&format!("/api/organization/{acme}")).await.is(409);
    let shop = bed.get("/api/applications/jane").await.ok()[0]["applicationID"].as_str().unwrap().to_owned();
    bed.delete(&format!("/api/application/{shop}")).await.ok();
    bed.delete(&format!("/api/organization/{acme}")).await.ok();
    jane.get(&bed, "/api/applications").await.is(401);
    bed.get("/api/user/jane").await.ok();
}

#[tokio::test]
async fn who_logs_in_to_another_organization_than_their_own_is_refused() {
    let bed = Bed::start().await;
    bed.organization("acme", "jane", PROVIDER).await;
    bed.register("john", PROVIDER).await;
    let log_in = |organization: &str| {
        let body =
            json!({ "username": "john", "password": GOOD_PASSWORD, "organization_name": organization });
        bed.post("/api/auth/login", body)
    };
    log_in("acme").await.is(403);
    log_in("nowhere").await.is(404);
    log_in("root").await.ok();
}

#[tokio::test]
async fn an_organization_s_admin_looks_after_it_and_nothing_else() {
    let bed = Bed::start().await;
    let (acme, boss) = bed.organization("acme", "boss", &["Organization_Admin"]).await;
    let root = bed.get("/api/organization").await.ok();
    let root =
        root.as_array().unwrap().iter().find(|one| one["name"] == "root").unwrap()["_id"]["$oid"].clone();
    bed.register("outsider", PROVIDER).await;

    let worker = json!({ "name": "worker", "password": GOOD_PASSWORD, "roles": PROVIDER });
    boss.post(&bed, "/api/auth/register", worker).await.ok();
    let tyrant = json!({ "name": "tyrant", "password": GOOD_PASSWORD, "roles": ["Admin"] });
    boss.post(&bed, "/api/auth/register", tyrant).await.is(403);
    boss.put(&bed, "/api/user/worker", json!({ "roles": ["Admin"] })).await.is(403);
    boss.put(&bed, "/api/user/worker", json!({ "email": "w@example.org" })).await.ok();
    for path in ["/api/user/outsider", "/api/user/Admin", "/api/permission/Admin"] {
        boss.get(&bed, path).await.is(404);
    }
    boss.delete(&bed, "/api/user/outsider").await.is(404);
    // Who is also in another organization is changed by an Admin only.
    boss.put(&bed, "/api/user/boss", json!({ "password": "another horse" })).await.is(403);

    let organizations = boss.get(&bed, "/api/organization").await.ok();
    assert_eq!((organizations.as_array().unwrap().len(), &organizations[0]["name"]), (1, &json!("acme")));
    boss.get(&bed, &format!("/api/users/{acme}")).await.ok();
    boss.get(&bed, &format!("/api/users/{}", root.as_str().unwrap())).await.is(404);
    boss.put(&bed, &format!("/api/organization/{acme}"), json!({})).await.is(403);

    let worker = bed.log_in("worker", "", json!({})).await;
    let theirs = worker.post(&bed, "/api/application", sla("shop", web())).await.ok();
    let theirs = theirs[0]["applicationID"].as_str().unwrap();
    boss.get(&bed, &format!("/api/application/{theirs}")).await.ok();
    assert_eq!(boss.get(&bed, "/api/applications").await.ok().as_array().unwrap().len(), 1);
    boss.delete(&bed, &format!("/api/application/{theirs}")).await.ok();
}
