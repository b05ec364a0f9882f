//! Users: made, shown, changed, deleted.

use serde_json::{Value, json};

use crate::bed::{Bed, sla, web};
use crate::people::GOOD_PASSWORD;

#[tokio::test]
async fn users_come_and_go_and_nothing_secret_is_shown() {
    let bed = Bed::start().await;
    let made = bed.register("jane", &["Application_Provider"]).await;
    let expected = json!({
        "_id": made["_id"], "name": "jane", "email": "jane@example.org", "created_at": "22/11/2026 19:09",
        "roles": ["Application_Provider"],
    });
    assert_eq!(made, expected, "no password, not even hashed");
    assert_eq!(bed.get("/api/user/jane").await.ok(), expected);
    assert_eq!(bed.get("/api/permission/jane/").await.ok(), json!({ "roles": ["Application_Provider"] }));
    let again = json!({ "name": "jane", "password": GOOD_PASSWORD, "roles": [] });
    bed.post("/api/auth/register/", again).await.is(409);

    // As the dashboard once wrote roles, and as it gives the whole user back.
    let mut change = made.clone();
    change["email"] = json!("jane@example.com");
    change["password"] = json!("");
    change["roles"] = json!([{ "name": "Infrastructure_Provider", "description": "x" }]);
    assert_eq!(bed.put("/api/user/jane", change).await.ok(), "ok");
    let changed = bed.get("/api/user/jane").await.ok();
    assert_eq!(
        (&changed["email"], &changed["roles"]),
        (&json!("jane@example.com"), &json!(["Infrastructure_Provider"]))
    );
    bed.log_in("jane", "", json!({})).await;

    let names = |users: Value| -> Vec<String> {
        users.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(bed.get("/api/users/").await.ok()), ["Admin", "jane"]);
    assert_eq!(names(bed.delete("/api/user/jane").await.ok()), ["Admin"]);
    bed.get("/api/user/jane").await.is(404);
    bed.delete("/api/user/jane").await.is(404);
}

#[tokio::test]
async fn wrong_users_are_refused() {
    let bed = Bed::start().await;
    for wrong in [
        json!({ "name": "a/b", "password": GOOD_PASSWORD }),
        json!({ "name": "jane", "password": "short" }),
        json!({ "name": "jane", "password": "x".repeat(300) }),
        json!({ "name": "jane", "password": GOOD_PASSWORD, "roles": ["Emperor"] }),
        json!({ "name": "jane", "password": GOOD_PASSWORD, "email": "a\nBcc: b" }),
        json!({ "name": "jane" }),
    ] {
        bed.post("/api/auth/register", wrong).await.is(400);
    }
    bed.put("/api/user/Admin", json!({ "name": "Root" })).await.is(400);
    bed.put("/api/user/nobody", json!({})).await.is(404);
}

#[tokio::test]
async fn admin_can_be_neither_deleted_nor_disarmed() {
    let bed = Bed::start().await;
    bed.delete("/api/user/Admin").await.is(409);
    bed.put("/api/user/Admin", json!({ "roles": ["Application_Provider"] })).await.is(409);
    let root = bed.get("/api/organization").await.ok()[0]["_id"]["$oid"].as_str().unwrap().to_owned();
    bed.put(&format!("/api/organization/{root}"), json!({ "member": [] })).await.is(409);
    bed.delete(&format!("/api/organization/{root}")).await.is(409);
    bed.get("/api/users").await.ok();
}

#[tokio::test]
async fn a_user_with_applications_stays() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &["Application_Provider"]).await;
    let made = jane.post(&bed, "/api/application", sla("shop", web())).await.ok();
    let said = bed.delete("/api/user/jane").await.is(409);
    assert!(said["message"].as_str().unwrap().contains("1 in number"), "{said}");
    let id = made[0]["_id"]["$oid"].as_str().unwrap();
    bed.delete(&format!("/api/application/{id}")).await.ok();
    bed.delete("/api/user/jane").await.ok();
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_the_old_one() {
    let bed = Bed::start().await;
    let jane = bed.person("jane", &[]).await;
    let change = |old: &str, new: &str| json!({ "oldPassword": old, "newPassword": new });
    jane.post(&bed, "/api/user/jane", change("wrong horse", "another horse")).await.is(400);
    jane.post(&bed, "/api/user/jane", change(GOOD_PASSWORD, "short")).await.is(400);
    bed.post("/api/user/jane", change(GOOD_PASSWORD, "another horse")).await.is(403);
    assert_eq!(
        jane.post(&bed, "/api/user/jane", change(GOOD_PASSWORD, "another horse")).await.ok(),
        json!({})
    );
}
