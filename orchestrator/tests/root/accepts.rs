//! What the API gives to those who ask rightly.

use reqwest::{Method, header};
use serde_json::json;

use crate::bed::{Bed, sla, web, web_at};

#[tokio::test]
async fn every_path_answers_with_and_without_a_slash() {
    let bed = Bed::start().await;
    let service = bed.service("shop", web()).await;
    let application =
        bed.get("/api/applications").await.ok()[0]["applicationID"].as_str().unwrap().to_owned();
    for path in [
        "/api/applications".to_owned(),
        format!("/api/application/{application}"),
        "/api/services".to_owned(),
        format!("/api/services/{application}"),
        format!("/api/service/{service}"),
        "/api/clusters".to_owned(),
        "/api/clusters/active".to_owned(),
    ] {
        let plain = bed.get(&path).await.ok();
        assert_eq!(plain, bed.get(&format!("{path}/")).await.ok(), "{path}");
    }
}

#[tokio::test]
async fn applications_and_services_come_and_go() {
    let bed = Bed::start().await;
    let mut document = sla("shop", web_at("10.30.7.7"));
    document["applications"][0]["microservices"][0]["instances"] = json!(3);
    let made = bed.post("/api/application", document).await.ok();
    assert_eq!(made.as_array().unwrap().len(), 1, "all applications of the caller");
    let application = made[0]["applicationID"].as_str().unwrap();
    let service = made[0]["microservices"][0].as_str().unwrap();

    let shown = bed.get(&format!("/api/service/{service}")).await.ok();
    assert_eq!(shown["job_name"], "shop.test.web.test");
    assert_eq!(shown["RR_ip"], "10.30.7.7");
    assert_eq!(shown["instances"], 3, "keys that only clients know are kept");
    assert_eq!(shown["instance_list"], json!([]), "nothing is started");

    let mut more = sla("shop", web());
    more["applications"][0]["applicationID"] = json!(application);
    more["applications"][0]["microservices"][0]["microservice_name"] = json!("db");
    let added = bed.post("/api/service/", more).await.ok();
    assert_eq!(added["deployed_services"][0]["service_name"], "shop.test.db.test");
    assert_eq!(bed.get(&format!("/api/services/{application}")).await.ok().as_array().unwrap().len(), 2);

    bed.delete(&format!("/api/service/{service}")).await.ok();
    bed.get(&format!("/api/service/{service}")).await.is(404);
    assert_eq!(
        bed.get(&format!("/api/application/{application}")).await.ok()["microservices"],
        json!([added["job_id"]])
    );

    bed.delete(&format!("/api/application/{application}")).await.ok();
    bed.get(&format!("/api/application/{application}")).await.is(404);
    assert_eq!(bed.get("/api/services").await.ok(), json!([]));
    bed.post("/api/application", sla("shop", web_at("10.30.7.7"))).await.ok();
}

/// A document made from what the API once showed has these keys in it.
#[tokio::test]
async fn what_only_the_root_can_say_is_not_taken_from_a_document() {
    let bed = Bed::start().await;
    let shown = bed.service("first", web()).await;
    let mut service = bed.get(&format!("/api/service/{shown}")).await.ok();
    service["microserviceID"] = json!("");
    service["addresses"] = json!({});
    service["status"] = json!("RUNNING");
    service["instance_number"] = json!(7);
    let mut document = sla("second", service);
    document["applications"][0]["_id"] = json!("mine");
    document["applications"][0]["userId"] = json!("Somebody");
    bed.post("/api/application", document).await.ok();

    let services = bed.get("/api/services").await.ok();
    let second = services.as_array().unwrap().iter().find(|one| one["app_name"] == "second").unwrap();
    assert_eq!(second["job_name"], "second.test.web.test");
    assert_ne!(second["_id"]["$oid"], shown);
    assert!(second.get("status").is_none() && second.get("instance_number").is_none(), "{second}");
    let applications = bed.get("/api/applications").await.ok();
    let second =
        applications.as_array().unwrap().iter().find(|one| one["application_name"] == "second").unwrap();
    assert_eq!((&second["_id"]["$oid"], &second["userId"]), (&second["applicationID"], &json!("Admin")));
}

#[tokio::test]
async fn any_origin_may_ask() {
    let bed = Bed::start().await;
    let preflight = bed
        .request(Method::OPTIONS, "/api/application/")
        .header(header::ORIGIN, "http://dashboard")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success());
    assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(
        preflight.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap().contains("Authorization")
    );
    let refused = bed.request(Method::GET, "/api/services").send().await.unwrap();
    assert_eq!(
        refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "*",
        "a browser must be able to read why"
    );
}

#[tokio::test]
async fn the_api_describes_itself() {
    let bed = Bed::start().await;
    let document = bed.get("/docs/openapi.json").await.ok();
    for path in [
        "/api/auth/login",
        "/api/application/{id}",
        "/api/service/{id}/instance/{number}",
        "/api/clusters/active",
    ] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
    let page = bed.get("/api/docs").await.ok();
    let page = page.as_str().unwrap();
    assert!(page.contains("/api/service/{id}/instance"));
    assert!(!page.contains("https://") && !page.contains("http://"), "the page needs nothing from elsewhere");
}
